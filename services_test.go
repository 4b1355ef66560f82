package clientv3

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

// serviceCall is a call of a service: what is sent, what comes back, and what is returned for that.
type serviceCall struct {
	method         string
	do             func(context.Context, *Client) (proto.Message, error)
	request, reply proto.Message
}

func (tt serviceCall) check(t *testing.T, name string, m *members, c *Client) {
	t.Helper()
	m.handle(tt.method, scripted.Answer(tt.reply))
	got, err := tt.do(t.Context(), c)
	if err != nil || !proto.Equal(got, tt.reply) {
		t.Errorf("%s: response %v, error %v, want %v", name, got, err, tt.reply)
	}
	if got := m.last(t, tt.method).Request; !proto.Equal(got, tt.request) {
		t.Errorf("%s: request %v, want %v", name, got, tt.request)
	}
	m.handle(tt.method, scripted.Fail(rpctypes.ErrGRPCPermissionDenied))
	if got, err := tt.do(t.Context(), c); err != rpctypes.ErrPermissionDenied { //nolint:errorlint // identity
		t.Errorf("%s: response %v, error %v, want it refused", name, got, err)
	}
}

func checkServiceCalls(t *testing.T, calls map[string]serviceCall) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		for name, tt := range calls {
			tt.check(t, name, m, c)
		}
	})
}

var testHeader = &pb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: 3, RaftTerm: 4}

func TestClusterCalls(t *testing.T) {
	urls := []string{"http://b:2380", "https://a:2380", "unix://m.sock"}
	members := []*pb.Member{{ID: 5, Name: "m", PeerURLs: urls}}
	list := &pb.MemberListResponse{Header: testHeader, Members: members}
	memberList := func(opts ...OpOption) func(context.Context, *Client) (proto.Message, error) {
		return func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.MemberList(ctx, opts...)
			return (*pb.MemberListResponse)(resp), err
		}
	}
	checkServiceCalls(t, map[string]serviceCall{
		"MemberList": {pb.Cluster_MemberList_FullMethodName, memberList(), &pb.MemberListRequest{Linearizable: true}, list},
		"MemberList serializable": {
			pb.Cluster_MemberList_FullMethodName, memberList(WithSerializable(), WithLimit(1)), &pb.MemberListRequest{}, list,
		},
		"MemberAdd": {pb.Cluster_MemberAdd_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.MemberAdd(ctx, urls)
			return (*pb.MemberAddResponse)(resp), err
		}, &pb.MemberAddRequest{PeerURLs: urls}, &pb.MemberAddResponse{Header: testHeader, Member: members[0], Members: members}},
		"MemberAddAsLearner": {pb.Cluster_MemberAdd_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.MemberAddAsLearner(ctx, urls)
			return (*pb.MemberAddResponse)(resp), err
		}, &pb.MemberAddRequest{PeerURLs: urls, IsLearner: true}, &pb.MemberAddResponse{Header: testHeader}},
		"MemberRemove": {pb.Cluster_MemberRemove_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.MemberRemove(ctx, 5)
			return (*pb.MemberRemoveResponse)(resp), err
		}, &pb.MemberRemoveRequest{ID: 5}, &pb.MemberRemoveResponse{Header: testHeader}},
		"MemberUpdate": {pb.Cluster_MemberUpdate_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.MemberUpdate(ctx, 5, urls)
			return (*pb.MemberUpdateResponse)(resp), err
		}, &pb.MemberUpdateRequest{ID: 5, PeerURLs: urls}, &pb.MemberUpdateResponse{Header: testHeader}},
		"MemberPromote": {pb.Cluster_MemberPromote_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.MemberPromote(ctx, 5)
			return (*pb.MemberPromoteResponse)(resp), err
		}, &pb.MemberPromoteRequest{ID: 5}, &pb.MemberPromoteResponse{Header: testHeader, Members: members}},
	})
}

func TestPeerURLsThatNoMemberCanHaveAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		for _, tt := range []struct {
			urls []string
			want string
		}{
			{nil, "no valid URLs given"},
			{[]string{"a:1"}, "URL scheme must be http, https, unix, or unixs: a:1"},
			{[]string{"http://a"}, `URL address does not have the form "host:port": http://a`},
			{[]string{"http://a:1/p"}, "URL must not contain a path: http://a:1/p"},
			{[]string{"http://a:1", "http://%zz"}, "invalid URL escape"},
		} {
			for name, err := range map[string]error{
				"MemberAdd":          drop(c.MemberAdd(t.Context(), tt.urls)),
				"MemberAddAsLearner": drop(c.MemberAddAsLearner(t.Context(), tt.urls)),
				"MemberUpdate":       drop(c.MemberUpdate(t.Context(), 1, tt.urls)),
			} {
				if err == nil || !strings.Contains(err.Error(), tt.want) || MayHaveApplied(err) {
					t.Errorf("%s of %q: %v, want %q", name, tt.urls, err, tt.want)
				}
			}
		}
		if n := m.count(pb.Cluster_MemberAdd_FullMethodName) + m.count(pb.Cluster_MemberUpdate_FullMethodName); n != 0 {
			t.Errorf("%d calls were sent", n)
		}
	})
}

func TestMaintenanceCalls(t *testing.T) {
	alarm := &pb.AlarmMember{MemberID: 7, Alarm: pb.AlarmType_CORRUPT}
	checkServiceCalls(t, map[string]serviceCall{
		"AlarmList": {pb.Maintenance_Alarm_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.AlarmList(ctx)
			return (*pb.AlarmResponse)(resp), err
		}, &pb.AlarmRequest{}, &pb.AlarmResponse{Header: testHeader, Alarms: []*pb.AlarmMember{alarm}}},
		"AlarmDisarm": {pb.Maintenance_Alarm_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.AlarmDisarm(ctx, (*AlarmMember)(alarm))
			return (*pb.AlarmResponse)(resp), err
		}, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 7, Alarm: pb.AlarmType_CORRUPT},
			&pb.AlarmResponse{Header: testHeader, Alarms: []*pb.AlarmMember{alarm}}},
		"Defragment": {pb.Maintenance_Defragment_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.Defragment(ctx, "m0:2379")
			return (*pb.DefragmentResponse)(resp), err
		}, &pb.DefragmentRequest{}, &pb.DefragmentResponse{Header: testHeader}},
		"Status": {pb.Maintenance_Status_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.Status(ctx, "http://m0:2379")
			return (*pb.StatusResponse)(resp), err
		}, &pb.StatusRequest{}, &pb.StatusResponse{Header: testHeader, Version: "3.7.3", Leader: 9}},
		"HashKV": {pb.Maintenance_HashKV_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.HashKV(ctx, "m0:2379", 8)
			return (*pb.HashKVResponse)(resp), err
		}, &pb.HashKVRequest{Revision: 8}, &pb.HashKVResponse{Header: testHeader, Hash: 6}},
		"MoveLeader": {pb.Maintenance_MoveLeader_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.MoveLeader(ctx, 6)
			return (*pb.MoveLeaderResponse)(resp), err
		}, &pb.MoveLeaderRequest{TargetID: 6}, &pb.MoveLeaderResponse{Header: testHeader}},
		"Downgrade": {pb.Maintenance_Downgrade_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.Downgrade(ctx, DowngradeEnable, "3.6")
			return (*pb.DowngradeResponse)(resp), err
		}, &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: "3.6"},
			&pb.DowngradeResponse{Header: testHeader, Version: "3.6"}},
	})
}

func TestDowngradeActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		for action, want := range map[DowngradeAction]pb.DowngradeRequest_DowngradeAction{
			DowngradeValidate: pb.DowngradeRequest_VALIDATE,
			DowngradeEnable:   pb.DowngradeRequest_ENABLE,
			DowngradeCancel:   pb.DowngradeRequest_CANCEL,
		} {
			if _, err := c.Downgrade(t.Context(), action, "3.6"); err != nil {
				t.Error(err)
			}
			if got := m.last(t, pb.Maintenance_Downgrade_FullMethodName).Request.(*pb.DowngradeRequest).Action; got != want {
				t.Errorf("action %v, want %v", got, want)
			}
		}
		m.forget()
		_, err := c.Downgrade(t.Context(), 9, "3.6")
		if err == nil || err.Error() != "etcdclient: unknown downgrade action" || m.count(pb.Maintenance_Downgrade_FullMethodName) != 0 {
			t.Errorf("error %v, sent %d times", err, m.count(pb.Maintenance_Downgrade_FullMethodName))
		}
	})
}

// alarms serves the alarms of a cluster, and refuses to disarm those of one member.
func alarms(refused uint64, active ...*pb.AlarmMember) scripted.Unary {
	return func(call *scripted.Call) (proto.Message, error) {
		req := call.Request.(*pb.AlarmRequest)
		if req.Action == pb.AlarmRequest_GET {
			return &pb.AlarmResponse{Alarms: active}, nil
		}
		if req.MemberID == refused {
			return nil, rpctypes.ErrGRPCPermissionDenied
		}
		return &pb.AlarmResponse{Alarms: []*pb.AlarmMember{{MemberID: req.MemberID, Alarm: req.Alarm}}}, nil
	}
}

func TestDisarmOfEveryAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		active := []*pb.AlarmMember{{MemberID: 1, Alarm: pb.AlarmType_NOSPACE}, {MemberID: 2, Alarm: pb.AlarmType_CORRUPT}}
		m.handle(pb.Maintenance_Alarm_FullMethodName, alarms(0, active...))
		resp, err := c.AlarmDisarm(t.Context(), &AlarmMember{})
		if err != nil || len(resp.Alarms) != 2 || !proto.Equal(resp.Alarms[0], active[0]) || !proto.Equal(resp.Alarms[1], active[1]) {
			t.Errorf("%v, %v", resp, err)
		}
		if n := m.count(pb.Maintenance_Alarm_FullMethodName); n != 3 {
			t.Errorf("%d calls, want a list and one for each alarm", n)
		}
		m.handle(pb.Maintenance_Alarm_FullMethodName, alarms(1, active...))
		if resp, err := c.AlarmDisarm(t.Context(), &AlarmMember{}); resp != nil || err != rpctypes.ErrPermissionDenied { //nolint:errorlint // identity
			t.Errorf("%v, %v", resp, err)
		}
		m.handle(pb.Maintenance_Alarm_FullMethodName, alarms(0))
		if resp, err := c.AlarmDisarm(t.Context(), &AlarmMember{}); err != nil || len(resp.Alarms) != 0 {
			t.Errorf("%v, %v", resp, err)
		}
		if panicOf(func() { _, _ = c.AlarmDisarm(t.Context(), nil) }) == nil {
			t.Error("of nil: no panic")
		}
	})
}

func TestMaintenanceOfAnEndpointNamesIt(t *testing.T) {
	m := newMembers(t, 1)
	c := m.client(t)
	for name, err := range map[string]error{
		"Status":     drop(c.Status(t.Context(), "http://%zz")),
		"HashKV":     drop(c.HashKV(t.Context(), "http://%zz", 0)),
		"Defragment": drop(c.Defragment(t.Context(), "http://%zz")),
	} {
		if err == nil || !strings.Contains(err.Error(), "http://%zz") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAuthCalls(t *testing.T) {
	type do = func(context.Context, *Client) (proto.Message, error)
	checkServiceCalls(t, map[string]serviceCall{
		"Authenticate": {pb.Auth_Authenticate_FullMethodName, do(func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.Authenticate(ctx, "u", "p")
			return (*pb.AuthenticateResponse)(resp), err
		}), &pb.AuthenticateRequest{Name: "u", Password: "p"}, &pb.AuthenticateResponse{Header: testHeader, Token: "t"}},
		"AuthEnable": {pb.Auth_AuthEnable_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.AuthEnable(ctx)
			return (*pb.AuthEnableResponse)(resp), err
		}, &pb.AuthEnableRequest{}, &pb.AuthEnableResponse{Header: testHeader}},
		"AuthDisable": {pb.Auth_AuthDisable_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.AuthDisable(ctx)
			return (*pb.AuthDisableResponse)(resp), err
		}, &pb.AuthDisableRequest{}, &pb.AuthDisableResponse{Header: testHeader}},
		"AuthStatus": {pb.Auth_AuthStatus_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.AuthStatus(ctx)
			return (*pb.AuthStatusResponse)(resp), err
		}, &pb.AuthStatusRequest{}, &pb.AuthStatusResponse{Header: testHeader, Enabled: true, AuthRevision: 6}},
		"UserAdd": {pb.Auth_UserAdd_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.UserAdd(ctx, "u", "p")
			return (*pb.AuthUserAddResponse)(resp), err
		}, &pb.AuthUserAddRequest{Name: "u", Password: "p", Options: &authpb.UserAddOptions{}}, &pb.AuthUserAddResponse{Header: testHeader}},
		"UserAddWithOptions": {pb.Auth_UserAdd_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.UserAddWithOptions(ctx, "u", "p", &UserAddOptions{NoPassword: true})
			return (*pb.AuthUserAddResponse)(resp), err
		}, &pb.AuthUserAddRequest{Name: "u", Password: "p", Options: &authpb.UserAddOptions{NoPassword: true}},
			&pb.AuthUserAddResponse{Header: testHeader}},
		"UserAddWithOptions nil": {pb.Auth_UserAdd_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.UserAddWithOptions(ctx, "u", "p", nil)
			return (*pb.AuthUserAddResponse)(resp), err
		}, &pb.AuthUserAddRequest{Name: "u", Password: "p"}, &pb.AuthUserAddResponse{Header: testHeader}},
		"UserDelete": {pb.Auth_UserDelete_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.UserDelete(ctx, "u")
			return (*pb.AuthUserDeleteResponse)(resp), err
		}, &pb.AuthUserDeleteRequest{Name: "u"}, &pb.AuthUserDeleteResponse{Header: testHeader}},
		"UserChangePassword": {pb.Auth_UserChangePassword_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.UserChangePassword(ctx, "u", "p")
			return (*pb.AuthUserChangePasswordResponse)(resp), err
		}, &pb.AuthUserChangePasswordRequest{Name: "u", Password: "p"}, &pb.AuthUserChangePasswordResponse{Header: testHeader}},
		"UserGrantRole": {pb.Auth_UserGrantRole_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.UserGrantRole(ctx, "u", "r")
			return (*pb.AuthUserGrantRoleResponse)(resp), err
		}, &pb.AuthUserGrantRoleRequest{User: "u", Role: "r"}, &pb.AuthUserGrantRoleResponse{Header: testHeader}},
		"UserRevokeRole": {pb.Auth_UserRevokeRole_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.UserRevokeRole(ctx, "u", "r")
			return (*pb.AuthUserRevokeRoleResponse)(resp), err
		}, &pb.AuthUserRevokeRoleRequest{Name: "u", Role: "r"}, &pb.AuthUserRevokeRoleResponse{Header: testHeader}},
		"UserGet": {pb.Auth_UserGet_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.UserGet(ctx, "u")
			return (*pb.AuthUserGetResponse)(resp), err
		}, &pb.AuthUserGetRequest{Name: "u"}, &pb.AuthUserGetResponse{Header: testHeader, Roles: []string{"r"}}},
		"UserList": {pb.Auth_UserList_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.UserList(ctx)
			return (*pb.AuthUserListResponse)(resp), err
		}, &pb.AuthUserListRequest{}, &pb.AuthUserListResponse{Header: testHeader, Users: []string{"u"}}},
		"RoleAdd": {pb.Auth_RoleAdd_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.RoleAdd(ctx, "r")
			return (*pb.AuthRoleAddResponse)(resp), err
		}, &pb.AuthRoleAddRequest{Name: "r"}, &pb.AuthRoleAddResponse{Header: testHeader}},
		"RoleDelete": {pb.Auth_RoleDelete_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.RoleDelete(ctx, "r")
			return (*pb.AuthRoleDeleteResponse)(resp), err
		}, &pb.AuthRoleDeleteRequest{Role: "r"}, &pb.AuthRoleDeleteResponse{Header: testHeader}},
		"RoleGet": {pb.Auth_RoleGet_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.RoleGet(ctx, "r")
			return (*pb.AuthRoleGetResponse)(resp), err
		}, &pb.AuthRoleGetRequest{Role: "r"}, &pb.AuthRoleGetResponse{Header: testHeader}},
		"RoleList": {pb.Auth_RoleList_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.RoleList(ctx)
			return (*pb.AuthRoleListResponse)(resp), err
		}, &pb.AuthRoleListRequest{}, &pb.AuthRoleListResponse{Header: testHeader, Roles: []string{"r"}}},
		"RoleGrantPermission": {pb.Auth_RoleGrantPermission_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.RoleGrantPermission(ctx, "r", "a", "b", PermissionType(PermReadWrite))
			return (*pb.AuthRoleGrantPermissionResponse)(resp), err
		}, &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{
			PermType: authpb.Permission_READWRITE, Key: []byte("a"), RangeEnd: []byte("b"),
		}}, &pb.AuthRoleGrantPermissionResponse{Header: testHeader}},
		"RoleRevokePermission": {pb.Auth_RoleRevokePermission_FullMethodName, func(ctx context.Context, c *Client) (proto.Message, error) {
			resp, err := c.RoleRevokePermission(ctx, "r", "a", "b")
			return (*pb.AuthRoleRevokePermissionResponse)(resp), err
		}, &pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("a"), RangeEnd: []byte("b")},
			&pb.AuthRoleRevokePermissionResponse{Header: testHeader}},
	})
}

func TestStrToPermissionType(t *testing.T) {
	for s, want := range map[string]PermissionType{
		"read": PermissionType(PermRead), "READ": PermissionType(PermRead), "Write": PermissionType(PermWrite),
		"readwrite": PermissionType(PermReadWrite),
	} {
		if got, err := StrToPermissionType(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	if got, err := StrToPermissionType("x"); got != -1 || err == nil || err.Error() != "invalid permission type: x" {
		t.Errorf("%v, %v", got, err)
	}
}
