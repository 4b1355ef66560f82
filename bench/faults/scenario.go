package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// The members and their parts: the leader is made one before the load begins.
const (
	members  = 3
	leader   = 0
	follower = 1
	// spared is never hit: the metronome and the last questions go to it.
	spared = 2
)

// etcd's own timings. The kit's default is faster.
const (
	heartbeat = 100 * time.Millisecond
	election  = time.Second
)

// settleTime is what a cluster may take to start, and to be healed.
const settleTime = time.Minute

// scenario is a fault of one member, and how it is undone.
type scenario struct {
	name   string
	victim int
	begin  func(m *etcdtest.Member) error
	heal   func(ctx context.Context, m *etcdtest.Member) error
}

var scenarios = []scenario{
	{"a follower frozen", follower, (*etcdtest.Member).Freeze, thaw},
	{
		"client link to a follower black-holed", follower,
		func(m *etcdtest.Member) error { m.Proxy().Freeze(); return nil },
		func(_ context.Context, m *etcdtest.Member) error { m.Proxy().Heal(); return nil },
	},
	{
		"a follower cut from its peers", follower,
		func(m *etcdtest.Member) error { return m.CutPeers(etcdtest.Both) },
		func(_ context.Context, m *etcdtest.Member) error { return m.HealPeers() },
	},
	{"the leader frozen", leader, (*etcdtest.Member).Freeze, thaw},
	{
		"the leader killed", leader, (*etcdtest.Member).Kill,
		func(ctx context.Context, m *etcdtest.Member) error { return m.Restart(ctx) },
	},
}

func thaw(_ context.Context, m *etcdtest.Member) error { return m.Thaw() }

// phases are the parts of a run, one after the other.
type phases struct{ warmUp, healthy, fault, recovery time.Duration }

// try runs one client through one fault.
func try(ctx context.Context, s scenario, c contender, t phases) (_ result, err error) {
	starting, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	cluster, err := etcdtest.Start(starting, etcdtest.WithMembers(members), etcdtest.WithChildProcesses(),
		etcdtest.WithProxies(), etcdtest.WithPeerProxies(), etcdtest.WithTimings(heartbeat, election))
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	if err := cluster.MoveLeader(starting, leader); err != nil {
		return result{}, err
	}
	beats, err := newMetronome(cluster.Member(spared))
	if err != nil {
		return result{}, err
	}
	defer beats.close()
	l, err := startLoad(starting, beats, func() (*client, error) { return c.dial(cluster.Endpoints()) })
	if err != nil {
		return result{}, fmt.Errorf("start of the load: %w", err)
	}
	defer l.close()

	var w windows
	victim := cluster.Member(s.victim)
	if err := sleep(ctx, t.warmUp); err != nil {
		return result{}, err
	}
	w.healthy = time.Now()
	if err := sleep(ctx, t.healthy); err != nil {
		return result{}, err
	}
	w.fault = time.Now()
	if err := s.begin(victim); err != nil {
		return result{}, fmt.Errorf("fault: %w", err)
	}
	if err := sleep(ctx, t.fault); err != nil {
		return result{}, err
	}
	w.recovery = time.Now()
	healing, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := s.heal(healing, victim); err != nil {
		return result{}, fmt.Errorf("heal: %w", err)
	}
	// From here on, as a member that is restarted takes its time.
	if err := sleep(ctx, t.recovery-time.Since(w.recovery)); err != nil {
		return result{}, err
	}
	w.end = time.Now()

	asking, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := l.finish(asking); err != nil {
		return result{}, err
	}
	res := l.evaluate(w)
	res.scenario, res.client = s.name, c.name
	return res, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
