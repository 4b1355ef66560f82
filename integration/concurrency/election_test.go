package concurrency

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestElection(t *testing.T) {
	e := newEnv(t)
	s1, s2 := shared.Session(t, e.Client), shared.Session(t, e.Client)
	e1, e2 := concurrency.NewElection(s1, e.prefix), concurrency.NewElection(s2, e.prefix)
	leads := func(who *concurrency.Election, value string) {
		t.Helper()
		resp, err := e2.Leader(e.ctx)
		if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Key) != who.Key() ||
			resp.Kvs[0].CreateRevision != who.Rev() || string(resp.Kvs[0].Value) != value {
			t.Errorf("leader is %v (%v), want %s with %s", resp, err, who.Key(), value)
		}
	}

	if _, err := e1.Leader(e.ctx); err != concurrency.ErrElectionNoLeader { //nolint:errorlint // bare, as documented
		t.Errorf("Leader without one: %v", err)
	}
	if err := e1.Proclaim(e.ctx, "x"); err != concurrency.ErrElectionNotLeader { //nolint:errorlint // bare
		t.Errorf("Proclaim without leading: %v", err)
	}
	shared.Must(t, e1.Resign(e.ctx))
	if e1.Key() != "" || e1.Rev() != 0 || e1.Header() != nil {
		t.Errorf("key %q, revision %d, header %v", e1.Key(), e1.Rev(), e1.Header())
	}

	shared.Must(t, e1.Campaign(e.ctx, "a"))
	if want := fmt.Sprintf("%s/%x", e.prefix, s1.Lease()); e1.Key() != want || e1.Header().GetRevision() != e1.Rev() {
		t.Errorf("key %q, want %q, header %v, revision %d", e1.Key(), want, e1.Header(), e1.Rev())
	}
	leads(e1, "a")
	shared.Must(t, e1.Proclaim(e.ctx, "b"))
	leads(e1, "b")
	held := e1.Context()
	shared.Must(t, e1.Campaign(e.ctx, "c"))
	leads(e1, "c")
	shared.Must(t, concurrency.NewElection(s1, e.prefix).Campaign(e.ctx, "d"))
	leads(e1, "d")
	if held.Err() != nil || e1.Context() != held {
		t.Errorf("leadership lost by a second campaign: %v", context.Cause(held))
	}

	waiting := shared.Background(func() error { return e2.Campaign(e.ctx, "e") })
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	leads(e1, "d")
	shared.Must(t, e1.Resign(e.ctx))
	shared.Must(t, shared.Result(e.ctx, t, waiting))
	leads(e2, "e")
	if err := e1.Proclaim(e.ctx, "x"); err != concurrency.ErrElectionNotLeader { //nolint:errorlint // bare
		t.Errorf("Proclaim after Resign: %v", err)
	}

	_, err := e.Delete(e.ctx, e2.Key())
	shared.Must(t, err)
	if err := e2.Proclaim(e.ctx, "x"); err != concurrency.ErrElectionNotLeader { //nolint:errorlint // bare
		t.Errorf("Proclaim after the key is gone: %v", err)
	}
	if e2.Key() != "" || e2.Rev() == 0 || e2.Context().Err() == nil {
		t.Errorf("after the key is gone: key %q, revision %d, context %v", e2.Key(), e2.Rev(), e2.Context())
	}
	shared.Must(t, e2.Resign(e.ctx))
	if got := e.keys(t, e.prefix); len(got) != 0 {
		t.Errorf("keys in the end: %q", got)
	}
}

func TestResignEndsACampaign(t *testing.T) {
	e := newEnv(t)
	leader := concurrency.NewElection(shared.Session(t, e.Client), e.prefix)
	shared.Must(t, leader.Campaign(e.ctx, "a"))
	lossy := newLossy()
	el := concurrency.NewElection(shared.Session(t, shared.ClientFor(t, e.cluster, lossy.option())), e.prefix)
	await := lossy.count()
	waiting := shared.Background(func() error { return el.Campaign(e.ctx, "b") })
	await(e.ctx, t, 2)                      // its key is there, and it knows who is before it
	shared.Must(t, el.Proclaim(e.ctx, "c")) // candidates may
	shared.Must(t, el.Resign(e.ctx))
	if err := shared.Result(e.ctx, t, waiting); err != concurrency.ErrElectionNotLeader { //nolint:errorlint // bare
		t.Errorf("Campaign after Resign: %v", err)
	}
	if got := e.keys(t, e.prefix); len(got) != 1 {
		t.Errorf("keys in the end: %q", got)
	}
}

func TestResignSparesALaterLeadership(t *testing.T) {
	e := newEnv(t)
	lossy := newLossy()
	s := shared.Session(t, shared.ClientFor(t, e.cluster, lossy.option()))
	e1, e2 := concurrency.NewElection(s, e.prefix), concurrency.NewElection(s, e.prefix)
	shared.Must(t, e1.Campaign(e.ctx, "a"))
	lossy.next(responses)
	if err := e1.Resign(e.ctx); err == nil {
		t.Fatal("no error, though the response was lost")
	}
	shared.Must(t, e2.Campaign(e.ctx, "b"))
	shared.Must(t, e1.Resign(e.ctx))
	if _, err := e2.Txn(e.ctx).Commit(); err != nil {
		t.Errorf("the later leadership is gone: %v", err)
	}
}

func TestResumeElection(t *testing.T) {
	e := newEnv(t)
	s := shared.Session(t, e.Client)
	before := concurrency.NewElection(s, e.prefix)
	shared.Must(t, before.Campaign(e.ctx, "a"))
	// As if another program: it has the lease, the key and the revision.
	s2 := shared.Session(t, shared.ClientFor(t, e.cluster), concurrency.WithLease(s.Lease()))
	after := concurrency.ResumeElection(s2, e.prefix, before.Key(), before.Rev())
	shared.Must(t, after.Proclaim(e.ctx, "b"))
	if resp, err := after.Leader(e.ctx); err != nil || string(resp.Kvs[0].Value) != "b" {
		t.Errorf("leader is %v, %v", resp, err)
	}
	shared.Must(t, after.Campaign(e.ctx, "c"))
	if after.Rev() != before.Rev() || after.Key() != before.Key() {
		t.Errorf("key %q in %d, want %q in %d", after.Key(), after.Rev(), before.Key(), before.Rev())
	}
	held := after.Context()
	shared.Must(t, after.Resign(e.ctx))
	wantIs(t, awaitEnd(e.ctx, t, held), concurrency.ErrElectionNotLeader)
	if err := before.Proclaim(e.ctx, "d"); err != concurrency.ErrElectionNotLeader { //nolint:errorlint // bare
		t.Errorf("Proclaim after the other's Resign: %v", err)
	}
}

func TestCandidateSucceedsALeaderThatDies(t *testing.T) {
	e := newEnv(t)
	dying := shared.Session(t, e.Client, concurrency.WithTTL(1))
	shared.Must(t, concurrency.NewElection(dying, e.prefix).Campaign(e.ctx, "a"))
	el := concurrency.NewElection(shared.Session(t, e.Client), e.prefix)
	waiting := shared.Background(func() error { return el.Campaign(e.ctx, "b") })
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	dying.Orphan()
	shared.Must(t, shared.Result(e.ctx, t, waiting))
	if _, err := el.Txn(e.ctx).Commit(); err != nil {
		t.Error(err)
	}
}

// A key that does not belong to the election, since its name only begins like it, is no candidate.
func TestElectionLooksAtItsOwnKeysOnly(t *testing.T) {
	e := newEnv(t)
	_, err := e.Put(e.ctx, e.prefix+"a", "value")
	shared.Must(t, err)
	s := shared.Session(t, e.Client)
	el := concurrency.NewElection(s, e.prefix)
	shared.Must(t, el.Campaign(e.ctx, "b"))
	ctx, cancel := context.WithTimeout(e.ctx, 5*time.Second)
	defer cancel()
	if resp := <-concurrency.ResumeElection(s, e.prefix, el.Key(), el.Rev()).Observe(ctx); resp == nil ||
		string(resp.Kvs[0].Key) != el.Key() {
		t.Errorf("observed %v", resp)
	}
	_, err = e.Delete(e.ctx, e.prefix, clientv3.WithPrefix())
	shared.Must(t, err)
}
