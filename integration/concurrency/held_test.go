package concurrency

import (
	"context"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

// holding is what locks and leaderships have in common while they last.
type holding interface {
	Context() context.Context
	Txn(ctx context.Context) clientv3.Txn
	Key() string
	Rev() int64
}

// holder takes a lock, or a leadership, and returns it with the function that gives it up.
type holder func(ctx context.Context, t testing.TB, s *concurrency.Session, prefix string) (
	h holding, giveUp func(context.Context) error)

// holders are the ways to hold something, with what the causes of a loss are, and of giving it up.
var holders = map[string]struct {
	hold           holder
	lost, released error
}{
	"Mutex": {
		lost: concurrency.ErrLockLost, released: concurrency.ErrLockReleased,
		hold: func(ctx context.Context, t testing.TB, s *concurrency.Session, prefix string) (
			holding, func(context.Context) error,
		) {
			m := concurrency.NewMutex(s, prefix)
			shared.Must(t, m.Lock(ctx))
			return m, m.Unlock
		},
	},
	"Election": {
		lost: concurrency.ErrElectionNotLeader, released: concurrency.ErrElectionNotLeader,
		hold: func(ctx context.Context, t testing.TB, s *concurrency.Session, prefix string) (
			holding, func(context.Context) error,
		) {
			e := concurrency.NewElection(s, prefix)
			shared.Must(t, e.Campaign(ctx, "value"))
			return e, e.Resign
		},
	},
}

func TestContextEndsWithTheLock(t *testing.T) {
	for name, kind := range holders {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			cli := shared.ClientFor(t, e.cluster)
			s := shared.Session(t, cli)

			h, giveUp := kind.hold(e.ctx, t, s, e.prefix)
			held := h.Context()
			if held.Err() != nil {
				t.Fatalf("ended while held: %v", context.Cause(held))
			}
			shared.Must(t, giveUp(e.ctx))
			wantIs(t, awaitEnd(e.ctx, t, held), kind.released)

			h, _ = kind.hold(e.ctx, t, s, e.prefix)
			held = h.Context()
			_, err := e.Delete(e.ctx, h.Key())
			shared.Must(t, err)
			wantIs(t, awaitEnd(e.ctx, t, held), kind.lost)
			if s.Ctx().Err() != nil {
				t.Errorf("the session has ended: %v", context.Cause(s.Ctx()))
			}

			h, _ = kind.hold(e.ctx, t, s, e.prefix)
			held = h.Context()
			_, err = e.Revoke(e.ctx, s.Lease())
			shared.Must(t, err)
			// The watch is the first to know.
			wantIs(t, awaitEnd(e.ctx, t, held), kind.lost)

			s = shared.Session(t, cli)
			h, _ = kind.hold(e.ctx, t, s, e.prefix)
			held = h.Context()
			shared.Must(t, s.Close())
			wantIs(t, awaitEnd(e.ctx, t, held), concurrency.ErrSessionExpired)

			s = shared.Session(t, cli, concurrency.WithTTL(1))
			h, _ = kind.hold(e.ctx, t, s, e.prefix)
			held = h.Context()
			s.Orphan()
			if held.Err() != nil {
				t.Errorf("ended with the renewals, before the lease: %v", context.Cause(held))
			}
			if err := awaitEnd(e.ctx, t, held); err == nil {
				t.Error("no cause")
			}

			s = shared.Session(t, cli)
			h, _ = kind.hold(e.ctx, t, s, e.prefix)
			held = h.Context()
			shared.Must(t, cli.Close())
			wantIs(t, awaitEnd(e.ctx, t, held), context.Canceled)
		})
	}
}

func TestContextOfALockThatWasLostBefore(t *testing.T) {
	e := newEnv(t)
	m := concurrency.NewMutex(shared.Session(t, e.Client), e.prefix)
	shared.Must(t, m.Lock(e.ctx))
	_, err := e.Delete(e.ctx, m.Key())
	shared.Must(t, err)
	resp, err := e.Put(e.ctx, e.prefix+"-other", "")
	shared.Must(t, err)
	// The revision in which the key was deleted is compacted, so a watch cannot tell.
	_, err = e.Compact(e.ctx, resp.Header.Revision)
	shared.Must(t, err)
	wantIs(t, awaitEnd(e.ctx, t, m.Context()), concurrency.ErrLockLost)
}

// Cut off from the cluster a holder knows by the clock when its lease is over: no later than others can have the lock.
func TestContextEndsWithoutTheCluster(t *testing.T) {
	const ttl = 2
	for name, orphaned := range map[string]bool{"renewed": false, "orphaned": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Run(t, etcdtest.WithProxies())
			ctx := shared.Context(t)
			cli := shared.ClientFor(t, cluster)
			s, err := concurrency.NewSession(cli, concurrency.WithTTL(ttl))
			shared.Must(t, err)
			m := concurrency.NewMutex(s, "lock")
			shared.Must(t, m.Lock(ctx))
			held := m.Context()
			if orphaned {
				s.Orphan()
			}
			cut := time.Now()
			cluster.Member(0).Proxy().Freeze()
			wantIs(t, awaitEnd(ctx, t, held), concurrency.ErrSessionExpired)
			if took := time.Since(cut); took > (ttl+1)*time.Second {
				t.Errorf("the lock was known to be lost after %v, its time to live is %d s", took, ttl)
			}
			_ = cli.Close() // the member would not hear of a revocation
			_ = s.Close()
		})
	}
}

func TestTxnIsCarriedOutOnlyWhileHeld(t *testing.T) {
	for name, kind := range holders {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			s := shared.Session(t, e.Client)
			h, giveUp := kind.hold(e.ctx, t, s, e.prefix+"/lock")
			data := e.prefix + "/data"
			put := clientv3.OpPut(data, "1")
			absent := clientv3.Compare(clientv3.Version(data), "=", 0)

			resp, err := h.Txn(e.ctx).If(absent).Then(put).Commit()
			if err != nil || !resp.Succeeded || resp.Header.GetClusterId() == 0 || resp.Responses[0].GetResponsePut() == nil {
				t.Fatalf("while held: %v, %v", resp, err)
			}
			resp, err = h.Txn(e.ctx).If(absent).Then(put).Else(clientv3.OpGet(data)).Commit()
			if err != nil || resp.Succeeded || string(resp.Responses[0].GetResponseRange().Kvs[0].Value) != "1" {
				t.Errorf("while held, the condition failing: %v, %v", resp, err)
			}
			_, err = e.Delete(e.ctx, h.Key())
			shared.Must(t, err)
			later, _ := kind.hold(e.ctx, t, shared.Session(t, e.Client), e.prefix+"/lock")
			_, err = h.Txn(e.ctx).Then(clientv3.OpPut(data, "2")).Commit()
			wantIs(t, err, kind.lost)
			wantIs(t, context.Cause(h.Context()), kind.lost)
			shared.Must(t, giveUp(e.ctx))
			_, err = h.Txn(e.ctx).Then(clientv3.OpPut(data, "2")).Commit()
			wantIs(t, err, kind.released)
			if _, err := later.Txn(e.ctx).Commit(); err != nil {
				t.Errorf("the later holder: %v", err)
			}
			if resp, err := e.Get(e.ctx, data); err != nil || string(resp.Kvs[0].Value) != "1" {
				t.Errorf("data is %v, %v", resp, err)
			}
		})
	}
}

func TestTxnOfAWaiterIsNotCarriedOut(t *testing.T) {
	e := newEnv(t)
	shared.Must(t, concurrency.NewMutex(shared.Session(t, e.Client), e.prefix).Lock(e.ctx))
	m := concurrency.NewMutex(shared.Session(t, e.Client), e.prefix)
	ctx, cancel := context.WithCancel(e.ctx)
	waiting := shared.Background(func() error { return m.Lock(ctx) })
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	_, err := m.Txn(e.ctx).Commit()
	wantIs(t, err, concurrency.ErrLockReleased)
	if resp, err := e.Txn(e.ctx).If(m.IsOwner()).Commit(); err != nil || resp.Succeeded {
		t.Errorf("IsOwner of a waiter: %v, %v", resp, err)
	}
	if m.Rev() != 0 || m.Context().Err() == nil {
		t.Errorf("token %d and context %v of a waiter", m.Rev(), m.Context())
	}
	cancel()
	wantIs(t, shared.Result(e.ctx, t, waiting), context.Canceled)
}

func TestSession(t *testing.T) {
	e := newEnv(t)
	granted := func(s *concurrency.Session) int64 {
		resp, err := e.TimeToLive(e.ctx, s.Lease())
		shared.Must(t, err)
		return resp.GrantedTTL
	}
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(e.ctx, key{}, "value"))
	s := shared.Session(t, e.Client)
	if got := granted(s); got != 60 || s.Client() != e.Client || s.Ctx().Err() != nil {
		t.Errorf("time to live %d, context %v", got, s.Ctx())
	}
	if got := granted(shared.Session(t, e.Client, concurrency.WithTTL(0))); got != 60 {
		t.Errorf("time to live %d without a good one", got)
	}
	bound := shared.Session(t, e.Client, concurrency.WithTTL(7), concurrency.WithContext(ctx))
	if got := granted(bound); got != 7 || bound.Ctx().Value(key{}) != "value" {
		t.Errorf("time to live %d, value %v", got, bound.Ctx().Value(key{}))
	}
	cancel()
	<-bound.Done()
	wantIs(t, context.Cause(bound.Ctx()), context.Canceled)
	if err := bound.Close(); err != context.Canceled { //nolint:errorlint // bare
		t.Errorf("Close after the context's end: %v", err)
	}
	if got := granted(bound); got != 7 {
		t.Errorf("the lease was revoked")
	}

	again := shared.Session(t, e.Client, concurrency.WithLease(s.Lease()))
	if again.Lease() != s.Lease() {
		t.Errorf("lease %x, want %x", again.Lease(), s.Lease())
	}
	again.Orphan()
	<-again.Done()
	wantIs(t, context.Cause(again.Ctx()), context.Canceled)
	if got := granted(s); got != 60 {
		t.Errorf("the lease is gone after Orphan")
	}
	shared.Must(t, s.Close())
	<-s.Done()
	if resp, err := e.TimeToLive(e.ctx, s.Lease()); err != nil || resp.TTL != -1 {
		t.Errorf("after Close: %v, %v", resp, err)
	}

	none := shared.Session(t, e.Client, concurrency.WithLease(s.Lease()))
	wantIs(t, awaitEnd(e.ctx, t, none.Ctx()), concurrency.ErrSessionExpired, rpctypes.ErrLeaseNotFound)

	cli := shared.ClientFor(t, e.cluster)
	s = shared.Session(t, cli)
	shared.Must(t, cli.Close())
	<-s.Done()
	wantIs(t, context.Cause(s.Ctx()), context.Canceled)
	if _, err := concurrency.NewSession(cli); err != context.Canceled { //nolint:errorlint // bare
		t.Errorf("NewSession on a closed client: %v", err)
	}
}

func TestLocker(t *testing.T) {
	e := newEnv(t)
	l := concurrency.NewLocker(shared.Session(t, e.Client), e.prefix)
	l.Lock()
	if got := e.keys(t, e.prefix); len(got) != 1 {
		t.Errorf("keys while locked: %q", got)
	}
	l.Unlock()
	defer func() {
		if err, _ := recover().(error); err != concurrency.ErrLockReleased { //nolint:errorlint // bare
			t.Errorf("Unlock without a lock panics with %v", err)
		}
	}()
	l.Unlock()
}
