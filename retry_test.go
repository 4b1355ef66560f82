package clientv3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

// operation is one of the client's unary operations.
type operation struct {
	method string
	do     func(context.Context, *Client) error
}

// drop leaves the response away.
func drop[T any](_ T, err error) error { return err }

// writes are the operations that change something.
func writes() map[string]operation {
	peers := []string{"http://m9:2380"}
	return map[string]operation{
		"Put": {pb.KV_Put_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Put(ctx, "k", "v"))
		}},
		"Delete": {pb.KV_DeleteRange_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Delete(ctx, "k"))
		}},
		"Txn": {pb.KV_Txn_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Txn(ctx).Then(OpGet("k"), OpPut("k", "v")).Commit())
		}},
		"Do put": {pb.KV_Put_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Do(ctx, OpPut("k", "v")))
		}},
		"Do delete": {pb.KV_DeleteRange_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Do(ctx, OpDelete("k")))
		}},
		"Do txn": {pb.KV_Txn_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Do(ctx, OpTxn(nil, nil, []Op{OpDelete("k")})))
		}},
		"Compact": {pb.KV_Compact_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Compact(ctx, 3))
		}},
		"Grant": {pb.Lease_LeaseGrant_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Grant(ctx, 5))
		}},
		"Revoke": {pb.Lease_LeaseRevoke_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Revoke(ctx, 5))
		}},
		"MemberAdd": {pb.Cluster_MemberAdd_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.MemberAdd(ctx, peers))
		}},
		"MemberAddAsLearner": {pb.Cluster_MemberAdd_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.MemberAddAsLearner(ctx, peers))
		}},
		"MemberRemove": {pb.Cluster_MemberRemove_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.MemberRemove(ctx, 1))
		}},
		"MemberUpdate": {pb.Cluster_MemberUpdate_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.MemberUpdate(ctx, 1, peers))
		}},
		"MemberPromote": {pb.Cluster_MemberPromote_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.MemberPromote(ctx, 1))
		}},
		"AlarmDisarm": {pb.Maintenance_Alarm_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.AlarmDisarm(ctx, &AlarmMember{MemberID: 1, Alarm: pb.AlarmType_NOSPACE}))
		}},
		"Defragment": {pb.Maintenance_Defragment_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Defragment(ctx, c.Endpoints()[0]))
		}},
		"MoveLeader": {pb.Maintenance_MoveLeader_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.MoveLeader(ctx, 1))
		}},
		"Downgrade": {pb.Maintenance_Downgrade_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Downgrade(ctx, DowngradeEnable, "3.6"))
		}},
		"AuthEnable": {pb.Auth_AuthEnable_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.AuthEnable(ctx))
		}},
		"AuthDisable": {pb.Auth_AuthDisable_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.AuthDisable(ctx))
		}},
		"UserAdd": {pb.Auth_UserAdd_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.UserAdd(ctx, "u", "p"))
		}},
		"UserDelete": {pb.Auth_UserDelete_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.UserDelete(ctx, "u"))
		}},
		"UserChangePassword": {pb.Auth_UserChangePassword_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.UserChangePassword(ctx, "u", "p"))
		}},
		"UserGrantRole": {pb.Auth_UserGrantRole_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.UserGrantRole(ctx, "u", "r"))
		}},
		"UserRevokeRole": {pb.Auth_UserRevokeRole_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.UserRevokeRole(ctx, "u", "r"))
		}},
		"RoleAdd": {pb.Auth_RoleAdd_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.RoleAdd(ctx, "r"))
		}},
		"RoleDelete": {pb.Auth_RoleDelete_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.RoleDelete(ctx, "r"))
		}},
		"RoleGrantPermission": {pb.Auth_RoleGrantPermission_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.RoleGrantPermission(ctx, "r", "a", "b", PermissionType(PermRead)))
		}},
		"RoleRevokePermission": {pb.Auth_RoleRevokePermission_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.RoleRevokePermission(ctx, "r", "a", "b"))
		}},
	}
}

// reads are the operations that change nothing.
func reads() map[string]operation {
	return map[string]operation{
		"Get": {pb.KV_Range_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Get(ctx, "k"))
		}},
		"Get serializable": {pb.KV_Range_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Get(ctx, "k", WithSerializable()))
		}},
		"Do get": {pb.KV_Range_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Do(ctx, OpGet("k")))
		}},
		"Txn of reads": {pb.KV_Txn_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Txn(ctx).If(Compare(Version("k"), "=", 0)).Then(OpGet("k")).Else(OpGet("j")).Commit())
		}},
		"Do txn of reads": {pb.KV_Txn_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Do(ctx, OpTxn(nil, []Op{OpTxn(nil, []Op{OpGet("k")}, nil)}, nil)))
		}},
		"TimeToLive": {pb.Lease_LeaseTimeToLive_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.TimeToLive(ctx, 5))
		}},
		"Leases": {pb.Lease_LeaseLeases_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Leases(ctx))
		}},
		"MemberList": {pb.Cluster_MemberList_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.MemberList(ctx))
		}},
		"AlarmList": {pb.Maintenance_Alarm_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.AlarmList(ctx))
		}},
		"AuthStatus": {pb.Auth_AuthStatus_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.AuthStatus(ctx))
		}},
		"Authenticate": {pb.Auth_Authenticate_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.Authenticate(ctx, "u", "p"))
		}},
		"UserGet": {pb.Auth_UserGet_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.UserGet(ctx, "u"))
		}},
		"UserList": {pb.Auth_UserList_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.UserList(ctx))
		}},
		"RoleGet": {pb.Auth_RoleGet_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.RoleGet(ctx, "r"))
		}},
		"RoleList": {pb.Auth_RoleList_FullMethodName, func(ctx context.Context, c *Client) error {
			return drop(c.RoleList(ctx))
		}},
	}
}

// failure is a way in which a call can fail at the server.
type failure struct {
	handler    scripted.Unary
	err        error // what the server sends; nil if it sends nothing
	notApplied bool  // MayHaveApplied is false
	safe       bool  // it proves that nothing was proposed: writes are retried too
}

const proposalDropped = "raft proposal dropped"

// failures are all ways in which a call can fail at the server.
func failures() map[string]failure {
	all := map[string]failure{
		"connection cut after the request has arrived": {handler: scripted.CutAfter},
		"raft has dropped the proposal": {
			err: status.Error(codes.Unknown, proposalDropped), safe: true, notApplied: true,
		},
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		f := failure{err: status.Error(code, "some text"), notApplied: true}
		switch code {
		case codes.Canceled, codes.Unknown, codes.DeadlineExceeded, codes.Aborted, codes.Internal, codes.Unavailable:
			f.notApplied = false
		}
		all["code "+code.String()] = f
	}
	for _, err := range scripted.EtcdErrors() {
		f := failure{err: err, notApplied: true}
		switch err {
		case rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCRequestTooManyRequests, rpctypes.ErrGRPCNotSupportedForLearner:
			f.safe = true
		case rpctypes.ErrGRPCUnhealthy:
		case rpctypes.ErrGRPCNoSpace:
			f.notApplied = false
		default:
			switch status.Code(err) {
			case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
				f.notApplied = false
			}
		}
		all[status.Convert(err).Message()] = f
	}
	for name, f := range all {
		if f.handler == nil {
			f.handler = scripted.Fail(f.err)
			all[name] = f
		}
	}
	return all
}

// check holds the error of an operation against the failure it comes from.
func (f failure) check(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Error("no error")
	case f.err == nil:
		if status.Code(err) != codes.Unavailable {
			t.Errorf("error %v, want Unavailable", err)
		}
	case !errors.Is(err, f.err) && err != rpctypes.Error(f.err): //nolint:errorlint // identity is what is promised
		t.Errorf("error %#v, want %#v", err, f.err)
	}
	if got := MayHaveApplied(err); got == f.notApplied {
		t.Errorf("%v: may have been applied: %t, want %t", err, got, !f.notApplied)
	}
}

func TestNoWriteIsSentTwiceUnlessNothingWasProposed(t *testing.T) {
	for name, op := range writes() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 3)
				c := m.client(t)
				time.Sleep(time.Second) // all members are connected
				for name, f := range failures() {
					time.Sleep(time.Minute) // connections and retry budget are what they were
					m.forget()
					m.handle(op.method, scripted.InTurn(f.handler, scripted.Answer(nil)))
					err := op.do(within(t, time.Hour), c)
					want := 1
					if f.safe && !(op.method == pb.Cluster_MemberPromote_FullMethodName && errors.Is(f.err, rpctypes.ErrGRPCNoLeader)) {
						want = 2
						if err != nil {
							t.Errorf("%s: %v, want success on the second attempt", name, err)
						}
						if op.method != pb.Maintenance_Defragment_FullMethodName && atOnce(m.counts(op.method)) != 1 {
							t.Errorf("%s: attempts %v, want them on two members", name, m.counts(op.method))
						}
					} else {
						f.check(t, err)
					}
					if got := m.count(op.method); got != want {
						t.Errorf("%s: sent %d times, want %d", name, got, want)
					}
				}
			})
		})
	}
}

// atOnce returns the largest number of calls that went to one member.
func atOnce(counts []int) int {
	most := 0
	for _, n := range counts {
		most = max(most, n)
	}
	return most
}

func TestReadsAreRetriedOnAnotherMember(t *testing.T) {
	for name, op := range reads() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 3)
				c := m.client(t)
				time.Sleep(time.Second)
				for name, f := range failures() {
					time.Sleep(time.Minute)
					m.forget()
					m.handle(op.method, scripted.InTurn(f.handler, scripted.Answer(nil)))
					err := op.do(within(t, time.Hour), c)
					code := status.Code(f.err)
					retried := f.safe || f.err == nil ||
						code == codes.Unavailable || code == codes.Canceled || code == codes.DeadlineExceeded
					if !retried {
						f.check(t, err)
						if got := m.count(op.method); got != 1 {
							t.Errorf("%s: sent %d times, want once", name, got)
						}
						continue
					}
					if err != nil || m.count(op.method) != 2 || atOnce(m.counts(op.method)) != 1 {
						t.Errorf("%s: attempts %v with error %v, want success on another member", name, m.counts(op.method), err)
					}
				}
			})
		})
	}
}

func TestStatusIsRetriedOnItsOwnMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		for method, do := range map[string]func() error{
			pb.Maintenance_Status_FullMethodName: func() error {
				return drop(c.Status(t.Context(), "http://m1:2379"))
			},
			pb.Maintenance_HashKV_FullMethodName: func() error {
				return drop(c.HashKV(t.Context(), "m1:2379", 0))
			},
		} {
			m.handle(method, scripted.FailTimes(2, status.Error(codes.Unavailable, "not now")))
			if err := do(); err != nil {
				t.Errorf("%s: %v", method, err)
			}
			if got := m.counts(method); got[0] != 0 || got[1] != 3 {
				t.Errorf("%s: attempts %v, want three on the second member", method, got)
			}
		}
		synctest.Wait()
		if n := m.servers[1].Conns(); n != 1 {
			t.Errorf("%d connections are left, want the client's own", n)
		}
	})
}

func TestAResponseOverTheLimitMayBeThatOfAnAppliedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t, func(cfg *Config) { cfg.MaxCallRecvMsgSize = 1000 })
		big := &pb.PutResponse{PrevKv: &mvccpb.KeyValue{Value: make([]byte, 2000)}}
		m.handle(pb.KV_Put_FullMethodName, scripted.Answer(big))
		_, err := c.Put(t.Context(), "k", "v")
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "received message larger than max") {
			t.Errorf("error %v", err)
		}
		if !MayHaveApplied(err) || m.count(pb.KV_Put_FullMethodName) != 1 {
			t.Errorf("may have been applied: %t, sent %d times", MayHaveApplied(err), m.count(pb.KV_Put_FullMethodName))
		}
	})
}

func TestARequestOverTheLimitIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for limit, size := range map[int]int{1000: 1100, 0: 3 << 20} {
			m := newMembers(t, 1)
			c := m.client(t, func(cfg *Config) { cfg.MaxCallSendMsgSize = limit })
			_, err := c.Put(t.Context(), "k", strings.Repeat("v", size))
			if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "trying to send message larger than max") {
				t.Errorf("limit %d: error %v", limit, err)
			}
			if MayHaveApplied(err) || m.count(pb.KV_Put_FullMethodName) != 0 {
				t.Errorf("limit %d: may have been applied: %t, sent %d times", limit, MayHaveApplied(err), m.count(pb.KV_Put_FullMethodName))
			}
		}
	})
}

func TestConnectionsCutBeforeTheRequestLeaveItUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		time.Sleep(time.Second)
		for _, s := range m.servers {
			s.SetMode(scripted.Cutting)
			s.Cut()
		}
		synctest.Wait()
		_, err := c.Put(t.Context(), "k", "v")
		if status.Code(err) != codes.Unavailable || MayHaveApplied(err) || m.count(pb.KV_Put_FullMethodName) != 0 {
			t.Errorf("error %v, may have been applied: %t, sent %d times", err, MayHaveApplied(err), m.count(pb.KV_Put_FullMethodName))
		}
	})
}

func TestUnreachableMembersAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 0)
		c := newTestClient(t, Config{
			Endpoints:          []string{"http://a:1", "b:2"},
			DialOptions:        []grpc.DialOption{m.DialOption()},
			MaxUnaryRetries:    4,
			BackoffWaitBetween: 100 * time.Millisecond,
		})
		for name, op := range map[string]operation{"Put": writes()["Put"], "Get": reads()["Get"]} {
			start := time.Now()
			err := op.do(t.Context(), c)
			if got := time.Since(start); got != 400*time.Millisecond {
				t.Errorf("%s: failed after %v, want attempts times wait, 400 ms", name, got)
			}
			if st, ok := status.FromError(err); !ok || st.Code() != codes.Unavailable {
				t.Errorf("%s: status %v, %t", name, st, ok)
			}
			for _, part := range []string{`"http://a:1" (`, "dial a:1: connection refused", `"b:2" (`, "dial b:2: connection refused"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %q lacks %q", name, err, part)
				}
			}
			if MayHaveApplied(err) {
				t.Errorf("%s: may have been applied", name)
			}
		}
	})
}

func TestReadsWaitLongerForAClusterThatWasReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t, func(cfg *Config) { cfg.MaxUnaryRetries, cfg.BackoffWaitBetween = 10, 100*time.Millisecond })
		time.Sleep(time.Second)
		m.servers[0].Stop()
		synctest.Wait()
		for name, tt := range map[string]struct {
			op   operation
			want time.Duration
		}{
			"Put": {writes()["Put"], time.Second},
			"Get": {reads()["Get"], 10 * time.Second},
		} {
			start := time.Now()
			if err := tt.op.do(t.Context(), c); status.Code(err) != codes.Unavailable || time.Since(start) != tt.want {
				t.Errorf("%s: %v after %v, want failure after %v", name, err, time.Since(start), tt.want)
			}
		}
	})
}

func TestCallsGoOnWhenAMemberComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		time.Sleep(time.Second)
		m.servers[0].Stop()
		synctest.Wait()
		time.AfterFunc(time.Second, func() { _ = m.servers[0].Start() })
		var wg sync.WaitGroup
		for name, op := range map[string]operation{"Put": writes()["Put"], "Get": reads()["Get"]} {
			wg.Go(func() {
				if err := op.do(t.Context(), c); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
	})
}

// refusals returns a handler that refuses every call, and what counts them.
func refusals(err error) (scripted.Unary, *atomic.Int64) {
	var n atomic.Int64
	return func(*scripted.Call) (proto.Message, error) {
		n.Add(1)
		return nil, err
	}, &n
}

func TestRetryBudgetBoundsTheLoadOnAClusterThatRefusesEverything(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "no")
	for name, tt := range map[string]struct {
		op   operation
		err  error
		want error
	}{
		"reads":  {reads()["Get"], unavailable, context.DeadlineExceeded},
		"writes": {writes()["Put"], rpctypes.ErrGRPCRequestTooManyRequests, rpctypes.ErrTooManyRequests},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 3)
				c := m.client(t, func(cfg *Config) { cfg.MaxUnaryRetries = 1 << 20 })
				handler, count := refusals(tt.err)
				m.handle(tt.op.method, handler)
				time.Sleep(time.Second)
				ctx := within(t, 10*time.Second)
				var callers sync.WaitGroup
				for range 10 {
					callers.Go(func() {
						if err := tt.op.do(ctx, c); err != tt.want { //nolint:errorlint // identity is what is promised
							t.Errorf("error %v, want %v", err, tt.want)
						}
					})
				}
				callers.Wait()
				// Ten first attempts; ten retries to begin with, a tenth of the first attempts, one a second (the one
				// of the second before is not kept, since the budget was full).
				if got := count.Load(); got < 25 || got > 10+10+1+10 {
					t.Errorf("%d requests, want at most 31 and not much fewer", got)
				}
			})
		})
	}
}

func TestMaxUnaryRetriesCountsAttempts(t *testing.T) {
	for configured, want := range map[uint]int{1: 1, 3: 3, 7: 7, 0: 100} {
		t.Run(fmt.Sprint(configured), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 2)
				c := m.client(t, func(cfg *Config) { cfg.MaxUnaryRetries = configured })
				m.handle(pb.KV_Range_FullMethodName, scripted.Fail(status.Error(codes.Unavailable, "boom")))
				_, err := c.Get(t.Context(), "k")
				if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "boom" {
					t.Errorf("error %v, want the last one", err)
				}
				if got := m.count(pb.KV_Range_FullMethodName); got != want {
					t.Errorf("%d attempts, want %d", got, want)
				}
			})
		})
	}
}

func TestWaitsBetweenAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t, func(cfg *Config) {
			cfg.MaxUnaryRetries, cfg.BackoffWaitBetween, cfg.BackoffJitterFraction = 9, 100*time.Millisecond, 0.1
		})
		var times []time.Time
		m.handle(pb.KV_Range_FullMethodName, func(*scripted.Call) (proto.Message, error) {
			times = append(times, time.Now())
			return nil, status.Error(codes.Unavailable, "boom")
		})
		if _, err := c.Get(t.Context(), "k"); status.Code(err) != codes.Unavailable {
			t.Errorf("error %v", err)
		}
		for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 4000, 4000} {
			got := times[i+1].Sub(times[i])
			if want *= time.Millisecond; got < want*9/10 || got > want*11/10 {
				t.Errorf("wait %d is %v, want %v ± 10 %%", i, got, want)
			}
		}
	})
}

func TestOtherMembersAreTriedWithoutWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t, func(cfg *Config) {
			cfg.MaxUnaryRetries, cfg.BackoffWaitBetween, cfg.BackoffJitterFraction = 4, time.Second, 0.1
		})
		time.Sleep(time.Second)
		m.handle(pb.KV_Range_FullMethodName, scripted.Fail(rpctypes.ErrGRPCNoLeader))
		start := time.Now()
		_, err := c.Get(t.Context(), "k")
		if err != rpctypes.ErrNoLeader { //nolint:errorlint // identity is what is promised
			t.Errorf("error %v", err)
		}
		// The first three attempts go to one member each; only the fourth has to wait.
		if got := time.Since(start); got < 900*time.Millisecond || got > 1100*time.Millisecond {
			t.Errorf("four attempts took %v, want one wait of about 1 s", got)
		}
		for i, n := range m.counts(pb.KV_Range_FullMethodName) {
			if n == 0 {
				t.Errorf("member %d was not asked", i)
			}
		}
	})
}

func TestWhatAllMembersWouldSayIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t, func(cfg *Config) { cfg.BackoffWaitBetween, cfg.BackoffJitterFraction = time.Second, 0.1 })
		time.Sleep(time.Second)
		m.handle(pb.KV_Put_FullMethodName,
			scripted.InTurn(scripted.Fail(rpctypes.ErrGRPCRequestTooManyRequests), scripted.Answer(nil)))
		start := time.Now()
		_, err := c.Put(t.Context(), "k", "v")
		if got := time.Since(start); err != nil || got < 900*time.Millisecond || got > 1100*time.Millisecond {
			t.Errorf("%v after %v, want success after one wait of about 1 s", err, got)
		}
	})
}

func TestCallsThatSucceedEarnRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		for c.budget.Withdraw() { // none is left of those to begin with
		}
		for range 100 {
			if _, err := c.Put(t.Context(), "k", "v"); err != nil {
				t.Fatal(err)
			}
		}
		earned := 0
		for c.budget.Withdraw() {
			earned++
		}
		if earned != 10 {
			t.Errorf("%d retries are earned by 100 calls, want 10", earned)
		}
	})
}

func TestClosingTheClientEndsACallThatWaitsForTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t, func(cfg *Config) { cfg.BackoffWaitBetween = 10 * time.Millisecond })
		m.handle(pb.KV_Range_FullMethodName, scripted.Fail(status.Error(codes.Unavailable, "boom")))
		for c.budget.Withdraw() {
		}
		start := time.Now()
		time.AfterFunc(500*time.Millisecond, func() { _ = c.Close() })
		if _, err := c.Get(t.Context(), "k"); !IsConnCanceled(err) || time.Since(start) != 500*time.Millisecond {
			t.Errorf("%v after %v, want the client's end after 500 ms", err, time.Since(start))
		}
	})
}

func TestWaitsEndWithTheContext(t *testing.T) {
	put, get := writes()["Put"], reads()["Get"]
	unavailable, tooMany := status.Error(codes.Unavailable, "boom"), rpctypes.ErrGRPCRequestTooManyRequests
	tests := map[string]struct {
		op      operation
		prepare func(*members)
		want    error // nil: that of the context
	}{
		"backoff of a read":      {get, func(m *members) { m.handle(get.method, scripted.Fail(unavailable)) }, nil},
		"backoff after NoLeader": {get, func(m *members) { m.handle(get.method, scripted.Fail(rpctypes.ErrGRPCNoLeader)) }, nil},
		// The refusal says more than the context: that the write was not applied.
		"backoff of a write":   {put, func(m *members) { m.handle(put.method, scripted.Fail(tooMany)) }, rpctypes.ErrTooManyRequests},
		"reconnect of a read":  {get, func(m *members) { m.servers[0].Stop() }, nil},
		"reconnect of a write": {put, func(m *members) { m.servers[0].Stop() }, nil},
		"answer to a read":     {get, func(m *members) { m.handle(get.method, scripted.Hang) }, nil},
		"answer to a write":    {put, func(m *members) { m.handle(put.method, scripted.Hang) }, nil},
		"connection": {put, func(m *members) {
			m.servers[0].SetMode(scripted.Hanging)
			m.servers[0].Cut()
		}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 1)
				c := m.client(t, func(cfg *Config) { cfg.BackoffWaitBetween, cfg.BackoffJitterFraction = time.Hour, 0.1 })
				time.Sleep(time.Second)
				tt.prepare(m)
				synctest.Wait()
				check := func(err, ctxErr error, took time.Duration) {
					t.Helper()
					if tt.want != nil {
						ctxErr = tt.want
					}
					if err != ctxErr || took != time.Second { //nolint:errorlint // identity is what is promised
						t.Errorf("%v after %v, want %v after 1 s", err, took, ctxErr)
					}
				}
				start := time.Now()
				check(tt.op.do(within(t, time.Second), c), context.DeadlineExceeded, time.Since(start))

				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				start = time.Now()
				err := tt.op.do(ctx, c)
				check(err, context.Canceled, time.Since(start))

				if err := tt.op.do(ctx, c); err != context.Canceled { //nolint:errorlint // bare
					t.Errorf("under a context that has ended: %v", err)
				}
			})
		})
	}
}

func TestTheServersDeadlineIsTheClients(t *testing.T) {
	early := func(by time.Duration, err error) scripted.Unary {
		return func(call *scripted.Call) (proto.Message, error) {
			deadline, _ := call.Context.Deadline()
			time.Sleep(time.Until(deadline) - by)
			return nil, err
		}
	}
	for name, op := range map[string]operation{"Put": writes()["Put"], "Get": reads()["Get"]} {
		for _, sent := range []error{status.Error(codes.DeadlineExceeded, "context deadline exceeded"), rpctypes.ErrGRPCDeadlineExceeded} {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 1)
				c := m.client(t)
				m.handle(op.method, early(10*time.Millisecond, sent))
				start := time.Now()
				err := op.do(within(t, time.Second), c)
				if err != context.DeadlineExceeded || time.Since(start) != time.Second { //nolint:errorlint // bare
					t.Errorf("%s: %v after %v", name, err, time.Since(start))
				}
			})
		}
	}
	// An answer that is much too early is none to the client's deadline.
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.handle(pb.KV_Put_FullMethodName, early(time.Second, status.Error(codes.DeadlineExceeded, "mine")))
		start := time.Now()
		_, err := c.Put(within(t, 3*time.Second), "k", "v")
		if status.Code(err) != codes.DeadlineExceeded || status.Convert(err).Message() != "mine" || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestClosingTheClientEndsItsCalls(t *testing.T) {
	tests := map[string]func(*members){
		"under way": func(m *members) { m.handle(pb.KV_Range_FullMethodName, scripted.Hang) },
		"in backoff": func(m *members) {
			m.handle(pb.KV_Range_FullMethodName, scripted.Fail(status.Error(codes.Unavailable, "boom")))
		},
		"waiting for a connection": func(m *members) { m.servers[0].Stop() },
		"waiting for an answer to the dial": func(m *members) {
			m.servers[0].SetMode(scripted.Hanging)
			m.servers[0].Cut()
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 1)
				c := m.client(t, func(cfg *Config) { cfg.BackoffWaitBetween, cfg.BackoffJitterFraction = time.Minute, 0.1 })
				time.Sleep(time.Second)
				prepare(m)
				synctest.Wait()
				start := time.Now()
				time.AfterFunc(time.Second, func() { _ = c.Close() })
				_, err := c.Get(t.Context(), "k")
				if !IsConnCanceled(err) || time.Since(start) != time.Second {
					t.Errorf("%v after %v, want the client's end after 1 s", err, time.Since(start))
				}
			})
		})
	}
}

func TestCallsOnAClosedClientFailAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		for name, op := range writes() {
			if op.method == pb.Maintenance_Defragment_FullMethodName {
				continue // has its own connection
			}
			err := op.do(t.Context(), c)
			if !errors.Is(err, grpc.ErrClientConnClosing) || MayHaveApplied(err) {
				t.Errorf("%s: %v, may have been applied: %t", name, err, MayHaveApplied(err))
			}
		}
		for name, op := range reads() {
			if err := op.do(t.Context(), c); err != grpc.ErrClientConnClosing { //nolint:errorlint // identity is what is promised
				t.Errorf("%s: %v", name, err)
			}
		}
		if time.Since(start) != 0 {
			t.Errorf("took %v", time.Since(start))
		}
	})
}

// failingCredentials are per-call credentials of the user that have nothing to give at present.
type failingCredentials struct{ asked atomic.Int64 }

func (f *failingCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	f.asked.Add(1)
	return nil, status.Error(codes.Unavailable, "no token at present")
}

func (*failingCredentials) RequireTransportSecurity() bool { return false }

func TestACallThatDoesNotLeaveTheClientIsNotRepeatedWithoutPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		creds := &failingCredentials{}
		c := m.client(t, func(cfg *Config) {
			cfg.DialOptions = append(cfg.DialOptions, grpc.WithPerRPCCredentials(creds))
		})
		_, err := c.Put(t.Context(), "k", "v")
		if status.Code(err) != codes.Unavailable || MayHaveApplied(err) {
			t.Errorf("error %v, may have been applied: %t", err, MayHaveApplied(err))
		}
		if n := creds.asked.Load(); n < 2 || n > 40 {
			t.Errorf("%d attempts in 2.5 s, want some, with backoff between them", n)
		}
	})
}
