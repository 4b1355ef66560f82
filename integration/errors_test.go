package integration

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// Each error of keys and leases is the value in package rpctypes, whatever call it answers. Those of membership,
// maintenance and authentication are in these services' tests, those of a cluster without quorum with the faults.
func TestErrorsOfKeysAndLeases(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		key, missing := e.prefix+"key", e.prefix+"missing"
		old := e.put(t, key, "1")
		rev := e.put(t, key, "2")
		if _, err := e.Compact(e.ctx, rev); err != nil {
			t.Fatal(err)
		}
		lease := e.grant(t, 600)
		many := make([]clientv3.Op, 129)
		for i := range many {
			many[i] = clientv3.OpGet(key)
		}
		manyCmps := make([]clientv3.Cmp, 129)
		for i := range manyCmps {
			manyCmps[i] = clientv3.Compare(clientv3.Version(key), "=", 2)
		}
		large := strings.Repeat("x", 1700<<10) // over the server's limit of 1.5 MiB, below the client's of 2

		put := func(key, value string, opts ...clientv3.OpOption) error {
			return second(e.Put(e.ctx, key, value, opts...))
		}
		get := func(key string, opts ...clientv3.OpOption) error { return second(e.Get(e.ctx, key, opts...)) }
		then := func(ops ...clientv3.Op) error { return second(e.Txn(e.ctx).Then(ops...).Commit()) }
		for _, tt := range []struct {
			name string
			err  error
			want error
		}{
			{"put", put("", "v"), rpctypes.ErrEmptyKey},
			{"get", get(""), rpctypes.ErrEmptyKey},
			{"delete", second(e.Delete(e.ctx, "")), rpctypes.ErrEmptyKey},
			{"do", second(e.Do(e.ctx, clientv3.OpPut("", "v"))), rpctypes.ErrEmptyKey},
			{"operation", then(clientv3.OpDelete("")), rpctypes.ErrEmptyKey},
			{
				"comparison", second(e.Txn(e.ctx).If(clientv3.Compare(clientv3.Version(""), "=", 0)).Commit()),
				rpctypes.ErrEmptyKey,
			},
			{"value kept", put(missing, "", clientv3.WithIgnoreValue()), rpctypes.ErrKeyNotFound},
			{"lease kept", put(missing, "", clientv3.WithIgnoreLease()), rpctypes.ErrKeyNotFound},
			{"value", put(key, "v", clientv3.WithIgnoreValue()), rpctypes.ErrValueProvided},
			{
				"lease", put(key, "v", clientv3.WithIgnoreLease(), clientv3.WithLease(lease)),
				rpctypes.ErrLeaseProvided,
			},
			{"operations", then(many...), rpctypes.ErrTooManyOps},
			{"otherwise", second(e.Txn(e.ctx).Else(many...).Commit()), rpctypes.ErrTooManyOps},
			{"comparisons", second(e.Txn(e.ctx).If(manyCmps...).Commit()), rpctypes.ErrTooManyOps},
			{"nested", then(clientv3.OpTxn(nil, many, nil)), rpctypes.ErrTooManyOps},
			{"twice", then(clientv3.OpPut(key, "a"), clientv3.OpPut(key, "b")), rpctypes.ErrDuplicateKey},
			{
				"target", get(key, clientv3.WithSort(clientv3.SortTarget(5), clientv3.SortAscend)),
				rpctypes.ErrInvalidSortOption,
			},
			{"order", get(key, clientv3.WithSort(clientv3.SortByKey, clientv3.SortOrder(3))), rpctypes.ErrInvalidSortOption},
			{"read", get(key, clientv3.WithRev(old)), rpctypes.ErrCompacted},
			{"read in txn", then(clientv3.OpGet(key, clientv3.WithRev(old))), rpctypes.ErrCompacted},
			{"compaction", second(e.Compact(e.ctx, rev)), rpctypes.ErrCompacted},
			{"read", get(key, clientv3.WithRev(rev+1000)), rpctypes.ErrFutureRev},
			{"serializable read", get(key, clientv3.WithRev(rev+1000), clientv3.WithSerializable()), rpctypes.ErrFutureRev},
			{"compaction", second(e.Compact(e.ctx, rev+1000)), rpctypes.ErrFutureRev},
			{"put", put(key, "v", clientv3.WithLease(unknownLease)), rpctypes.ErrLeaseNotFound},
			{"revoke", second(e.Revoke(e.ctx, unknownLease)), rpctypes.ErrLeaseNotFound},
			{"renewal", second(e.KeepAliveOnce(e.ctx, unknownLease)), rpctypes.ErrLeaseNotFound},
			{"grant", second(e.Grant(clientv3.WithLeaseID(e.ctx, lease), 600)), rpctypes.ErrLeaseExist},
			{"grant", second(e.Grant(e.ctx, clientv3.MaxLeaseTTL+1)), rpctypes.ErrLeaseTTLTooLarge},
			{"put", put(key, large), rpctypes.ErrRequestTooLarge},
			{"txn", then(clientv3.OpPut(key, large)), rpctypes.ErrRequestTooLarge},
		} {
			checkRefused(t, tt.name, tt.err, tt.want)
		}
		if got := e.get(t, key).Kvs[0]; got.ModRevision != rev {
			t.Errorf("a refused write was applied: %v", got)
		}
	})
}

// Errors that are not etcd's keep their gRPC status.
func TestOtherErrorsHaveAStatus(t *testing.T) {
	e := onOne(t)
	_, unimplemented := pb.NewWatchClient(e.ActiveConnection()), e.ActiveConnection().Invoke(e.ctx, "/no.such/Method",
		&pb.RangeRequest{}, &pb.RangeResponse{})
	tooLarge := second(e.Put(e.ctx, e.prefix, strings.Repeat("x", 3<<20)))
	for _, tt := range []struct {
		name string
		err  error
		want codes.Code
	}{
		{"unknown method", unimplemented, codes.Unimplemented},
		{"over the client's limit", tooLarge, codes.ResourceExhausted},
	} {
		if st, ok := status.FromError(tt.err); !ok || st.Code() != tt.want || st.Message() == "" {
			t.Errorf("%s: %v has status %v", tt.name, tt.err, st)
		}
	}
}

// calls are one or more calls of each service.
func calls(cli *clientv3.Client, endpoint string) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"get":          func(ctx context.Context) error { return second(cli.Get(ctx, "key")) },
		"serializable": func(ctx context.Context) error { return second(cli.Get(ctx, "key", clientv3.WithSerializable())) },
		"stream":       func(ctx context.Context) error { return streamError(cli.GetStream(ctx, "key")) },
		"put":          func(ctx context.Context) error { return second(cli.Put(ctx, "key", "")) },
		"delete":       func(ctx context.Context) error { return second(cli.Delete(ctx, "key")) },
		"read txn":     func(ctx context.Context) error { return second(cli.Txn(ctx).Then(clientv3.OpGet("key")).Commit()) },
		"txn":          func(ctx context.Context) error { return second(cli.Txn(ctx).Then(clientv3.OpPut("key", "")).Commit()) },
		"do":           func(ctx context.Context) error { return second(cli.Do(ctx, clientv3.OpPut("key", ""))) },
		"compact":      func(ctx context.Context) error { return second(cli.Compact(ctx, 1)) },
		"grant":        func(ctx context.Context) error { return second(cli.Grant(ctx, 600)) },
		"revoke":       func(ctx context.Context) error { return second(cli.Revoke(ctx, unknownLease)) },
		"time to live": func(ctx context.Context) error { return second(cli.TimeToLive(ctx, unknownLease)) },
		"leases":       func(ctx context.Context) error { return second(cli.Leases(ctx)) },
		"renew":        func(ctx context.Context) error { return second(cli.KeepAliveOnce(ctx, unknownLease)) },
		"members":      func(ctx context.Context) error { return second(cli.MemberList(ctx)) },
		"add member":   func(ctx context.Context) error { return second(cli.MemberAdd(ctx, []string{nowhere})) },
		"promote":      func(ctx context.Context) error { return second(cli.MemberPromote(ctx, 1)) },
		"sync":         cli.Sync,
		"auth status":  func(ctx context.Context) error { return second(cli.AuthStatus(ctx)) },
		"user":         func(ctx context.Context) error { return second(cli.UserAdd(ctx, "user", "")) },
		"roles":        func(ctx context.Context) error { return second(cli.RoleList(ctx)) },
		"alarms":       func(ctx context.Context) error { return second(cli.AlarmList(ctx)) },
		"move leader":  func(ctx context.Context) error { return second(cli.MoveLeader(ctx, 1)) },
		"status":       func(ctx context.Context) error { return second(cli.Status(ctx, endpoint)) },
		"hash":         func(ctx context.Context) error { return second(cli.HashKV(ctx, endpoint, 0)) },
		"defragment":   func(ctx context.Context) error { return second(cli.Defragment(ctx, endpoint)) },
		"snapshot": func(ctx context.Context) error {
			r, err := cli.Snapshot(ctx)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				_ = r.Close() // ends with the stream
			}
			return err
		},
	}
}

// Whatever the call, the end of its context is told by the bare context error, at once.
func TestContextErrorsAreBare(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithProxies())
	// Without pings: on a busy machine they would find out before the call does that the server is frozen.
	cli := newClient(t, cluster, func(cfg *clientv3.Config) { cfg.DialKeepAliveTime = -1 })
	if _, err := cli.Get(testContext(t), "key"); err != nil {
		t.Fatal(err)
	}
	cluster.Member(0).Proxy().Freeze()

	const soon = 200 * time.Millisecond
	for _, tt := range []struct {
		name string
		ctx  func() (context.Context, context.CancelFunc)
		want error
	}{
		{"cancelled before", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx, cancel
		}, context.Canceled},
		{"expired before", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), -time.Second)
		}, context.DeadlineExceeded},
		{"deadline", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), soon)
		}, context.DeadlineExceeded},
		{"cancelled", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(t.Context())
			stop := time.AfterFunc(soon, func() { cancel(io.ErrClosedPipe) })
			return ctx, func() { stop.Stop(); cancel(nil) }
		}, context.Canceled},
	} {
		for name, call := range calls(cli, cluster.Endpoints()[0]) {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := tt.ctx()
				defer cancel()
				start := time.Now()
				err := call(ctx)
				if err != tt.want {
					t.Errorf("%v (%T), want %v", err, err, tt.want)
				}
				if !clientv3.MayHaveApplied(err) {
					t.Error("a context error proves nothing, but is taken to")
				}
				if took := time.Since(start); took > atOnce {
					t.Errorf("after %v", took)
				}
			})
		}
	}
}

// With all endpoints unreachable each of them is named, with why.
func TestUnreachableEndpointsAreNamed(t *testing.T) {
	t.Parallel()
	cli := open(t, clientv3.Config{
		Endpoints:       []string{"127.0.0.1:1", "http://127.0.0.1:2", "unix:///no/such/socket"},
		MaxUnaryRetries: 10, // a quarter of a second
	})
	for name, call := range calls(cli, "127.0.0.1:1") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			err := call(testContext(t))
			if status.Code(err) != codes.Unavailable {
				t.Fatal(err)
			}
			want := []string{`"127.0.0.1:1" (`, `"http://127.0.0.1:2" (`, `"unix:///no/such/socket" (`, "no such file"}
			if name == "status" || name == "hash" || name == "defragment" {
				want = want[:1]
			}
			for _, s := range append(want, "connection refused") {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q is not in %q", s, err)
				}
			}
			if clientv3.MayHaveApplied(err) {
				t.Error("it may have been applied where there is nobody")
			}
			if took := time.Since(start); took > atOnce {
				t.Errorf("told after %v", took)
			}
		})
	}
}
