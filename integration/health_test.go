package integration

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/internal/watchstream/watchcheck"
)

// How the workload of these tests looks, and how long a fault lasts.
const (
	loadCallers  = 12
	loadTimeout  = 3 * time.Second
	loadSessions = 3
	loadPause    = 5 * time.Millisecond
	sessionTTL   = 6 // seconds, less than a fault and what follows it
	healthyTime  = 3 * time.Second
	faultLength  = 7 * time.Second
)

// load is callers that read and write, each with one client for all, and clients with a session and a watch each, while
// something happens to the cluster.
type load struct {
	t       *testing.T
	cli     *clientv3.Client
	machine *standstill
	stop    context.CancelFunc
	wg      sync.WaitGroup
	reads   *tally
	writes  *tally
	watches *tally // each event a success
	lost    *tally // each lost session a failure

	mu      sync.Mutex
	watched []watched // by each watch
}

// watched is what a watch has delivered.
type watched struct {
	start     int64 // the first revision it was to see
	last      int64 // the one it has seen last
	responses []watchcheck.Response
}

// tally is what the callers of one kind saw: calls done and failed, and the longest time without a success.
type tally struct {
	mu     sync.Mutex
	done   int
	failed map[int][]error // by caller
	last   map[int]time.Time
	gap    time.Duration
}

func newTally() *tally { return &tally{failed: make(map[int][]error), last: make(map[int]time.Time)} }

// told counts the end of a call.
func (t *tally) told(caller int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.failed[caller] = append(t.failed[caller], err)
		return
	}
	t.done++
	now := time.Now()
	if last, ok := t.last[caller]; ok {
		t.gap = max(t.gap, now.Sub(last))
	}
	t.last[caller] = now
}

// reset forgets what was counted.
func (t *tally) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done, t.gap = 0, 0
	clear(t.failed)
}

// most returns the largest number of failures of one caller, and one of the errors.
func (t *tally) most() (n int, example error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, errs := range t.failed {
		if len(errs) > n {
			n, example = len(errs), errs[0]
		}
	}
	return n, example
}

// calls returns how many calls were done.
func (t *tally) calls() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done
}

// callers returns how many callers had a failure.
func (t *tally) callers() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.failed)
}

func newLoad(t *testing.T, cli *clientv3.Client) *load {
	t.Helper()
	return &load{
		t: t, cli: cli, machine: watchMachine(t),
		reads: newTally(), writes: newTally(), watches: newTally(), lost: newTally(),
	}
}

// start returns the context under which callers go on until the workload is stopped.
func (l *load) start() context.Context {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.stop = cancel
	l.t.Cleanup(l.end)
	return ctx
}

// startLoad starts the workload and returns when all of it works.
func startLoad(t *testing.T, cluster *etcdtest.Cluster) *load {
	t.Helper()
	l := newLoad(t, newClient(t, cluster))
	ctx := l.start()
	l.watched = make([]watched, loadSessions)
	for i := range loadSessions {
		l.openSession(ctx, i, newClient(t, cluster))
	}
	for i := range loadCallers {
		l.call(ctx, l.reads, i, func(ctx context.Context) error { return second(l.cli.Get(ctx, "load/0")) })
		l.call(ctx, l.writes, i, func(ctx context.Context) error {
			return second(l.cli.Put(ctx, fmt.Sprint("load/", i), time.Now().String()))
		})
	}
	time.Sleep(healthyTime)
	return l
}

// end stops the workload.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

func (l *load) call(ctx context.Context, t *tally, caller int, call func(context.Context) error) {
	l.wg.Go(func() {
		for ctx.Err() == nil {
			short, cancel := context.WithTimeout(context.Background(), loadTimeout)
			t.told(caller, call(short))
			cancel()
			time.Sleep(loadPause)
		}
	})
}

// openSession opens a session and a watch of what the callers write.
func (l *load) openSession(ctx context.Context, i int, cli *clientv3.Client) {
	session, err := concurrency.NewSession(cli, concurrency.WithTTL(sessionTTL))
	if err != nil {
		l.t.Fatal(err)
	}
	events := cli.Watch(ctx, "load/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	l.wg.Go(func() {
		select {
		case <-session.Done():
			l.lost.told(i, context.Canceled)
		case <-ctx.Done():
		}
		session.Orphan()
	})
	l.wg.Go(func() {
		for resp := range events {
			if err := resp.Err(); err != nil {
				l.t.Errorf("a watch ended: %v", err)
			}
			l.record(i, resp)
			if !resp.Created {
				l.watches.told(i, nil)
			}
		}
	})
}

// record keeps what a watch has delivered.
func (l *load) record(i int, resp clientv3.WatchResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &l.watched[i]
	if resp.Created {
		w.start = resp.Header.Revision + 1
	}
	if n := len(resp.Events); n > 0 {
		w.last = resp.Events[n-1].Kv.ModRevision
	}
	w.responses = append(w.responses, watchcheck.Response{
		Revision: resp.Header.Revision, Events: resp.Events, Created: resp.Created, Canceled: resp.Canceled,
		CompactRevision: resp.CompactRevision,
	})
}

// seen reports whether every watch has seen the revision.
func (l *load) seen(rev int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !slices.ContainsFunc(l.watched, func(w watched) bool { return w.last < rev })
}

// checkEvents checks that the watches have delivered, and deliver, every event of the keys that the callers write, once
// and in order.
func (l *load) checkEvents() {
	l.t.Helper()
	ctx := testContext(l.t)
	end, err := l.cli.Put(ctx, "load/end", "")
	if err != nil {
		l.t.Fatal(err)
	}
	for !l.seen(end.Header.Revision) {
		if ctx.Err() != nil {
			l.t.Fatal("a watch does not go on")
		}
		time.Sleep(10 * time.Millisecond)
	}
	var history watchcheck.History
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for resp := range l.cli.Watch(ctx, "load/", clientv3.WithPrefix(), clientv3.WithRev(1)) {
		for _, e := range resp.Events {
			history.Add(e)
		}
		if n := len(resp.Events); n > 0 && resp.Events[n-1].Kv.ModRevision >= end.Header.Revision {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.watched {
		asked := watchcheck.Watch{
			Key: []byte("load/"), RangeEnd: []byte(clientv3.GetPrefixRangeEnd("load/")), Start: w.start,
			Through: end.Header.Revision,
		}
		through := slices.DeleteFunc(slices.Clone(w.responses), func(r watchcheck.Response) bool {
			return len(r.Events) > 0 && r.Events[0].Kv.ModRevision > end.Header.Revision
		})
		if err := watchcheck.Check(&history, asked, through); err != nil {
			l.t.Errorf("a watch from revision %d: %v", w.start, err)
		}
	}
}

// bounds is what a fault may do. Times are promised for a machine that is not busy with other things: they are twice
// what a quiet one shows.
type bounds struct {
	readsFailed, writesFailed   int // per caller
	readGap, writeGap, watchGap time.Duration
	// A leader that was frozen may, in its first moment after, still take itself for the leader, and leases for expired,
	// and have them revoked by the one that leads now. It was seen with etcd 3.5 and 3.7, a second after the thaw. The
	// sessions that this takes are lost to any client, so only those lost before are counted.
	thawsLeader bool
}

// leastWork is the part of a healthy run's work that is done whatever the fault: half of what is promised for the worst.
const leastWork = 0.25

// check compares what the callers saw since the fault began with the bounds. Lost is how many sessions were lost while
// the fault was there.
func (l *load) check(b bounds, healthy, lost int, took time.Duration) {
	l.t.Helper()
	// A call under way is counted, too: the longest gap may not have ended.
	time.Sleep(loadTimeout + time.Second)
	if len(l.watched) > 0 {
		l.checkEvents()
	}
	l.end()
	failedReads, readErr := l.reads.most()
	failedWrites, writeErr := l.writes.most()
	done := l.reads.calls() + l.writes.calls()
	work := float64(done) / float64(healthy) * float64(healthyTime) / float64(took)
	l.t.Logf("reads: at most %d failed, gap %v; writes: %d failed, gap %v; work %.0f %%; sessions lost %d; watch gap %v",
		failedReads, l.reads.gap, failedWrites, l.writes.gap, 100*work, len(l.lost.failed), l.watches.gap)
	for _, st := range l.cli.EndpointStates() {
		l.t.Logf("%s: %s, %s", st.Endpoint, st.Health, st.Reason)
	}
	if l.machine.long(l.t) {
		return
	}
	if failedReads > b.readsFailed {
		l.t.Errorf("a caller had %d reads fail: %v", failedReads, readErr)
	}
	if failedWrites > b.writesFailed {
		l.t.Errorf("a caller had %d writes fail: %v", failedWrites, writeErr)
	}
	if l.reads.gap > b.readGap || l.writes.gap > b.writeGap || l.watches.gap > b.watchGap {
		l.t.Errorf("longest time without success: reads %v, writes %v, watches %v; want at most %v, %v, %v",
			l.reads.gap, l.writes.gap, l.watches.gap, b.readGap, b.writeGap, b.watchGap)
	}
	if work < leastWork {
		l.t.Errorf("%.0f %% of a healthy run's work was done", 100*work)
	}
	if !b.thawsLeader {
		lost = len(l.lost.failed)
	}
	if lost > 0 {
		l.t.Errorf("%d sessions lost", lost)
	}
}

// suffer runs the workload while a fault is there, and checks what the callers saw.
func suffer(t *testing.T, cluster *etcdtest.Cluster, b bounds, begin, end func() error) {
	t.Helper()
	l := startLoad(t, cluster)
	healthy := l.reads.calls() + l.writes.calls()
	for _, tally := range []*tally{l.reads, l.writes, l.watches} {
		tally.reset()
	}
	start := time.Now()
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(faultLength)
	lost := l.lost.callers()
	if err := end(); err != nil {
		t.Fatal(err)
	}
	l.check(b, healthy, lost, time.Since(start))
}

// faulty starts a cluster to which a fault is done.
func faulty(t *testing.T) (cluster *etcdtest.Cluster, leader, follower *etcdtest.Member) {
	t.Helper()
	cluster = etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses(), etcdtest.WithProxies(),
		etcdtest.WithPeerProxies())
	lead, err := cluster.Leader(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return cluster, cluster.Member(lead), cluster.Member((lead + 1) % 3)
}

func TestFrozenFollowerHurtsNobody(t *testing.T) {
	cluster, _, follower := faulty(t)
	suffer(t, cluster, bounds{
		writesFailed: 1, readGap: 3 * time.Second, writeGap: 7 * time.Second, watchGap: 7 * time.Second,
	}, follower.Freeze, follower.Thaw)
}

func TestBlackHoledFollowerHurtsNobody(t *testing.T) {
	cluster, _, follower := faulty(t)
	suffer(t, cluster, bounds{
		writesFailed: 1, readGap: 3 * time.Second, writeGap: 7 * time.Second, watchGap: 7 * time.Second,
	}, func() error { follower.Proxy().Freeze(); return nil }, func() error { follower.Proxy().Heal(); return nil })
}

func TestFollowerCutFromItsPeersHurtsNobody(t *testing.T) {
	cluster, _, follower := faulty(t)
	suffer(t, cluster, bounds{
		writesFailed: 1, readGap: 4 * time.Second, writeGap: 8 * time.Second, watchGap: 7 * time.Second,
	}, func() error { return follower.CutPeers(etcdtest.Both) }, follower.HealPeers)
}

func TestFrozenLeaderHurtsBriefly(t *testing.T) {
	cluster, leader, _ := faulty(t)
	suffer(t, cluster, bounds{
		// When it is frozen and when it is thawed, as it may swallow what takes agreement then.
		readsFailed: 2, writesFailed: 4, readGap: 8 * time.Second, writeGap: 12 * time.Second, watchGap: 10 * time.Second,
		thawsLeader: true,
	}, leader.Freeze, leader.Thaw)
}

func TestKilledLeaderHurtsBriefly(t *testing.T) {
	cluster, leader, _ := faulty(t)
	suffer(t, cluster, bounds{
		writesFailed: 1, readGap: 5 * time.Second, writeGap: 7 * time.Second, watchGap: 5 * time.Second,
	}, leader.Kill, func() error { return leader.Restart(testContext(t)) })
}

// A member whose disk stalls, here one that stands still for 300 ms in every second, is slow, and not left.
func TestStallingMemberIsNotLeft(t *testing.T) {
	cluster, _, follower := faulty(t)
	l := startLoad(t, cluster)
	for range 7 {
		if err := follower.Freeze(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := follower.Thaw(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(700 * time.Millisecond)
	}
	if l.machine.long(t) {
		return
	}
	for _, st := range l.cli.EndpointStates() {
		if st.Health != clientv3.EndpointHealthy || time.Since(st.Since) < 7*time.Second {
			t.Errorf("%s is %s since %v: %s", st.Endpoint, st.Health, time.Since(st.Since), st.Reason)
		}
	}
	l.end()
	if n, err := l.reads.most(); n > 0 {
		t.Errorf("%d reads failed: %v", n, err)
	}
	if n, err := l.writes.most(); n > 0 {
		t.Errorf("%d writes failed: %v", n, err)
	}
}

// counter counts the attempts of a client, those of probes apart.
type counter struct {
	mu              sync.Mutex
	attempts, probe int
}

func (c *counter) watch(cfg *clientv3.Config) {
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string,
		req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		c.mu.Lock()
		if method == healthpb.Health_Check_FullMethodName {
			c.probe++
		} else {
			c.attempts++
		}
		c.mu.Unlock()
		return invoke(ctx, method, req, reply, conn, opts...)
	}))
}

// take returns what was counted since it was last called.
func (c *counter) take() (attempts, probes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	attempts, probes = c.attempts, c.probe
	c.attempts, c.probe = 0, 0
	return attempts, probes
}

// When nobody answers, callers get their own deadlines, nobody storms, and all is well as soon as somebody answers.
func TestAllMembersFrozen(t *testing.T) {
	cluster, _, _ := faulty(t)
	var count counter
	cli := newClient(t, cluster, count.watch)
	l := newLoad(t, cli)
	ctx := l.start()
	for i := range loadCallers {
		l.call(ctx, l.reads, i, func(ctx context.Context) error { return second(cli.Get(ctx, "load/0")) })
		l.call(ctx, l.writes, i, func(ctx context.Context) error { return second(cli.Put(ctx, "load/0", "")) })
	}
	time.Sleep(healthyTime)
	for _, m := range cluster.Members() {
		if err := m.Freeze(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	count.take()
	l.reads.reset()
	l.writes.reset()
	time.Sleep(10 * time.Second)
	attempts, probes := count.take()
	for _, m := range cluster.Members() {
		if err := m.Thaw(); err != nil {
			t.Fatal(err)
		}
	}
	thawed := time.Now()
	for _, tally := range []*tally{l.reads, l.writes} {
		tally.mu.Lock()
		for _, errs := range tally.failed {
			for _, err := range errs {
				if err != context.DeadlineExceeded { //nolint:errorlint // identity is what is promised
					t.Errorf("a caller was told %v", err)
				}
			}
		}
		tally.mu.Unlock()
	}
	t.Logf("%d attempts and %d probes while nobody answered", attempts, probes)
	// Each of the callers makes four calls in that time; a read may be hedged.
	if attempts > 24*4*2 || probes > 3*12 {
		t.Errorf("%d attempts and %d probes while nobody answered", attempts, probes)
	}
	// Every caller has a success after the thaw.
	for {
		late := 0
		for _, tally := range []*tally{l.reads, l.writes} {
			tally.mu.Lock()
			for i := range loadCallers {
				if !tally.last[i].After(thawed) {
					late++
				}
			}
			tally.mu.Unlock()
		}
		if late == 0 {
			break
		}
		if time.Since(thawed) > atOnce {
			t.Errorf("%d callers had no success for %v", late, atOnce)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("full service after %v", time.Since(thawed))
}

// Members are restarted one after the other, as in an upgrade, and only writes may notice.
func TestRollingRestartUnderLoad(t *testing.T) {
	cluster, _, _ := faulty(t)
	l := startLoad(t, cluster)
	ctx := testContext(t)
	for _, m := range cluster.Members() {
		if err := m.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if err := cluster.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	l.checkEvents()
	l.end()
	if l.machine.long(t) {
		return
	}
	if n, err := l.reads.most(); n > 0 {
		t.Errorf("a caller had %d reads fail: %v", n, err)
	}
	if n := len(l.lost.failed); n > 0 {
		t.Errorf("%d sessions lost", n)
	}
	n, err := l.writes.most()
	t.Logf("%d writes of a caller failed (%v), read gap %v, watch gap %v", n, err, l.reads.gap, l.watches.gap)
}

// A member without leader is left by calls and watches. It belongs to another cluster here, whose other members are
// killed: a member refuses and hangs the same way, whoever the others are that the client may go to.
func TestLeaderlessMemberHurtsNobody(t *testing.T) {
	cluster, _, _ := faulty(t)
	other := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses())
	member := other.Member(0)
	cfg := config(t, cluster)
	cfg.Endpoints = []string{member.Endpoint()}
	cli := open(t, cfg)
	l := newLoad(t, cli)
	ctx := l.start()
	events := cli.Watch(ctx, "moved/", clientv3.WithPrefix()) // on the member
	cli.SetEndpoints(append(cluster.Endpoints()[:2], member.Endpoint())...)
	for i := range loadCallers {
		l.call(ctx, l.reads, i, func(ctx context.Context) error { return second(cli.Get(ctx, "load/0")) })
		l.call(ctx, l.writes, i, func(ctx context.Context) error { return second(cli.Put(ctx, fmt.Sprint("load/", i), "")) })
	}
	time.Sleep(healthyTime)
	healthy := l.reads.calls() + l.writes.calls()
	l.reads.reset()
	l.writes.reset()
	start := time.Now()
	for _, m := range other.Members()[1:] {
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := newClient(t, cluster).Put(ctx, "moved/key", ""); err != nil { // where the watch is to go
		t.Fatal(err)
	}
	select {
	case resp := <-events:
		if err := resp.Err(); err != nil {
			t.Fatal(err)
		}
		t.Logf("the watch has moved after %v", time.Since(start))
	case <-time.After(atOnce):
		t.Errorf("the watch has not moved after %v", atOnce)
	}
	time.Sleep(time.Until(start.Add(faultLength)))
	l.check(bounds{
		writesFailed: 1, readGap: 4 * time.Second, writeGap: 8 * time.Second,
	}, healthy, l.lost.callers(), time.Since(start))
}
