package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// history records what writers were told of their writes, each of a key of its own, and checks it against the store.
type history struct {
	mu       sync.Mutex
	outcomes map[string]error // by key
}

func newHistory() *history { return &history{outcomes: make(map[string]error)} }

func (h *history) told(key string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outcomes[key] = err
}

// check reads all keys with the prefix and compares. It returns how many writes succeeded, failed for certain, and may
// have been applied.
func (h *history) check(t *testing.T, cli *clientv3.Client, prefix string) (succeeded, failed, open int) {
	t.Helper()
	got, err := cli.Get(testContext(t), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatalf("the store cannot be read after the faults: %v", err)
	}
	versions := make(map[string]int64)
	for _, kv := range got.Kvs {
		versions[string(kv.Key)] = kv.Version
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, err := range h.outcomes {
		version := versions[key]
		switch {
		case version > 1:
			t.Errorf("%s: written %d times, told %v", key, version, err)
		case err == nil:
			succeeded++
			if version == 0 {
				t.Errorf("%s: lost, told that it was written", key)
			}
		case clientv3.MayHaveApplied(err):
			open++
		default:
			failed++
			if version != 0 {
				t.Errorf("%s: written, told that it was not: %v", key, err)
			}
		}
	}
	return succeeded, failed, open
}

// present reports whether a key is in the member's own store, seen past its proxy.
func present(t *testing.T, m *etcdtest.Member, key string) bool {
	t.Helper()
	conn, err := m.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp, err := pb.NewKVClient(conn).Range(testContext(t), &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	return len(resp.Kvs) > 0
}

// A write that finds nobody connected says that it was not applied, and never is.
func TestWriteThatNeverLeft(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithProxies(), etcdtest.WithChildProcesses())
	cli := newClient(t, cluster, func(cfg *clientv3.Config) { cfg.MaxUnaryRetries = 10 }) // a quarter of a second
	ctx := testContext(t)
	if _, err := cli.Put(ctx, "first", ""); err != nil {
		t.Fatal(err)
	}
	member := cluster.Member(0)
	for name, fault := range map[string]struct{ begin, end func() error }{
		"cut":    {func() error { member.Proxy().Cut(); return nil }, func() error { member.Proxy().Heal(); return nil }},
		"killed": {member.Kill, func() error { return member.Restart(ctx) }},
	} {
		h := newHistory()
		if err := fault.begin(); err != nil {
			t.Fatal(err)
		}
		writes := map[string]func(key string) error{
			"put": func(key string) error { return second(cli.Put(ctx, key, "")) },
			"txn": func(key string) error { return second(cli.Txn(ctx).Then(clientv3.OpPut(key, "")).Commit()) },
			"do":  func(key string) error { return second(cli.Do(ctx, clientv3.OpPut(key, ""))) },
		}
		for kind, write := range writes {
			for i := 0; ; i++ {
				// The first ones may go out on the old connection before its end is known.
				key := fmt.Sprint(name, "/", kind, i)
				err := write(key)
				h.told(key, err)
				if status.Code(err) != codes.Unavailable {
					t.Fatalf("%s: %v", key, err)
				}
				if !clientv3.MayHaveApplied(err) {
					break
				}
			}
		}
		if err := fault.end(); err != nil {
			t.Fatal(err)
		}
		if err := member.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		if _, failed, _ := h.check(t, newClient(t, cluster), name+"/"); failed < len(writes) {
			t.Errorf("%s: %d writes failed for certain", name, failed)
		}
	}
}

// A write whose connection is cut once it has been sent may have been applied: in one of these cases it is.
func TestWriteCutAfterSending(t *testing.T) {
	t.Parallel()
	for _, applied := range []bool{true, false} {
		t.Run(fmt.Sprintf("applied %t", applied), func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Run(t, etcdtest.WithProxies())
			member := cluster.Member(0)
			count := newAttempts()
			cli := newClient(t, cluster, count.watch)
			ctx := testContext(t)
			// A machine that is busy elsewhere may cut too late, or too early; then once more.
			for try := range 10 {
				if _, err := cli.Put(ctx, "before", ""); err != nil && !clientv3.MayHaveApplied(err) {
					t.Fatal(err)
				}
				key := fmt.Sprint("key", try)
				sent := count.of(pb.KV_Put_FullMethodName) + 1
				member.Proxy().Slow(time.Second, 0) // a second to the member, and a second back
				done := make(chan error, 1)
				go func() { done <- second(cli.Put(ctx, key, "")) }()
				if err := count.await(ctx, pb.KV_Put_FullMethodName, sent); err != nil {
					t.Fatal(err)
				}
				for applied && !present(t, member, key) && ctx.Err() == nil {
				}
				member.Proxy().Cut()
				err := <-done
				member.Proxy().Heal()
				is := present(t, member, key)
				if err == nil && !is || err != nil && !clientv3.MayHaveApplied(err) && is {
					t.Fatalf("told %v, applied %t", err, is)
				}
				if err != nil && clientv3.MayHaveApplied(err) && is == applied {
					if status.Code(err) != codes.Unavailable {
						t.Errorf("%v", err)
					}
					return
				}
			}
			t.Error("it never came to that")
		})
	}
}

// A write to a member that is frozen ends with its context, and is open.
func TestWriteToFrozenMember(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithChildProcesses())
	cli := newClient(t, cluster)
	ctx := testContext(t)
	if _, err := cli.Put(ctx, "first", ""); err != nil {
		t.Fatal(err)
	}
	member := cluster.Member(0)
	if err := member.Freeze(); err != nil {
		t.Fatal(err)
	}
	h := newHistory()
	for i := range 5 {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		key := fmt.Sprint("key/", i)
		err := second(cli.Put(short, key, ""))
		h.told(key, err)
		if err != context.DeadlineExceeded || !clientv3.MayHaveApplied(err) {
			t.Errorf("put: %v", err)
		}
		cancel()
	}
	if err := member.Thaw(); err != nil {
		t.Fatal(err)
	}
	h.check(t, cli, "key/")
}

// A write that a follower has forwarded to a leader that does not answer is open too.
func TestWriteForwardedToFrozenLeader(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses())
	ctx := testContext(t)
	lead, err := cluster.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	follower := cluster.Member((lead + 1) % 3)
	cli := newClient(t, cluster, func(cfg *clientv3.Config) { cfg.Endpoints = []string{follower.Endpoint()} })
	if _, err := cli.Put(ctx, "first", ""); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Member(lead).Freeze(); err != nil {
		t.Fatal(err)
	}
	h := newHistory()
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			key := fmt.Sprint("key/", i)
			h.told(key, second(cli.Put(ctx, key, "")))
		})
	}
	wg.Wait()
	if err := cluster.Member(lead).Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := cluster.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if succeeded, _, open := h.check(t, cli, "key/"); succeeded+open == 0 {
		t.Error("all writes failed for certain, though they were sent")
	}
}

// Without a quorum a member refuses what needs one, or does not answer, and still reads what it has.
func TestClusterWithoutQuorum(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses())
	cli := newClient(t, cluster)
	ctx := testContext(t)
	if _, err := cli.Put(ctx, "first", "v"); err != nil {
		t.Fatal(err)
	}
	h := newHistory()
	killed := []*etcdtest.Member{cluster.Member(1), cluster.Member(2)}
	for _, m := range killed {
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	within := func(d time.Duration, call func(context.Context) error) error {
		short, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return call(short)
	}
	put := func(key string) func(context.Context) error {
		return func(ctx context.Context) error {
			err := second(cli.Put(ctx, key, ""))
			h.told(key, err)
			return err
		}
	}
	// Once the member has noticed that there is no leader it refuses calls that require one.
	requireLeader := func(call func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error { return call(clientv3.WithRequireLeader(ctx)) }
	}
	for i := 0; ; i++ {
		err := within(time.Second, requireLeader(put(fmt.Sprint("key/required", i))))
		if err == rpctypes.ErrNoLeader {
			checkRefused(t, "put", err, rpctypes.ErrNoLeader)
			break
		}
		if err == nil || ctx.Err() != nil {
			t.Fatalf("put without a quorum: %v", err)
		}
	}
	get := func(opts ...clientv3.OpOption) func(context.Context) error {
		return func(ctx context.Context) error { return second(cli.Get(ctx, "first", opts...)) }
	}
	if err := within(atOnce, requireLeader(get())); err != rpctypes.ErrNoLeader {
		t.Errorf("a read that requires a leader: %v", err)
	}
	if err := within(time.Second, get()); err != context.DeadlineExceeded {
		t.Errorf("a linearizable read: %v", err)
	}
	for range 20 {
		if err := within(atOnce, get(clientv3.WithSerializable())); err != nil {
			t.Errorf("a serializable read: %v", err)
		}
	}
	if err := within(atOnce, func(ctx context.Context) error {
		return second(cli.MemberAdd(ctx, []string{nowhere}))
	}); err != rpctypes.ErrUnhealthy || clientv3.MayHaveApplied(err) {
		t.Errorf("a new member: %v", err)
	}
	if err := within(20*time.Second, put("key/plain")); err == nil {
		t.Error("a write succeeds without a quorum")
	}

	for _, m := range killed {
		if err := m.Restart(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	h.check(t, cli, "key/")
}

// Members are killed and restarted one after the other, and no read fails.
func TestReadsSurviveRestarts(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses())
	cli := newClient(t, cluster)
	ctx := testContext(t)
	for i := range 100 {
		if _, err := cli.Put(ctx, fmt.Sprintf("key/%02d", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	reads := map[string]func(context.Context) error{
		"get":          func(ctx context.Context) error { return second(cli.Get(ctx, "key/00")) },
		"range":        func(ctx context.Context) error { return second(cli.Get(ctx, "key/", clientv3.WithPrefix())) },
		"serializable": func(ctx context.Context) error { return second(cli.Get(ctx, "key/00", clientv3.WithSerializable())) },
		"txn":          func(ctx context.Context) error { return second(cli.Txn(ctx).Then(clientv3.OpGet("key/00")).Commit()) },
		"members":      func(ctx context.Context) error { return second(cli.MemberList(ctx)) },
		"leases":       func(ctx context.Context) error { return second(cli.Leases(ctx)) },
	}
	counts := make(map[string]*atomic.Int64)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for name, read := range reads {
		count := new(atomic.Int64)
		counts[name] = count
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				short, cancel := context.WithTimeout(ctx, testTimeout/2) // far more than an election takes
				if err := read(short); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				cancel()
				count.Add(1)
			}
		})
	}
	for _, m := range cluster.Members() {
		if err := m.Kill(); err != nil {
			t.Error(err)
		}
		if _, err := cluster.Leader(ctx); err != nil {
			t.Error(err)
		}
		if err := m.Restart(ctx); err != nil {
			t.Error(err)
		}
		if err := cluster.WaitReady(ctx); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	for name, count := range counts {
		t.Logf("%d × %s", count.Load(), name)
	}
}

// A read whose connection is cut is made again, on the only endpoint too.
func TestReadIsRepeatedOnTheSameEndpoint(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithProxies())
	count := newAttempts()
	cli := newClient(t, cluster, count.watch)
	ctx := testContext(t)
	if _, err := cli.Put(ctx, "key", "v"); err != nil {
		t.Fatal(err)
	}
	proxy := cluster.Member(0).Proxy()
	for i := range 3 {
		sent := count.of(pb.KV_Range_FullMethodName) + 1
		proxy.Freeze()
		done := make(chan error, 1)
		go func() { done <- second(cli.Get(ctx, "key")) }()
		if err := count.await(ctx, pb.KV_Range_FullMethodName, sent); err != nil {
			t.Fatal(err)
		}
		proxy.Cut()
		proxy.Heal()
		if err := <-done; err != nil {
			t.Errorf("read %d: %v", i, err)
		}
	}
}

// Writers go on while members are killed and links cut; what they are told is true of every write.
func TestHistoryUnderFaults(t *testing.T) {
	t.Parallel()
	const writers, length = 8, 6 * time.Second
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses(), etcdtest.WithProxies())
	cli := newClient(t, cluster)
	ctx := testContext(t)
	if _, err := cli.Get(ctx, "first"); err != nil {
		t.Fatal(err)
	}
	faults, end := context.WithTimeout(ctx, length)
	defer end()
	h := newHistory()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; faults.Err() == nil; i++ {
				key := fmt.Sprintf("key/%d-%d", w, i)
				short, cancel := context.WithTimeout(ctx, 2*time.Second)
				var err error
				if i%2 == 0 {
					_, err = cli.Put(short, key, "")
				} else {
					_, err = cli.Txn(short).Then(clientv3.OpPut(key, "")).Commit()
				}
				h.told(key, err)
				cancel()
			}
		})
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for faults.Err() == nil {
		m := cluster.Member(random.IntN(3))
		begin, end := func() error { m.Proxy().Cut(); return nil }, func() error { m.Proxy().Heal(); return nil }
		if random.IntN(3) == 0 {
			begin, end = m.Kill, func() error { return m.Restart(ctx) }
		}
		if err := begin(); err != nil {
			t.Error(err)
		}
		select {
		case <-faults.Done():
		case <-time.After(time.Duration(random.IntN(300)) * time.Millisecond):
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		select {
		case <-faults.Done():
		case <-time.After(time.Duration(random.IntN(300)) * time.Millisecond):
		}
	}
	wg.Wait()
	if err := cluster.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	succeeded, failed, open := h.check(t, cli, "key/")
	t.Logf("%d writes succeeded, %d failed for certain, %d are open", succeeded, failed, open)
	if succeeded == 0 || open == 0 {
		t.Error("the faults did not do what they are for")
	}
}
