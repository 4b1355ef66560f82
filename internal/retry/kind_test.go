package retry

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func rangeOp() *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}
}

func putOp() *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k")}}}
}

func deleteOp() *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{}}}
}

func txnOp(success, failure []*pb.RequestOp) *pb.RequestOp {
	txn := &pb.TxnRequest{Success: success, Failure: failure}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}
}

func TestKindOfTransactionIsDecidedByItsOperations(t *testing.T) {
	ops := func(ops ...*pb.RequestOp) []*pb.RequestOp { return ops }
	tests := map[string]struct {
		success, failure []*pb.RequestOp
		want             Kind
	}{
		"empty":                        {nil, nil, Read},
		"range":                        {ops(rangeOp()), nil, Read},
		"ranges in both branches":      {ops(rangeOp(), rangeOp()), ops(rangeOp()), Read},
		"put":                          {ops(putOp()), nil, Write},
		"put after range":              {ops(rangeOp(), putOp()), nil, Write},
		"put in the other branch":      {ops(rangeOp()), ops(putOp()), Write},
		"delete":                       {ops(deleteOp()), nil, Write},
		"nested ranges":                {ops(txnOp(ops(rangeOp()), ops(rangeOp()))), nil, Read},
		"nested put":                   {ops(txnOp(ops(putOp()), nil)), nil, Write},
		"nested put in other branch":   {ops(txnOp(nil, ops(putOp()))), nil, Write},
		"put two levels down":          {ops(txnOp(nil, ops(txnOp(ops(deleteOp()), nil)))), nil, Write},
		"operation of an unknown kind": {ops(&pb.RequestOp{}), nil, Write},
		"nil operation":                {ops(nil), nil, Write},
	}
	for name, tt := range tests {
		req := &pb.TxnRequest{Success: tt.success, Failure: tt.failure}
		if got := KindOf(pb.KV_Txn_FullMethodName, req); got != tt.want {
			t.Errorf("%s: kind %d, want %d", name, got, tt.want)
		}
	}
}

func TestKindOfAlarmIsDecidedByItsAction(t *testing.T) {
	for action, want := range map[pb.AlarmRequest_AlarmAction]Kind{
		pb.AlarmRequest_GET:        Read,
		pb.AlarmRequest_ACTIVATE:   Write,
		pb.AlarmRequest_DEACTIVATE: Write,
	} {
		if got := KindOf(pb.Maintenance_Alarm_FullMethodName, &pb.AlarmRequest{Action: action}); got != want {
			t.Errorf("%v: kind %d, want %d", action, got, want)
		}
	}
}

// Every unary method of etcd's services is listed here by hand, so that one that comes with a new version of the
// services is thought about before it is retried.
func TestKindOfEveryMethod(t *testing.T) {
	reads := map[string]bool{
		"KV/Range": true, "Lease/LeaseTimeToLive": true, "Lease/LeaseLeases": true, "Cluster/MemberList": true,
		"Maintenance/Status": true, "Maintenance/Hash": true, "Maintenance/HashKV": true,
		"Auth/AuthStatus": true, "Auth/Authenticate": true,
		"Auth/UserGet": true, "Auth/UserList": true, "Auth/RoleGet": true, "Auth/RoleList": true,
	}
	writes := map[string]bool{
		"KV/Put": true, "KV/DeleteRange": true, "KV/Compact": true,
		"Lease/LeaseGrant": true, "Lease/LeaseRevoke": true,
		"Cluster/MemberAdd": true, "Cluster/MemberRemove": true, "Cluster/MemberUpdate": true,
		"Maintenance/Defragment": true, "Maintenance/MoveLeader": true, "Maintenance/Downgrade": true,
		"Auth/AuthEnable": true, "Auth/AuthDisable": true, "Auth/UserAdd": true, "Auth/UserDelete": true,
		"Auth/UserChangePassword": true, "Auth/UserGrantRole": true, "Auth/UserRevokeRole": true, "Auth/RoleAdd": true,
		"Auth/RoleDelete": true, "Auth/RoleGrantPermission": true, "Auth/RoleRevokePermission": true,
	}
	byRequest := map[string]bool{"KV/Txn": true, "Maintenance/Alarm": true} // have tests of their own
	services := pb.File_rpc_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			if m.IsStreamingClient() || m.IsStreamingServer() {
				continue
			}
			name := string(m.Parent().Name()) + "/" + string(m.Name())
			got := KindOf(fullMethod(m), nil)
			switch {
			case byRequest[name]:
			case name == "Cluster/MemberPromote":
				if got != ForwardedWrite {
					t.Errorf("%s: kind %d, want ForwardedWrite", name, got)
				}
			case reads[name]:
				if got != Read {
					t.Errorf("%s: kind %d, want Read", name, got)
				}
			case writes[name]:
				if got != Write {
					t.Errorf("%s: kind %d, want Write", name, got)
				}
			default:
				t.Errorf("%s is in no list: is it a read or a write?", name)
			}
		}
	}
}

func fullMethod(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

func TestKindOfUnknownMethodIsWrite(t *testing.T) {
	if got := KindOf("/elsewhere.Service/Method", nil); got != Write {
		t.Errorf("kind %d, want Write", got)
	}
}

func TestNeedsLeader(t *testing.T) {
	get := func(serializable bool) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
			RequestRange: &pb.RangeRequest{Key: []byte("k"), Serializable: serializable},
		}}
	}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k")}}}
	for name, tt := range map[string]struct {
		method string
		req    any
		want   bool
		hedge  bool
	}{
		"linearizable range":  {pb.KV_Range_FullMethodName, &pb.RangeRequest{}, true, true},
		"serializable range":  {pb.KV_Range_FullMethodName, &pb.RangeRequest{Serializable: true}, false, true},
		"put":                 {pb.KV_Put_FullMethodName, &pb.PutRequest{}, true, false},
		"delete":              {pb.KV_DeleteRange_FullMethodName, &pb.DeleteRangeRequest{}, true, false},
		"compact":             {pb.KV_Compact_FullMethodName, &pb.CompactionRequest{}, true, false},
		"serializable txn":    {pb.KV_Txn_FullMethodName, &pb.TxnRequest{Success: []*pb.RequestOp{get(true)}}, false, true},
		"linearizable txn":    {pb.KV_Txn_FullMethodName, &pb.TxnRequest{Failure: []*pb.RequestOp{get(true), get(false)}}, true, true},
		"writing txn":         {pb.KV_Txn_FullMethodName, &pb.TxnRequest{Success: []*pb.RequestOp{get(true), put}}, true, false},
		"grant":               {pb.Lease_LeaseGrant_FullMethodName, &pb.LeaseGrantRequest{}, true, false},
		"time to live":        {pb.Lease_LeaseTimeToLive_FullMethodName, &pb.LeaseTimeToLiveRequest{}, true, true},
		"authenticate":        {pb.Auth_Authenticate_FullMethodName, &pb.AuthenticateRequest{}, true, false},
		"member list":         {pb.Cluster_MemberList_FullMethodName, &pb.MemberListRequest{}, false, true},
		"member add":          {pb.Cluster_MemberAdd_FullMethodName, &pb.MemberAddRequest{}, false, false},
		"status":              {pb.Maintenance_Status_FullMethodName, &pb.StatusRequest{}, false, false},
		"defragmentation":     {pb.Maintenance_Defragment_FullMethodName, &pb.DefragmentRequest{}, false, false},
		"a method of another": {"/some.Service/Method", nil, false, false},
	} {
		if got := NeedsLeader(tt.method, tt.req); got != tt.want {
			t.Errorf("%s: needs a leader %t, want %t", name, got, tt.want)
		}
		if got := Hedgeable(tt.method, tt.req); got != tt.hedge {
			t.Errorf("%s: hedgeable %t, want %t", name, got, tt.hedge)
		}
	}
}
