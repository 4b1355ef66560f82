package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/servers"
	"github.com/seed-d18e112a/clientv3/internal/watchstream/watchcheck"
)

// faultTime is how long tests with random faults go on: CLIENTV3_FAULT_SECONDS, or a minute.
func faultTime(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv("CLIENTV3_FAULT_SECONDS")
	if s == "" {
		return time.Minute
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n) * time.Second
}

// seedOf returns the seed of a test: CLIENTV3_SEED, or a random one. It is printed.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("CLIENTV3_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("CLIENTV3_SEED=%d", seed)
	return seed
}

const (
	faultKeys     = 40
	faultWatches  = 1000
	faultClients  = 4
	faultPrefix   = "f/"
	writeInterval = 5 * time.Millisecond
)

func faultKey(i int) string { return fmt.Sprintf("%s%02d", faultPrefix, i) }

// Watches keep their promises whatever happens to connections and members: a thousand of them, of every kind, while keys
// are written, deleted and compacted, links are cut and frozen, members killed and restarted.
func TestWatchesUnderFaults(t *testing.T) {
	t.Parallel()
	seed := seedOf(t)
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses(), etcdtest.WithProxies())
	f := &faultRun{
		t: t, cluster: cluster, writer: quietClient(t, cluster),
		deadline: faultTime(t) + 2*time.Minute,
	}
	ctx, cancel := context.WithTimeout(t.Context(), f.deadline)
	defer cancel()
	if err := f.start(ctx); err != nil {
		t.Fatal(err)
	}

	// A source of random numbers for each part, so that what one does does not change what another does.
	random := func(part uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, part)) }
	for i := range faultClients {
		cli := quietClient(t, cluster)
		for j := range faultWatches / faultClients {
			f.watches.Go(func() { f.watch(ctx, cli, random(uint64(1000+i*faultWatches+j))) })
		}
	}
	calamity, stop := context.WithTimeout(ctx, faultTime(t))
	defer stop()
	var parts sync.WaitGroup
	parts.Go(func() { f.write(calamity, random(1)) })
	parts.Go(func() { f.breakThings(calamity, random(2)) })
	parts.Go(func() { f.record(calamity, random(3)) })
	parts.Wait()
	var err error
	if !t.Failed() {
		err = f.finish(ctx)
	}
	if err != nil {
		t.Error("writing the end: ", err)
	}
	if t.Failed() {
		cancel()
	}
	f.watches.Wait()
	if t.Failed() {
		return // what watches saw cannot be checked without the end of the history
	}
	f.check()
}

// quietClient returns a client that logs nothing: under faults there is too much of it.
func quietClient(t *testing.T, cluster *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	return newClient(t, cluster, func(cfg *clientv3.Config) { cfg.Logger = zap.NewNop() })
}

// faultRun is one run of TestWatchesUnderFaults.
type faultRun struct {
	t        *testing.T
	cluster  *etcdtest.Cluster
	writer   *clientv3.Client
	deadline time.Duration
	watches  sync.WaitGroup

	history   watchcheck.History // the recorder's, and once that has ended, the check's
	recorded  atomic.Int64       // the revision up to which history goes
	compacted atomic.Int64

	// last is the last revision that a watch must have delivered; what it gets of a later one says that it has. 0 while
	// the end has not come.
	last atomic.Int64

	mu   sync.Mutex
	seen []observation
}

// observation is what one watch was to deliver, and did.
type observation struct {
	watch     watchcheck.Watch
	responses []watchcheck.Response
}

// start writes the first revision that the history has.
func (f *faultRun) start(ctx context.Context) error {
	put, err := f.writer.Put(ctx, faultKey(0), "first")
	if err != nil {
		return err
	}
	f.recorded.Store(put.Header.Revision - 1)
	return f.recordTo(ctx, put.Header.Revision)
}

// recordTo extends the history by ranges of every revision.
func (f *faultRun) recordTo(ctx context.Context, rev int64) error {
	for next := f.recorded.Load() + 1; next <= rev; next++ {
		resp, err := f.writer.Get(ctx, faultPrefix, clientv3.WithPrefix(), clientv3.WithRev(next))
		if err != nil {
			return fmt.Errorf("range of revision %d: %w", next, err)
		}
		f.history.AddState(next, resp.Kvs)
		f.recorded.Store(next)
	}
	return nil
}

// record extends the history while there are writes, and compacts what it has, if the server can do that to watches.
func (f *faultRun) record(ctx context.Context, random *rand.Rand) {
	compactions := time.NewTicker(2 * time.Second)
	defer compactions.Stop()
	compacts := servers.Has(f.t, servers.CompactionKeepsDeletion) && servers.Has(f.t, servers.CompactionEndsEveryWatch)
	for ctx.Err() == nil {
		now, err := f.writer.Get(ctx, faultKey(0))
		if err == nil {
			err = f.recordTo(ctx, now.Header.Revision)
		}
		if err != nil && ctx.Err() == nil {
			f.t.Log("record: ", err)
		}
		select {
		case <-compactions.C:
			rev := f.recorded.Load() - random.Int64N(200)
			if !compacts || rev <= f.compacted.Load() {
				continue
			}
			// The history takes it for compacted before it is: a compaction that fails may happen all the same.
			f.compacted.Store(rev)
			if _, err := f.writer.Compact(ctx, rev); err != nil && ctx.Err() == nil {
				f.t.Log("compact: ", err)
			}
		default:
		}
	}
}

// write writes and deletes keys, one by one and in transactions. Which writes fail does not matter.
func (f *faultRun) write(ctx context.Context, random *rand.Rand) {
	tick := time.NewTicker(writeInterval)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		callCtx, cancel := context.WithTimeout(ctx, time.Second)
		var err error
		switch random.IntN(10) {
		case 0:
			_, err = f.writer.Delete(callCtx, faultKey(random.IntN(faultKeys)))
		case 1:
			from := random.IntN(faultKeys)
			_, err = f.writer.Delete(callCtx, faultKey(from), clientv3.WithRange(faultKey(from+3)))
		case 2, 3:
			ops := make([]clientv3.Op, 0, 10)
			for _, i := range random.Perm(faultKeys)[:1+random.IntN(9)] {
				if random.IntN(4) == 0 {
					ops = append(ops, clientv3.OpDelete(faultKey(i)))
				} else {
					ops = append(ops, clientv3.OpPut(faultKey(i), fmt.Sprint("t", n)))
				}
			}
			_, err = f.writer.Txn(callCtx).Then(ops...).Commit()
		default:
			_, err = f.writer.Put(callCtx, faultKey(random.IntN(faultKeys)), fmt.Sprint(n))
		}
		cancel()
		_ = err // see above
	}
}

// breakThings breaks one member or its link after the other, and mends it again, so that there always is a quorum.
func (f *faultRun) breakThings(ctx context.Context, random *rand.Rand) {
	sleep := func(most time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(random.Int64N(int64(most)))):
		}
	}
	members := f.cluster.Members()
	for ctx.Err() == nil {
		sleep(time.Second)
		m := members[random.IntN(len(members))]
		switch random.IntN(4) {
		case 0:
			m.Proxy().Cut()
			sleep(time.Second)
			m.Proxy().Heal()
		case 1:
			m.Proxy().Freeze()
			sleep(2 * time.Second)
			// What has vanished is gone, so that the connections are of no use any more.
			m.Proxy().Cut()
			m.Proxy().Heal()
		case 2:
			m.Proxy().Slow(time.Duration(random.Int64N(int64(50*time.Millisecond))), 0)
			sleep(2 * time.Second)
			m.Proxy().Heal()
		case 3:
			if err := m.Kill(); err != nil {
				f.t.Error("kill: ", err)
				return
			}
			sleep(time.Second)
			// Under a context that goes on: the member must be back at the end.
			if err := m.Restart(f.t.Context()); err != nil {
				f.t.Error("restart: ", err)
				return
			}
		}
	}
}

// finish sets the last revision, writes and deletes all keys behind it, so that watches of every kind see that it has
// passed, and completes the history.
func (f *faultRun) finish(ctx context.Context) error {
	puts := make([]clientv3.Op, faultKeys)
	deletes := make([]clientv3.Op, faultKeys)
	for i := range puts {
		puts[i] = clientv3.OpPut(faultKey(i), "end")
		deletes[i] = clientv3.OpDelete(faultKey(i))
	}
	var rev int64
	for _, ops := range [][]clientv3.Op{puts, puts, deletes} {
		resp, err := f.writer.Txn(ctx).Then(ops...).Commit()
		for err != nil && ctx.Err() == nil {
			// That it may have been applied does no harm: there is one more revision then.
			resp, err = f.writer.Txn(ctx).Then(ops...).Commit()
		}
		if err != nil {
			return err
		}
		rev = resp.Header.Revision
		f.last.CompareAndSwap(0, rev)
	}
	return f.recordTo(ctx, rev)
}

// watch opens watches of a random kind, one after the other, and records what they deliver, until one has delivered the
// end.
func (f *faultRun) watch(ctx context.Context, cli *clientv3.Client, random *rand.Rand) {
	for ctx.Err() == nil {
		if f.watchOnce(ctx, cli, random) {
			return
		}
	}
}

func (f *faultRun) watchOnce(ctx context.Context, cli *clientv3.Client, random *rand.Rand) (complete bool) {
	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	from := random.IntN(faultKeys)
	key := faultKey(from)
	o := observation{watch: watchcheck.Watch{Key: []byte(key)}}
	opts := []clientv3.OpOption{clientv3.WithCreatedNotify()}
	if random.IntN(3) == 0 {
		end := faultKey(from + 1 + random.IntN(4))
		o.watch.RangeEnd = []byte(end)
		opts = append(opts, clientv3.WithRange(end))
	}
	if last := f.last.Load(); last > 0 {
		o.watch.Start = last // one that began later might have nothing to see
	} else if random.IntN(2) == 0 {
		o.watch.Start = max(1, f.recorded.Load()-random.Int64N(100))
	}
	if o.watch.Start > 0 {
		opts = append(opts, clientv3.WithRev(o.watch.Start))
	}
	switch random.IntN(6) {
	case 0:
		o.watch.NoPut = true
		opts = append(opts, clientv3.WithFilterPut())
	case 1:
		o.watch.NoDelete = true
		opts = append(opts, clientv3.WithFilterDelete())
	case 2:
		o.watch.PrevKV = true
		opts = append(opts, clientv3.WithPrevKV())
	case 3:
		opts = append(opts, clientv3.WithProgressNotify(), clientv3.WithFragment())
	}
	short := f.last.Load() == 0 && random.IntN(3) == 0 // this one is given up before the end
	slow := random.IntN(10) == 0
	left := 1 + random.IntN(30)

	for resp := range cli.Watch(watchCtx, key, opts...) {
		if o.watch.Start == 0 && resp.Created {
			o.watch.Start = resp.Header.Revision + 1
		}
		o.responses = append(o.responses, watchcheck.Response{
			Revision: resp.Header.GetRevision(), Events: resp.Events, Created: resp.Created, Canceled: resp.Canceled,
			CompactRevision: resp.CompactRevision,
		})
		for _, ev := range resp.Events {
			if last := f.last.Load(); last > 0 && ev.Kv.ModRevision > last {
				complete = true
			}
		}
		if left--; complete || (short && left <= 0) {
			break
		}
		if slow {
			select {
			case <-time.After(time.Duration(random.Int64N(int64(100 * time.Millisecond)))):
			case <-ctx.Done():
			}
		}
		if last := len(o.responses) - 1; o.responses[last].Canceled && resp.CompactRevision == 0 {
			f.t.Errorf("a watch ended: %v", resp.Err())
		}
	}
	if complete {
		o.watch.Through = f.last.Load()
	}
	f.mu.Lock()
	f.seen = append(f.seen, o)
	f.mu.Unlock()
	return complete
}

// check checks everything that was observed.
func (f *faultRun) check() {
	f.history.Compacted = f.compacted.Load()
	events, complete, ends := 0, 0, 0
	for _, o := range f.seen {
		for _, r := range o.responses {
			events += len(r.Events)
			if r.Canceled {
				ends++
			}
		}
		if o.watch.Through > 0 {
			complete++
		}
		if err := watchcheck.Check(&f.history, o.watch, o.responses); err != nil {
			f.t.Errorf("watch %+v: %v", o.watch, err)
		}
	}
	f.t.Logf("%d revisions; %d watches, %d of them to the end, %d ended by compaction; %d events",
		f.recorded.Load(), len(f.seen), complete, ends, events)
	if complete < faultWatches/2 || events < faultWatches {
		f.t.Error("too few watches and events for a meaningful check")
	}
}
