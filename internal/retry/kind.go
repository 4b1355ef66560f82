package retry

import (
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Kind is what a call does to the cluster. It decides which failures may be answered with another attempt.
type Kind uint8

const (
	// Write changes the cluster: it is repeated only where the failure proves that nothing was proposed to raft.
	// It is the zero value, so that a call nobody has classified is treated with most care.
	Write Kind = iota
	// ForwardedWrite is a Write that a follower hands to the leader over HTTP. Even a refusal that comes before the
	// proposal elsewhere may then follow a forwarded attempt whose answer was lost.
	ForwardedWrite
	// Read changes nothing and may be repeated whatever happened to it.
	Read
)

// methods lists every unary method that is not a plain Write. Range and Txn are decided by their request.
var methods = map[string]Kind{
	pb.KV_Range_FullMethodName:              Read,
	pb.KV_RangeStream_FullMethodName:        Read,
	pb.Lease_LeaseTimeToLive_FullMethodName: Read,
	pb.Lease_LeaseLeases_FullMethodName:     Read,
	pb.Cluster_MemberList_FullMethodName:    Read,
	pb.Cluster_MemberPromote_FullMethodName: ForwardedWrite,
	pb.Maintenance_Status_FullMethodName:    Read,
	pb.Maintenance_Hash_FullMethodName:      Read,
	pb.Maintenance_HashKV_FullMethodName:    Read,
	pb.Maintenance_Snapshot_FullMethodName:  Read,
	pb.Auth_AuthStatus_FullMethodName:       Read,
	pb.Auth_UserGet_FullMethodName:          Read,
	pb.Auth_UserList_FullMethodName:         Read,
	pb.Auth_RoleGet_FullMethodName:          Read,
	pb.Auth_RoleList_FullMethodName:         Read,
	// Authenticate goes through raft but changes nothing: the proposal only mints a token.
	pb.Auth_Authenticate_FullMethodName: Read,
}

// KindOf returns the kind of a call by its full gRPC method name and request. Methods it does not know are Writes.
func KindOf(method string, req any) Kind {
	switch r := req.(type) {
	case *pb.TxnRequest:
		if readOnly(r.Success) && readOnly(r.Failure) {
			return Read
		}
		return Write
	case *pb.AlarmRequest:
		if r.Action == pb.AlarmRequest_GET {
			return Read
		}
		return Write
	}
	return methods[method]
}

// readOnly reports whether operations of a transaction leave the store as it is.
func readOnly(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		switch r := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
		case *pb.RequestOp_RequestTxn:
			if !readOnly(r.RequestTxn.GetSuccess()) || !readOnly(r.RequestTxn.GetFailure()) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// NeedsLeader reports whether a unary call, by its full gRPC method name and request, waits at a member without leader
// until there is one: everything that goes through raft or reads linearizably. Changes of the cluster itself are left
// out; servers refuse them with errors of their own while there is no quorum.
func NeedsLeader(method string, req any) bool {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return !r.Serializable
	case *pb.TxnRequest:
		return !serializable(r.Success) || !serializable(r.Failure)
	case *pb.PutRequest, *pb.DeleteRangeRequest, *pb.CompactionRequest,
		*pb.LeaseGrantRequest, *pb.LeaseRevokeRequest, *pb.LeaseTimeToLiveRequest:
		return true
	}
	return strings.HasPrefix(method, "/etcdserverpb.Auth/")
}

// serializable reports whether operations of a transaction are serializable reads only: a member serves such a
// transaction alone (server: isTxnSerializable).
func serializable(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		r, ok := op.GetRequest().(*pb.RequestOp_RequestRange)
		if !ok || !r.RequestRange.GetSerializable() {
			return false
		}
	}
	return true
}

// Hedgeable reports whether a unary call may be made a second time, at another member, while the first one is under way,
// and whether that is worth it: it changes nothing, costs little, and is waited for.
func Hedgeable(method string, req any) bool {
	switch r := req.(type) {
	case *pb.RangeRequest, *pb.LeaseTimeToLiveRequest, *pb.LeaseLeasesRequest, *pb.MemberListRequest:
		return true
	case *pb.TxnRequest:
		return KindOf(method, r) == Read
	}
	return false
}
