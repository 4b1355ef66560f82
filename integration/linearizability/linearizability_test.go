package linearizability

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

	"github.com/anishathalye/porcupine"
	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/coalesce"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/internal/watchstream/watchcheck"
)

const (
	clients    = 3
	watchers   = 30
	settleTime = 3 * time.Minute
	// searchTime bounds the search for an order of a group's calls, which takes milliseconds.
	searchTime = time.Minute
)

// Whatever happens to members and links, what clients are told is what one store, used by one after the other, would tell.
func TestLinearizableUnderFaults(t *testing.T) {
	underFaults(t, callPause, func(_ int, cli *clientv3.Client) store { return store{cli.KV, cli.KV} })
}

// Two of three callers share one decorator for reads and one for writes, and are in a hurry, so that calls meet.
func TestMergedCallsAreLinearizableUnderFaults(t *testing.T) {
	var merged, requests atomic.Int64
	var common store
	underFaults(t, callPause/4, func(i int, cli *clientv3.Client) store {
		if common.KV == nil {
			counted := counting{cli.KV, &requests, &merged}
			common = store{
				coalesce.NewKV(counted, coalesce.WithInFlight(1)), coalesce.NewWriter(counted, coalesce.WithInFlight(1)),
			}
		}
		if i%3 == 2 {
			return store{cli.KV, cli.KV}
		}
		return common
	})
	t.Logf("%d calls in %d shared requests", merged.Load(), requests.Load())
	if requests.Load() < 20 {
		t.Error("too few requests are shared for a meaningful check")
	}
}

// counting counts the transactions without conditions of a KV, and their operations: calls that share a request.
type counting struct {
	clientv3.KV
	requests, merged *atomic.Int64
}

func (c counting) Txn(ctx context.Context) clientv3.Txn { return countingTxn{c.KV.Txn(ctx), c} }

type countingTxn struct {
	clientv3.Txn
	c counting
}

func (t countingTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.c.requests.Add(1)
	t.c.merged.Add(int64(len(ops)))
	return t.Txn.Then(ops...)
}

// underFaults has callers call, on what storeOf gives them, while members and links fail, and checks what they are told.
func underFaults(t *testing.T, pause time.Duration, storeOf func(caller int, cli *clientv3.Client) store) {
	t.Helper()
	seed, length := seedOf(t), faultTime(t)
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses(), etcdtest.WithProxies(),
		etcdtest.WithPeerProxies())
	ctx, cancel := context.WithTimeout(t.Context(), length+settleTime)
	defer cancel()
	clis := make([]*clientv3.Client, clients)
	for i := range clis {
		cfg := shared.Config(t, cluster.Endpoints()...)
		cfg.Logger = zap.NewNop() // there is too much of it
		cli, err := clientv3.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer cli.Close()
		clis[i] = cli
	}
	now, err := clis[0].Get(ctx, prefix)
	if err != nil {
		t.Fatal(err)
	}
	w := &watching{first: now.Header.Revision + 1}
	w.newest.Store(w.first)

	// A source of random numbers for each part, so that what one does does not change what another does.
	random := func(part int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(part))) }
	calamity, stop := context.WithTimeout(ctx, length)
	defer stop()
	var calling, following sync.WaitGroup
	var all [callers]*caller
	var used atomic.Int64
	shareable, started := &groups{}, time.Now()
	for i := range all {
		all[i] = &caller{
			id: i, store: storeOf(i, clis[i%clients]), pause: pause, random: random(i), groups: shareable, started: started,
			values: &used,
		}
		calling.Go(func() { all[i].run(calamity) })
	}
	for i := range watchers {
		following.Go(func() { w.follow(ctx, clis[i%clients], random(1000+i)) })
	}
	calling.Go(func() { w.mark(calamity, clis[0]) })
	nemesis := &etcdtest.Nemesis{Cluster: cluster, Seed: seed, Victims: 2, Log: t.Logf}
	broken := nemesis.Run(calamity)
	if broken != nil {
		t.Error(broken)
		stop()
	}
	calling.Wait()

	var records []record
	for _, c := range all {
		records = append(records, c.records...)
		for _, err := range c.impossible {
			t.Error(err)
		}
	}
	a := &artifacts{t: t}
	if broken != nil {
		cancel() // there may be no end to be seen
	}
	last, err := w.finish(ctx, cluster.Member(0))
	if err != nil {
		cancel()
		t.Errorf("the last writes: %v", err)
	}
	following.Wait()
	var truth *watchcheck.History
	if err == nil {
		if truth, err = readTruth(ctx, cluster.Member(0), w.first, last); err != nil {
			t.Errorf("history: %v", err)
		}
	}
	search(t, a, records)
	var wrong []observation
	if truth != nil {
		for _, err := range verify(truth.Events(0), records) {
			t.Error(err)
		}
		wrong = w.check(t, truth)
	}
	report(t, records, w)
	if t.Failed() {
		a.saveRun(records, truth, wrong)
	}
}

// search looks for an order of each group's calls.
func search(t *testing.T, a *artifacts, records []record) {
	t.Helper()
	for group, records := range byGroup(records) {
		result, info := porcupine.CheckOperationsVerbose(model, operations(records), searchTime)
		if result != porcupine.Ok {
			t.Errorf("%d calls on %s: linearizable: %v", len(records), group, result)
			a.saveGroup(group, info)
		}
	}
}

// check checks what the watches delivered, and returns those that were wrong.
func (w *watching) check(t *testing.T, truth *watchcheck.History) (wrong []observation) {
	t.Helper()
	for _, o := range w.seen {
		err := watchcheck.Check(truth, o.Watch, o.Responses)
		if o.Err != "" {
			err = fmt.Errorf("it ended: %s (%w)", o.Err, err)
		}
		if err != nil {
			t.Errorf("watch %+v: %v", o.Watch, err)
			wrong = append(wrong, o)
		}
	}
	return wrong
}

// report logs what there was, and demands that it was enough to mean something.
func report(t *testing.T, records []record, w *watching) {
	t.Helper()
	var failed, unknown, complete, events int
	for _, r := range records {
		if r.failed() {
			failed++
		}
		if r.MayHaveApplied {
			unknown++
		}
	}
	for _, o := range w.seen {
		if o.Watch.Through > 0 {
			complete++
		}
		for _, r := range o.Responses {
			events += len(r.Events)
		}
	}
	t.Logf("%d calls in %d groups, %d failed, %d of them may have been applied; %d watches, %d to the end, %d events",
		len(records), len(byGroup(records)), failed, unknown, len(w.seen), complete, events)
	if len(records)-failed < 100 || complete < watchers || events < 100 {
		t.Error("too little for a meaningful check")
	}
}

func faultTime(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv("CLIENTV3_FAULT_SECONDS")
	if s == "" {
		return 20 * time.Second
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n) * time.Second
}

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
