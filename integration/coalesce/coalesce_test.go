package coalesce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/coalesce"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

// counts is what a client has sent.
type counts struct {
	requests atomic.Int64 // of any kind
	txns     atomic.Int64 // transactions
	ops      atomic.Int64 // operations in them
}

func (c *counts) interceptor(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	c.requests.Add(1)
	if txn, ok := req.(*pb.TxnRequest); ok {
		c.txns.Add(1)
		c.ops.Add(int64(len(txn.Success)))
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}

// countingClient returns a client of the endpoints, and what it sends.
func countingClient(t *testing.T, endpoints ...string) (*clientv3.Client, *counts) {
	t.Helper()
	sent := &counts{}
	cfg := shared.Config(t, endpoints...)
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainUnaryInterceptor(sent.interceptor))
	cli, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	return cli, sent
}

// crowd runs a function in many goroutines.
func crowd(n int, do func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

// A random get, of single keys that are there or not, and of ranges, with all that can be asked for.
func randomGet(random *rand.Rand, prefix string) clientv3.Op {
	key := prefix + strconv.Itoa(random.IntN(30))
	var opts []clientv3.OpOption
	add := func(odds int, more ...clientv3.OpOption) {
		if random.IntN(odds) == 0 {
			opts = append(opts, more...)
		}
	}
	switch random.IntN(6) {
	case 0:
		opts = append(opts, clientv3.WithPrefix())
		add(2, clientv3.WithLimit(int64(random.IntN(5))))
	case 1:
		opts = append(opts, clientv3.WithRange(prefix+strconv.Itoa(random.IntN(30))), clientv3.WithLimit(3))
	case 2:
		key = prefix
		opts = append(opts, clientv3.WithFromKey(), clientv3.WithLimit(2))
	}
	add(5, clientv3.WithKeysOnly())
	add(5, clientv3.WithCountOnly())
	add(5, clientv3.WithSerializable())
	add(8, clientv3.WithMinModRev(int64(random.IntN(40))))
	add(8, clientv3.WithMaxCreateRev(int64(random.IntN(40))))
	add(8, clientv3.WithSort(clientv3.SortTarget(random.IntN(5)), clientv3.SortOrder(random.IntN(3))))
	add(20, clientv3.WithRev(2))
	return clientv3.OpGet(key, opts...)
}

func TestMergedGetsAreAsPlainOnes(t *testing.T) {
	ctx := shared.Context(t)
	// A cluster of its own, so that nothing moves between a merged get and the plain one.
	cli, sent := countingClient(t, etcdtest.Run(t).Endpoints()...)
	const prefix = "gets/"
	for i := range 30 {
		if _, err := cli.Put(ctx, prefix+strconv.Itoa(i*2%40), strings.Repeat("v", i)); err != nil {
			t.Fatal(err)
		}
	}
	kv := coalesce.NewKV(cli.KV)
	const callers, each = 100, 20
	var differ atomic.Int64
	sent.requests.Store(0)
	crowd(callers, func(i int) {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		for range each {
			op := randomGet(random, prefix)
			got, err := kv.Do(ctx, op)
			want, wantErr := cli.Do(ctx, op)
			if err != wantErr {
				t.Errorf("%q to %q: error %v, want %v", op.KeyBytes(), op.RangeBytes(), err, wantErr)
			}
			if err != nil || wantErr != nil {
				continue
			}
			if !proto.Equal((*pb.RangeResponse)(got.Get()), (*pb.RangeResponse)(want.Get())) && differ.Add(1) < 5 {
				t.Errorf("%q to %q:\n%v\nwant\n%v", op.KeyBytes(), op.RangeBytes(), got.Get(), want.Get())
			}
		}
	})
	t.Logf("%d operations in %d transactions", sent.ops.Load(), sent.txns.Load())
	if sent.txns.Load() == 0 {
		t.Error("nothing was merged")
	}
}

func TestManyCallersNeedFewRequests(t *testing.T) {
	ctx := shared.Context(t)
	cli, sent := countingClient(t, shared.Cluster(t).Endpoints()...)
	prefix := shared.Prefix(t)
	kv, w := coalesce.NewKV(cli.KV), coalesce.NewWriter(cli.KV)
	const callers, each = 200, 10
	for name, call := range map[string]func(key string) error{
		"get": func(key string) error { return second(kv.Get(ctx, key)) },
		"put": func(key string) error { return second(w.Put(ctx, key, "value")) },
	} {
		before := sent.requests.Load()
		crowd(callers, func(i int) {
			for range each {
				if err := call(prefix + strconv.Itoa(i)); err != nil {
					t.Error(name, err)
				}
			}
		})
		n := sent.requests.Load() - before
		t.Logf("%s: %d calls in %d requests", name, callers*each, n)
		if n > callers*each/3 {
			t.Errorf("%s: %d requests for %d calls", name, n, callers*each)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestALoneCallerSendsNoTransaction(t *testing.T) {
	ctx := shared.Context(t)
	cli, sent := countingClient(t, shared.Cluster(t).Endpoints()...)
	key := shared.Prefix(t)
	kv, w := coalesce.NewKV(cli.KV), coalesce.NewWriter(cli.KV)
	for range 20 {
		if err := errors.Join(second(w.Put(ctx, key, "value")), second(kv.Get(ctx, key)), second(w.Delete(ctx, key))); err != nil {
			t.Fatal(err)
		}
	}
	if n, txns := sent.requests.Load(), sent.txns.Load(); n != 60 || txns != 0 {
		t.Errorf("%d requests, %d of them transactions, for 60 calls", n, txns)
	}
}

// 100 callers share one decorator: users who may see some keys and not others, with good calls and bad ones, of whom some
// give up. Each is told what it would be told if it were alone.
func TestCallersWithDifferentPermissionsShareOneDecorator(t *testing.T) {
	const users, callers, each = 4, 100, 30
	auth := etcdtest.Auth{}
	for u := range users {
		name := fmt.Sprintf("user%d", u)
		own := fmt.Sprintf("own/%d/", u)
		auth.Roles = append(auth.Roles, etcdtest.Role{Name: name, Permissions: []*authpb.Permission{{
			PermType: authpb.Permission_READWRITE, Key: []byte(own), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(own)),
		}}})
		auth.Users = append(auth.Users, etcdtest.User{Name: name, Password: name, Roles: []string{name}})
	}
	cluster := etcdtest.Run(t, etcdtest.WithAuth(auth))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// A client that is nobody, whose calls bring tokens of their own.
	cli, sent := countingClient(t, cluster.Endpoints()...)
	tokens := make([]context.Context, users)
	for u := range tokens {
		name := fmt.Sprintf("user%d", u)
		resp, err := cli.Authenticate(ctx, name, name)
		if err != nil {
			t.Fatal(err)
		}
		tokens[u] = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, resp.Token)
		for k := range 5 {
			key := fmt.Sprintf("own/%d/%d", u, k)
			if _, err := cli.Put(tokens[u], key, key); err != nil {
				t.Fatal(err)
			}
		}
	}
	kv, w := coalesce.NewKV(cli.KV, coalesce.WithInFlight(1)), coalesce.NewWriter(cli.KV, coalesce.WithInFlight(1))
	var gaveUp, denied, refused, done atomic.Int64
	crowd(callers, func(i int) {
		random := rand.New(rand.NewPCG(2, uint64(i)))
		user := i % users
		for range each {
			ctx, cancel := tokens[user], context.CancelFunc(func() {})
			hasty := random.IntN(6) == 0
			if hasty {
				ctx, cancel = context.WithTimeout(ctx, time.Duration(random.Int64N(int64(3*time.Millisecond))))
			}
			of := user
			if random.IntN(10) == 0 {
				of = random.IntN(users)
			}
			key := fmt.Sprintf("own/%d/%d", of, random.IntN(5))
			var err, want error
			switch {
			case random.IntN(15) == 0:
				_, err = kv.Get(ctx, "")
				want = rpctypes.ErrEmptyKey
				refused.Add(1)
			case random.IntN(15) == 0: // it ends where nobody may look
				_, err = kv.Get(ctx, key, clientv3.WithRange("p"), clientv3.WithLimit(1))
				want = rpctypes.ErrPermissionDenied
			case random.IntN(4) == 0:
				_, err = w.Put(ctx, key, key)
			case random.IntN(15) == 0:
				_, err = w.Put(ctx, key, key, clientv3.WithLease(12345))
				want = rpctypes.ErrLeaseNotFound
				refused.Add(1)
			default:
				var resp *clientv3.GetResponse
				if resp, err = kv.Get(ctx, key); err == nil && (len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != key) {
					t.Errorf("user %d: get of %s: %v", user, key, resp.Kvs)
				}
			}
			if of != user && want != rpctypes.ErrEmptyKey {
				want = rpctypes.ErrPermissionDenied
			}
			switch {
			case hasty && ended(err):
				gaveUp.Add(1)
			case err != want:
				t.Errorf("user %d, %s, hasty %v: error %v, want %v", user, key, hasty, err, want)
			case err == nil:
				done.Add(1)
			case err == rpctypes.ErrPermissionDenied:
				denied.Add(1)
			}
			cancel()
		}
	})
	t.Logf("%d done, %d denied, %d refused, %d given up; %d operations in %d transactions", done.Load(), denied.Load(),
		refused.Load(), gaveUp.Load(), sent.ops.Load(), sent.txns.Load())
	if done.Load() == 0 || denied.Load() == 0 || refused.Load() == 0 || gaveUp.Load() == 0 || sent.txns.Load() == 0 {
		t.Error("too little for a meaningful test")
	}
}

// ended reports whether err is how a call ends whose deadline has passed. When that is first noticed by the server, it
// speaks of a timeout of its own, if it is waiting for a write, or of the token, if it is looking at that (simple tokens'
// isValidSimpleToken).
func ended(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || err == rpctypes.ErrTimeout || err == rpctypes.ErrInvalidAuthToken
}

func TestAServersOwnBoundsAreKept(t *testing.T) {
	ctx := shared.Context(t)
	cluster := etcdtest.Run(t, etcdtest.WithMaxTxnOps(10), etcdtest.WithMaxRequestBytes(64<<10))
	cli, sent := countingClient(t, cluster.Endpoints()...)
	kv, w := coalesce.NewKV(cli.KV, coalesce.WithInFlight(1)), coalesce.NewWriter(cli.KV, coalesce.WithInFlight(1))
	value := strings.Repeat("v", 10_000)
	crowd(100, func(i int) {
		key := strconv.Itoa(i)
		for n := range 5 {
			put, err := w.Put(ctx, key, value, clientv3.WithPrevKV())
			if err != nil || (put.PrevKv != nil) != (n > 0) {
				t.Errorf("put: %v, %v", put, err)
				return
			}
			get, err := kv.Get(ctx, key)
			if err != nil || len(get.Kvs) != 1 || len(get.Kvs[0].Value) != len(value) {
				t.Errorf("get: %v, %v", get, err)
				return
			}
		}
	})
	t.Logf("%d operations in %d transactions", sent.ops.Load(), sent.txns.Load())
}

// Each write is told its own result: what it replaced or deleted, and the revision it has in common with others.
func TestMergedWritesAreToldTheirOwnResults(t *testing.T) {
	ctx := shared.Context(t)
	cli, _ := countingClient(t, shared.Cluster(t).Endpoints()...)
	prefix := shared.Prefix(t)
	w := coalesce.NewWriter(cli.KV, coalesce.WithInFlight(1))
	lease, err := cli.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	crowd(60, func(i int) {
		key := prefix + strconv.Itoa(i)
		fail := func(what string, resp any, err error) { t.Errorf("%s of %s: %v, %v", what, key, resp, err) }
		first, err := w.Put(ctx, key, "first", clientv3.WithLease(lease.ID))
		if err != nil || first.Header.MemberId == 0 || first.PrevKv != nil {
			fail("the first put", first, err)
			return
		}
		at, err := cli.Get(ctx, key, clientv3.WithRev(first.Header.Revision))
		if err != nil || len(at.Kvs) != 1 || at.Kvs[0].ModRevision != first.Header.Revision || at.Kvs[0].Lease != int64(lease.ID) {
			fail("a get at the revision of the first put", at, err)
			return
		}
		second, err := w.Put(ctx, key, "second", clientv3.WithPrevKV(), clientv3.WithIgnoreLease())
		if err != nil || string(second.PrevKv.GetValue()) != "first" {
			fail("the second put", second, err)
			return
		}
		deleted, err := w.Delete(ctx, key, clientv3.WithPrevKV())
		if err != nil || deleted.Deleted != 1 || string(deleted.PrevKvs[0].Value) != "second" ||
			deleted.PrevKvs[0].Lease != int64(lease.ID) {
			fail("the deletion", deleted, err)
			return
		}
		if none, err := w.Put(ctx, key, "", clientv3.WithIgnoreValue()); err != rpctypes.ErrKeyNotFound {
			fail("a put that keeps the value of nothing", none, err)
		}
		if none, err := w.Delete(ctx, key); err != nil || none.Deleted != 0 {
			fail("the second deletion", none, err)
		}
	})
}

// Many write the same few keys: no write is lost, and each sees the one before it.
func TestWritesOfOneKeyFollowEachOther(t *testing.T) {
	ctx := shared.Context(t)
	cli := shared.Client(t)
	prefix := shared.Prefix(t)
	w := coalesce.NewWriter(cli.KV)
	const callers, each, keys = 50, 6, 3
	var replaced sync.Map
	crowd(callers, func(i int) {
		for n := range each {
			resp, err := w.Put(ctx, prefix+strconv.Itoa((i+n)%keys), fmt.Sprint(i, "/", n), clientv3.WithPrevKV())
			if err != nil {
				t.Error(err)
				return
			}
			if before := resp.PrevKv; before != nil {
				if other, twice := replaced.LoadOrStore(string(before.Value), i); twice {
					t.Errorf("%s was replaced by a write of %d and by one of %d", before.Value, i, other)
				}
			}
		}
	})
	resp, err := cli.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	var versions int64
	for _, kv := range resp.Kvs {
		versions += kv.Version
	}
	if versions != callers*each {
		t.Errorf("%d writes, want %d", versions, callers*each)
	}
}
