package leasing

import (
	"context"
	"fmt"
	"math/rand"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// counters are keys whose values only grow. Whoever has seen a value, or written it, says so; nobody may be shown less
// from then on, by whatever program.
type counters struct {
	*env
	seen []atomic.Int64
}

func newCounters(e *env, n int) *counters { return &counters{env: e, seen: make([]atomic.Int64, n)} }

func (c *counters) key(i int) string { return c.prefix + strconv.Itoa(i) }

func (c *counters) saw(i int, value int64) {
	for seen := c.seen[i].Load(); value > seen; seen = c.seen[i].Load() {
		if c.seen[i].CompareAndSwap(seen, value) {
			return
		}
	}
}

// read reads a counter and reports an older value than was seen when the read began.
func (c *counters) read(ctx context.Context, kv clientv3.KV, i int) (int64, error) {
	before := c.seen[i].Load()
	resp, err := kv.Get(ctx, c.key(i))
	if err != nil {
		return 0, err
	}
	var value int64
	if len(resp.Kvs) > 0 {
		value, _ = strconv.ParseInt(string(resp.Kvs[0].Value), 10, 64)
	}
	if value < before {
		c.Errorf("counter %d: read %d after %d had been seen", i, value, before)
	}
	c.saw(i, value)
	return value, nil
}

// increment adds one to a counter, unless another one does so in between.
func (c *counters) increment(ctx context.Context, kv clientv3.KV, i int) error {
	value, err := c.read(ctx, kv, i)
	if err != nil {
		return err
	}
	unchanged := clientv3.Compare(clientv3.Value(c.key(i)), "=", strconv.FormatInt(value, 10))
	if value == 0 {
		unchanged = clientv3.Compare(clientv3.Version(c.key(i)), "=", 0)
	}
	resp, err := kv.Txn(ctx).If(unchanged).Then(clientv3.OpPut(c.key(i), strconv.FormatInt(value+1, 10))).Commit()
	if err == nil && resp.Succeeded {
		c.saw(i, value+1)
	}
	return err
}

// Three programs read and write the same keys, mostly each its own, and now and then those of the others.
func TestReadsAreLinearizable(t *testing.T) {
	const keys, rounds = 120, 250
	e := newEnv(t)
	c := newCounters(e, keys)
	members := []*member{e.join(), e.join(), e.join()}
	var reads, sent atomic.Int64
	var wg sync.WaitGroup
	for m, member := range members {
		for g := range 3 {
			rng := rand.New(rand.NewSource(int64(10*m + g)))
			wg.Go(func() {
				for range rounds {
					i := rng.Intn(keys/3) + m*keys/3
					if rng.Intn(20) == 0 {
						i = rng.Intn(keys)
					}
					var err error
					if rng.Intn(10) == 0 {
						err = c.increment(e.ctx, member, i)
					} else {
						_, err = c.read(e.ctx, member, i)
					}
					if err != nil {
						t.Error(err)
						return
					}
					reads.Add(1)
				}
			})
		}
	}
	wg.Wait()
	for _, member := range members {
		sent.Add(member.calls.Load())
	}
	if sent.Load() >= reads.Load() {
		t.Errorf("%d calls for %d reads: nothing was answered from memory", sent.Load(), reads.Load())
	}
}

// Links are cut, frozen and healed while programs read and write the same keys. Leases end meanwhile, and begin again.
func TestReadsAreLinearizableUnderFaults(t *testing.T) {
	const (
		keys    = 6
		members = 3
		faults  = 12
	)
	e := newEnv(t)
	c := newCounters(e, keys)
	var proxies []*etcdtest.Proxy
	var kvs []*member
	for range members {
		proxy, endpoint := e.proxied()
		proxies = append(proxies, proxy)
		kvs = append(kvs, join(t, e.leasing, []string{endpoint}, concurrency.WithTTL(2)))
	}
	ctx, stop := context.WithCancel(e.ctx)
	defer stop()
	var answered, written atomic.Int64
	var wg sync.WaitGroup
	for m, kv := range kvs {
		for g := range 3 {
			rng := rand.New(rand.NewSource(int64(10*m + g)))
			wg.Go(func() {
				for ctx.Err() == nil {
					i := rng.Intn(keys)
					if rng.Intn(20) == 0 {
						ctx, cancel := context.WithTimeout(ctx, time.Duration(1+rng.Intn(4000))*time.Millisecond)
						if c.increment(ctx, kv, i) == nil { // else it may be made, or not
							written.Add(1)
						}
						cancel()
						continue
					}
					ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
					if _, err := c.read(ctx, kv, i); err == nil {
						answered.Add(1)
					}
					cancel()
				}
			})
		}
	}
	rng := rand.New(rand.NewSource(1))
	for range faults {
		proxy := proxies[rng.Intn(members)]
		if rng.Intn(2) == 0 {
			proxy.Cut()
		} else {
			proxy.Freeze()
		}
		lasts := time.NewTimer(time.Duration(rng.Intn(1500)) * time.Millisecond)
		select {
		case <-lasts.C:
		case <-ctx.Done():
			t.Fatal("out of time")
		}
		if rng.Intn(2) == 0 { // else it lasts on
			proxy.Heal()
		}
	}
	for _, proxy := range proxies {
		proxy.Heal()
	}
	for _, kv := range kvs {
		e.awaitCaching(kv)
	}
	stop()
	wg.Wait()
	for i := range keys {
		var values [members]int64
		for m, kv := range kvs {
			var err error
			if values[m], err = c.read(e.ctx, kv, i); err != nil {
				t.Error(err)
			}
		}
		if values != [members]int64{values[0], values[0], values[0]} {
			t.Errorf("counter %d in the end: %d", i, values)
		}
	}
	t.Logf("%d reads, %d writes", answered.Load(), written.Load())
	if answered.Load() == 0 || written.Load() == 0 {
		t.Error("nothing was done")
	}
}

// proxied returns a proxy before the cluster, and its endpoint.
func (e *env) proxied() (*etcdtest.Proxy, string) {
	e.Helper()
	proxy, err := etcdtest.NewProxy("tcp", e.endpoints[0][len("http://"):])
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _ = proxy.Close() })
	return proxy, "http://" + proxy.Addr()
}

// An owner is cut off without knowing. Another one waits for its lease to end, writes, and nothing old is read after
// that; when the owner is back it goes on as before.
func TestOwnerThatIsCutOffShowsNothingOld(t *testing.T) {
	e := newEnv(t)
	c := newCounters(e, 1)
	proxy, endpoint := e.proxied()
	owner := join(t, e.leasing, []string{endpoint}, concurrency.WithTTL(2))
	writer := e.join()
	if err := c.increment(e.ctx, owner, 0); err != nil {
		t.Fatal(err)
	}
	if calls := owner.during(func() { _, _ = c.read(e.ctx, owner, 0) }); calls != 0 {
		t.Fatal("the key is not owned")
	}

	proxy.Freeze()
	reading, stop := context.WithCancel(e.ctx)
	var answered atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for reading.Err() == nil {
			ctx, cancel := context.WithTimeout(reading, 20*time.Millisecond)
			if _, err := c.read(ctx, owner, 0); err == nil {
				answered.Add(1)
			}
			cancel()
		}
	})
	if err := c.increment(e.ctx, writer, 0); err != nil {
		t.Error(err)
	}
	if answered.Load() == 0 {
		t.Error("the owner answered nothing while its lease lived")
	}
	// The owner goes on reading meanwhile.
	for until := time.Now().Add(300 * time.Millisecond); time.Now().Before(until); {
		if _, err := c.read(e.ctx, writer, 0); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
	proxy.Heal()
	if value, err := c.read(e.ctx, owner, 0); err != nil || value != 2 {
		t.Errorf("back again: %d, %v", value, err)
	}
	e.awaitCaching(owner)
}

// awaitCaching returns when the member caches keys.
func (e *env) awaitCaching(m *member) {
	e.Helper()
	for i := 0; ; i++ {
		key := fmt.Sprint(e.prefix, "caching", m.calls.Load(), i)
		if _, err := m.Get(e.ctx, key); err != nil {
			e.Fatal(err)
		}
		var err error
		if m.during(func() { _, err = m.Get(e.ctx, key) }) == 0 && err == nil {
			return
		}
	}
}

// The owner's connections are cut and come back; meanwhile another one wants to write, and the history that tells of it
// may be compacted.
func TestOwnerGivesUpItsKeysOnceItIsBack(t *testing.T) {
	for _, compact := range []bool{false, true} {
		t.Run(fmt.Sprintf("compacted %t", compact), func(t *testing.T) {
			e := newEnv(t)
			c := newCounters(e, 1)
			proxy, endpoint := e.proxied()
			owner := join(t, e.leasing, []string{endpoint})
			writer := e.join()
			if err := c.increment(e.ctx, owner, 0); err != nil {
				t.Fatal(err)
			}
			_, _ = c.read(e.ctx, owner, 0)
			asked := e.plain.Watch(e.ctx, e.leasing+c.key(0))

			proxy.Cut()
			done := make(chan error, 1)
			go func() { done <- c.increment(e.ctx, writer, 0) }()
			<-asked // the request to give up the key, which the owner cannot hear
			if _, err := c.read(e.ctx, owner, 0); err != nil {
				t.Errorf("while cut off, with the lease alive: %v", err)
			}
			if compact {
				resp, err := e.plain.Put(e.ctx, e.prefix+"other", "")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := e.plain.Compact(e.ctx, resp.Header.Revision); err != nil {
					t.Fatal(err)
				}
			}
			proxy.Heal()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if value, err := c.read(e.ctx, owner, 0); err != nil || value != 2 {
				t.Errorf("back again: %d, %v", value, err)
			}
			e.awaitCaching(owner)
		})
	}
}

// Programs write through the cache and past it, and leases are revoked by hand. Every reader sees a key's versions in
// their order, and in the end what is in the cluster.
func TestCacheFollowsWritesPastItAndLostLeases(t *testing.T) {
	const keys, rounds = 30, 60
	e := newEnv(t)
	members := []*member{e.join(), e.join()}
	key := func(i int) string { return e.prefix + strconv.Itoa(i) }
	var wg sync.WaitGroup
	for m, member := range members {
		rng := rand.New(rand.NewSource(int64(m)))
		wg.Go(func() {
			latest := make(map[int]int64)
			for range rounds * 10 {
				i := rng.Intn(keys)
				resp, err := member.Get(e.ctx, key(i))
				if err != nil {
					t.Error(err)
					return
				}
				if len(resp.Kvs) > 0 {
					if rev := resp.Kvs[0].ModRevision; rev < latest[i] {
						t.Errorf("key %d: revision %d after %d", i, rev, latest[i])
					} else {
						latest[i] = rev
					}
				}
			}
		})
	}
	for w, kv := range []clientv3.KV{members[0], members[1], e.plain.KV} {
		rng := rand.New(rand.NewSource(int64(100 + w)))
		wg.Go(func() {
			for n := range rounds {
				i := rng.Intn(keys)
				var err error
				switch rng.Intn(6) {
				case 0:
					_, err = kv.Delete(e.ctx, key(i))
				case 1:
					_, err = kv.Txn(e.ctx).
						If(clientv3.Compare(clientv3.Version(key(i)), ">", 2)).
						Then(clientv3.OpPut(key(i), "many"), clientv3.OpDelete(key((i+1)%keys))).
						Else(clientv3.OpPut(key(i), "few")).
						Commit()
				default:
					_, err = kv.Put(e.ctx, key(i), fmt.Sprint(w, n))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			leases, err := e.plain.Leases(e.ctx)
			if err != nil {
				t.Error(err)
				return
			}
			for _, lease := range leases.Leases {
				_, _ = e.plain.Revoke(e.ctx, lease.ID) // it may be gone by now
			}
			for i := range keys {
				_, _ = e.plain.Get(e.ctx, key(i))
			}
		}
	})
	wg.Wait()
	for i := range keys {
		want := e.get(e.plain, key(i))
		for m, member := range members {
			for e.get(member, key(i)) != want {
				if e.ctx.Err() != nil {
					t.Fatalf("key %d, member %d: it never becomes %q", i, m, want)
				}
			}
		}
	}
	for _, member := range members {
		e.awaitCaching(member)
	}
}

// A transaction that memory can answer gives what the cluster gives.
func TestTransactionsInMemoryAreAsTheClustersOwn(t *testing.T) {
	e := newEnv(t)
	m := e.join()
	names := []string{e.prefix + "a", e.prefix + "b", e.prefix + "c", e.prefix + "missing"}
	for i, name := range names[:3] {
		for range i + 1 {
			e.put(e.plain, name, fmt.Sprint("v", i))
		}
	}
	var revs []int64
	for _, name := range names {
		resp, err := m.Get(e.ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		revs = append(revs, resp.Header.Revision)
	}
	rng := rand.New(rand.NewSource(1))
	for range 500 {
		op := randomTxn(rng, names, revs, 2)
		var got clientv3.OpResponse
		var err error
		if calls := m.during(func() { got, err = m.Do(e.ctx, op) }); calls != 0 && hasKeys(op) {
			t.Errorf("%d calls", calls)
		}
		if err != nil {
			t.Fatal(err)
		}
		want, err := e.plain.Do(e.ctx, op)
		if err != nil {
			t.Fatal(err)
		}
		a, b := (*pb.TxnResponse)(got.Txn()), (*pb.TxnResponse)(want.Txn())
		withoutHeaders(a)
		withoutHeaders(b)
		if !proto.Equal(a, b) {
			t.Fatalf("got  %v\nwant %v", a, b)
		}
	}
}

// randomTxn returns a transaction that only reads.
func randomTxn(rng *rand.Rand, names []string, revs []int64, depth int) clientv3.Op {
	name := func() string { return names[rng.Intn(len(names))] }
	ops := func() []clientv3.Op {
		ops := make([]clientv3.Op, rng.Intn(3))
		for i := range ops {
			switch {
			case depth > 0 && rng.Intn(3) == 0:
				ops[i] = randomTxn(rng, names, revs, depth-1)
			case rng.Intn(3) == 0:
				ops[i] = clientv3.OpGet(name(), clientv3.WithKeysOnly())
			default:
				ops[i] = clientv3.OpGet(name())
			}
		}
		return ops
	}
	cmps := make([]clientv3.Cmp, rng.Intn(3))
	for i := range cmps {
		relation := []string{"=", "!=", "<", ">"}[rng.Intn(4)]
		number := []int64{0, 1, 2, 3, revs[rng.Intn(len(revs))], revs[0] - 2}[rng.Intn(6)]
		switch rng.Intn(5) {
		case 0:
			cmps[i] = clientv3.Compare(clientv3.Value(name()), relation, fmt.Sprint("v", rng.Intn(3)))
		case 1:
			cmps[i] = clientv3.Compare(clientv3.Version(name()), relation, number)
		case 2:
			cmps[i] = clientv3.Compare(clientv3.CreateRevision(name()), relation, number)
		case 3:
			cmps[i] = clientv3.Compare(clientv3.ModRevision(name()), relation, number)
		default:
			cmps[i] = clientv3.Compare(clientv3.LeaseValue(name()), relation, number)
		}
	}
	return clientv3.OpTxn(cmps, ops(), ops())
}

// hasKeys reports whether a transaction looks at a key, whichever branch is taken.
func hasKeys(op clientv3.Op) bool {
	cmps, _, _ := op.Txn()
	return len(cmps) > 0
}

func withoutHeaders(resp *pb.TxnResponse) {
	resp.Header = nil
	for _, r := range resp.Responses {
		if get := r.GetResponseRange(); get != nil {
			get.Header = nil
		}
		if txn := r.GetResponseTxn(); txn != nil {
			withoutHeaders(txn)
		}
	}
}
