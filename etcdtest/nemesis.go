package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// A Nemesis does random harm to a running cluster, again and again, and always makes it good: it draws a [Fault] and
// the members that it hits, waits, heals them, waits until every member serves again, pauses, and draws the next. What it
// draws follows from the seed alone; only who leads, which matters to some faults, is up to the cluster.
//
// The fields are set before Run and not changed during it.
type Nemesis struct {
	// Cluster is what it acts on.
	Cluster *Cluster
	// Seed makes a run that can be repeated. It is up to the caller to print it.
	Seed uint64
	// Faults are drawn from. Empty: [AllFaults].
	Faults []Fault
	// Victims is how many members a fault hits at most, at the same time. 0 is 1. A cluster of which half is hit has no
	// quorum.
	Victims int
	// MinFault and MaxFault bound how long a fault lasts. 0: 500 ms and 5 s.
	MinFault, MaxFault time.Duration
	// MinPause and MaxPause bound the time from when all members serve again to the next fault. 0: 500 ms and 3 s.
	MinPause, MaxPause time.Duration
	// Log is told each thing done, if it is not nil. [testing.T.Logf] will do.
	Log func(format string, args ...any)
}

// A Fault is one kind of harm. Its functions are called by the goroutine of [Nemesis.Run].
type Fault struct {
	// Name is for logs.
	Name string
	// Possible reports whether the fault can be done to the cluster's members, as it was started. Nil: it always can.
	Possible func(c *Cluster) bool
	// Begin does the harm to a member. It must return soon.
	Begin func(ctx context.Context, m *Member, r *rand.Rand) error
	// Heal undoes it. It is called after each Begin, also after one that failed. Nil: there is nothing to undo.
	Heal func(ctx context.Context, m *Member) error
}

// The faults that there are.
var (
	// FaultKill ends the member's process as a crash does, and restarts it. For child processes.
	FaultKill = Fault{
		Name:     "kill",
		Possible: hasChildren,
		Begin:    func(_ context.Context, m *Member, _ *rand.Rand) error { return m.Kill() },
		Heal:     restart,
	}
	// FaultStop shuts the member down in order, and restarts it.
	FaultStop = Fault{
		Name:  "stop",
		Begin: func(ctx context.Context, m *Member, _ *rand.Rand) error { return m.Stop(ctx) },
		Heal:  restart,
	}
	// FaultFreeze halts the member's process. For child processes.
	FaultFreeze = Fault{
		Name:     "freeze",
		Possible: hasChildren,
		Begin:    func(_ context.Context, m *Member, _ *rand.Rand) error { return m.Freeze() },
		Heal:     func(_ context.Context, m *Member) error { return m.Thaw() },
	}
	// FaultCutClients resets the member's connections to clients, and refuses new ones. It takes [WithProxies].
	FaultCutClients = onProxy("cut clients", (*Proxy).Cut)
	// FaultFreezeClients lets nothing through between the member and its clients. It takes [WithProxies].
	FaultFreezeClients = onProxy("freeze clients", (*Proxy).Freeze)
	// FaultImpairClients makes the member's link to its clients slow and lossy. It takes [WithProxies].
	FaultImpairClients = Fault{
		Name:     "impair clients",
		Possible: hasProxies,
		Begin: func(_ context.Context, m *Member, r *rand.Rand) error {
			ms := func(n int) time.Duration { return time.Duration(r.IntN(n)) * time.Millisecond }
			return m.Proxy().Impair(Impairment{Latency: ms(50), Jitter: ms(50), Loss: r.Float64() / 20})
		},
		Heal: healProxy,
	}
	// FaultCutPeers cuts the member from the others, in one direction or both. It takes [WithPeerProxies], or members in
	// process.
	FaultCutPeers = Fault{
		Name:     "cut peers",
		Possible: hasPeerProxies,
		Begin: func(_ context.Context, m *Member, r *rand.Rand) error {
			return m.CutPeers([]Direction{Both, Inbound, Outbound}[r.IntN(3)])
		},
		Heal: func(_ context.Context, m *Member) error { return m.HealPeers() },
	}
	// FaultMoveLeader makes the member the leader, if it is a voter that can be, and does nothing otherwise.
	FaultMoveLeader = Fault{
		Name: "move leader",
		Begin: func(ctx context.Context, m *Member, _ *rand.Rand) error {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			for i, other := range m.c.Members() {
				if other == m {
					_ = m.c.MoveLeader(ctx, i) // a learner, or the last to know, cannot be
				}
			}
			return nil
		},
	}
)

// AllFaults returns all faults of this package that can be done to the cluster's members.
func AllFaults(c *Cluster) []Fault {
	var all []Fault
	for _, f := range []Fault{
		FaultKill, FaultStop, FaultFreeze, FaultCutClients, FaultFreezeClients, FaultImpairClients, FaultCutPeers,
		FaultMoveLeader,
	} {
		if f.possible(c) {
			all = append(all, f)
		}
	}
	return all
}

func (f Fault) possible(c *Cluster) bool { return f.Possible == nil || f.Possible(c) }

func hasChildren(c *Cluster) bool    { return c.opts.children }
func hasProxies(c *Cluster) bool     { return c.opts.proxies }
func hasPeerProxies(c *Cluster) bool { return c.opts.peerProxies || !c.opts.children }

func onProxy(name string, harm func(*Proxy)) Fault {
	return Fault{
		Name:     name,
		Possible: hasProxies,
		Begin: func(_ context.Context, m *Member, _ *rand.Rand) error {
			harm(m.Proxy())
			return nil
		},
		Heal: healProxy,
	}
}

func restart(ctx context.Context, m *Member) error { return m.Restart(ctx) }

func healProxy(_ context.Context, m *Member) error {
	m.Proxy().Heal()
	return nil
}

// healTimeout bounds how long healing may take, until all members serve.
const healTimeout = time.Minute

// Run does harm until ctx ends. When it returns, everything is healed and all members serve, unless it returns an
// error: of a fault that cannot be done to this cluster, at once; of one that failed; or of a cluster that did not serve
// within a minute. That ctx has ended is no error. No other fault, and no change of membership, may come in between.
func (n *Nemesis) Run(ctx context.Context) error {
	faults := n.Faults
	if len(faults) == 0 {
		faults = AllFaults(n.Cluster)
	}
	for _, f := range faults {
		if !f.possible(n.Cluster) {
			return fmt.Errorf("etcdtest: the cluster was not started for the fault %q", f.Name)
		}
	}
	r := rand.New(rand.NewPCG(n.Seed, 0))
	for {
		if !sleep(ctx, draw(r, n.MinPause, n.MaxPause, 500*time.Millisecond, 3*time.Second)) {
			return nil
		}
		fault := faults[r.IntN(len(faults))]
		members := n.Cluster.Members()
		count := 1 + r.IntN(min(max(n.Victims, 1), len(members)))
		var victims []*Member
		for _, i := range r.Perm(len(members))[:count] {
			victims = append(victims, members[i])
		}
		if err := n.strike(ctx, fault, victims, r); err != nil {
			return fmt.Errorf("etcdtest: fault %q on %s: %w", fault.Name, names(victims), err)
		}
	}
}

// strike does one fault to the victims, and heals it.
func (n *Nemesis) strike(ctx context.Context, fault Fault, victims []*Member, r *rand.Rand) error {
	lasts := draw(r, n.MinFault, n.MaxFault, 500*time.Millisecond, 5*time.Second)
	n.log("%s: %s, for %v", fault.Name, names(victims), lasts)
	var errs []error
	for _, m := range victims {
		errs = append(errs, fault.Begin(ctx, m, r))
	}
	if errors.Join(errs...) == nil {
		sleep(ctx, lasts)
	} else if ctx.Err() != nil {
		errs = nil // Begin was cut short
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healTimeout)
	defer cancel()
	if fault.Heal != nil {
		for _, m := range victims {
			errs = append(errs, fault.Heal(ctx, m))
		}
	}
	errs = append(errs, n.Cluster.waitServing(ctx))
	n.log("healed: %s", names(victims))
	return errors.Join(errs...)
}

// waitServing waits until each voting member has got a linearizable read through, for which it must reach the leader;
// that it knows one does not mean that it does. Those that are down are not waited for.
func (c *Cluster) waitServing(ctx context.Context) error {
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	return each(c.Members(), func(_ int, m *Member) error {
		if srv, _ := m.server(); srv == nil {
			return nil
		}
		err := m.poll(ctx, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			_, err := pb.NewKVClient(m.conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}, KeysOnly: true})
			if rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner) {
				return nil
			}
			return err
		})
		if err != nil {
			return m.explain(fmt.Errorf("etcdtest: waiting until member %s serves: %w", m.name, err))
		}
		return nil
	})
}

func (n *Nemesis) log(format string, args ...any) {
	if n.Log != nil {
		n.Log("nemesis: "+format, args...)
	}
}

func names(members []*Member) string {
	var all []string
	for _, m := range members {
		all = append(all, m.Name())
	}
	return strings.Join(all, ", ")
}

// draw returns a random duration of at least lo and at most hi, or their defaults where they are 0.
func draw(r *rand.Rand, lo, hi, defaultLo, defaultHi time.Duration) time.Duration {
	if hi == 0 {
		hi = max(lo, defaultHi)
	}
	if lo == 0 {
		lo = min(hi, defaultLo)
	}
	return lo + time.Duration(r.Int64N(int64(max(hi-lo, 0))+1))
}

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
