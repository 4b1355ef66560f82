package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEveryFaultIsHealed(t *testing.T) {
	t.Parallel()
	c := Run(t, WithMembers(3), WithChildProcesses(), WithProxies(), WithPeerProxies())
	if n := len(AllFaults(c)); n != 8 {
		t.Errorf("%d faults can be done to a cluster with everything, want 8", n)
	}
	for _, fault := range AllFaults(c) {
		ctx, cancel := context.WithCancel(testContext(t))
		heal, healed := fault.Heal, 0
		fault.Heal = func(ctx context.Context, m *Member) error {
			healed++
			cancel() // one round is enough
			if heal == nil {
				return nil
			}
			return heal(ctx, m)
		}
		n := Nemesis{
			Cluster: c, Seed: 1, Faults: []Fault{fault}, Victims: 3, Log: t.Logf,
			MinPause: 1, MaxPause: 1, MinFault: 1, MaxFault: 300 * time.Millisecond,
		}
		if err := n.Run(ctx); err != nil || healed == 0 {
			t.Fatalf("%s: %d healed, error %v", fault.Name, healed, err)
		}
		for _, m := range c.Members() {
			conn := dialEndpoint(t, m.Endpoint(), nil)
			if err := put(testContext(t), conn, "key", fault.Name); err != nil {
				t.Errorf("after %q: member %s: %v", fault.Name, m.Name(), err)
			}
		}
	}
}

// recorder is a fault that only notes what is done.
type recorder struct{ done []string }

func (r *recorder) fault(name string, begin error) Fault {
	return Fault{
		Name: name,
		Begin: func(_ context.Context, m *Member, rnd *rand.Rand) error {
			r.done = append(r.done, fmt.Sprint(name, " ", m.Name(), " ", rnd.IntN(100)))
			return begin
		},
		Heal: func(_ context.Context, m *Member) error {
			r.done = append(r.done, fmt.Sprint("heal ", m.Name()))
			return nil
		},
	}
}

func TestNemesisIsRepeatable(t *testing.T) {
	t.Parallel()
	c := Run(t, WithMembers(3))
	run := func(seed uint64) []string {
		ctx, cancel := context.WithCancel(testContext(t))
		defer cancel()
		var rec recorder
		last := rec.fault("b", nil)
		heal := last.Heal
		last.Heal = func(ctx context.Context, m *Member) error {
			if len(rec.done) > 60 {
				cancel()
			}
			return heal(ctx, m)
		}
		n := Nemesis{
			Cluster: c, Seed: seed, Faults: []Fault{rec.fault("a", nil), last}, Victims: 2,
			MinPause: 1, MaxPause: 2, MinFault: 1, MaxFault: 2,
		}
		if err := n.Run(ctx); err != nil {
			t.Fatal(err)
		}
		return rec.done[:60]
	}
	a, b, other := run(1), run(1), run(2)
	if !slices.Equal(a, b) {
		t.Errorf("the same seed gave %q and %q", a, b)
	}
	if slices.Equal(a, other) {
		t.Errorf("two seeds gave the same: %q", a)
	}
	all := strings.Join(append(a, other...), ",")
	for _, part := range []string{"a m0", "a m1", "a m2", "b m0", "b m1", "b m2"} {
		if !strings.Contains(all, part) {
			t.Errorf("%q is never done: %q", part, all)
		}
	}
}

func TestNemesisHealsWhatFailed(t *testing.T) {
	t.Parallel()
	c := Run(t)
	boom := errors.New("boom")
	var rec recorder
	n := Nemesis{Cluster: c, Faults: []Fault{rec.fault("a", boom)}, MinPause: 1, MaxPause: 1}
	if err := n.Run(testContext(t)); !errors.Is(err, boom) {
		t.Errorf("error %v, want the fault's", err)
	}
	if len(rec.done) != 2 || rec.done[1] != "heal m0" {
		t.Errorf("done: %q", rec.done)
	}
}

func TestNemesisHealsWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	c := Run(t)
	var rec recorder
	ctx, cancel := context.WithCancel(testContext(t))
	fault := rec.fault("a", nil)
	begin := fault.Begin
	fault.Begin = func(ctx context.Context, m *Member, r *rand.Rand) error {
		defer cancel()
		return begin(ctx, m, r)
	}
	n := Nemesis{Cluster: c, Faults: []Fault{fault}, MinPause: 1, MaxPause: 1, MinFault: time.Hour}
	if err := n.Run(ctx); err != nil {
		t.Error(err)
	}
	if len(rec.done) != 2 || rec.done[1] != "heal m0" {
		t.Errorf("done: %q", rec.done)
	}
}

func TestNemesisRefusesFaultsThatCannotBe(t *testing.T) {
	t.Parallel()
	c := Run(t) // in process, without proxies
	for _, f := range []Fault{FaultKill, FaultFreeze, FaultCutClients, FaultFreezeClients, FaultImpairClients} {
		n := Nemesis{Cluster: c, Faults: []Fault{f}}
		if err := n.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), f.Name) {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
	for _, f := range AllFaults(c) {
		if !f.possible(c) {
			t.Errorf("%s is among all faults", f.Name)
		}
	}
}
