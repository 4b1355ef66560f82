package concurrency

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestLockExcludesOtherSessions(t *testing.T) {
	e := newEnv(t)
	s1, s2 := shared.Session(t, e.Client), shared.Session(t, e.Client)
	m1, m2 := concurrency.NewMutex(s1, e.prefix), concurrency.NewMutex(s2, e.prefix)

	shared.Must(t, m1.Lock(e.ctx))
	if want := fmt.Sprintf("%s/%x", e.prefix, s1.Lease()); m1.Key() != want {
		t.Errorf("key %q, want %q", m1.Key(), want)
	}
	if resp, err := e.Get(e.ctx, m1.Key()); err != nil || len(resp.Kvs) != 1 || resp.Kvs[0].Lease != int64(s1.Lease()) ||
		resp.Kvs[0].CreateRevision != m1.Rev() || m1.Header().GetRevision() != m1.Rev() {
		t.Errorf("key is %v (%v), token %d, header %v", resp, err, m1.Rev(), m1.Header())
	}
	if err := m2.TryLock(e.ctx); err != concurrency.ErrLocked { //nolint:errorlint // bare, as documented
		t.Errorf("TryLock of a lock that another session holds: %v", err)
	}
	if got := e.keys(t, e.prefix); len(got) != 1 {
		t.Errorf("keys after TryLock: %q", got)
	}
	waiting := shared.Background(func() error { return m2.Lock(e.ctx) })
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	select {
	case err := <-waiting:
		t.Fatalf("Lock of a lock that another session holds returned %v", err)
	default:
	}
	token := m1.Rev()
	shared.Must(t, m1.Unlock(e.ctx))
	shared.Must(t, shared.Result(e.ctx, t, waiting))
	if m2.Rev() <= token {
		t.Errorf("token %d after %d", m2.Rev(), token)
	}
	shared.Must(t, m2.Unlock(e.ctx))
	if got := e.keys(t, e.prefix); len(got) != 0 {
		t.Errorf("keys in the end: %q", got)
	}
}

func TestLockIsGivenInOrder(t *testing.T) {
	e := newEnv(t)
	const n = 8
	order := make(chan int, n)
	first := concurrency.NewMutex(shared.Session(t, e.Client), e.prefix)
	shared.Must(t, first.Lock(e.ctx))
	var done []<-chan error
	for i := range n {
		m := concurrency.NewMutex(shared.Session(t, e.Client), e.prefix)
		done = append(done, shared.Background(func() error {
			if err := m.Lock(e.ctx); err != nil {
				return err
			}
			order <- i
			return m.Unlock(e.ctx)
		}))
		shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2+i)
	}
	shared.Must(t, first.Unlock(e.ctx))
	for want := range n {
		shared.Must(t, shared.Result(e.ctx, t, done[want]))
		if got := <-order; got != want {
			t.Errorf("session %d had the lock, want %d", got, want)
		}
	}
}

func TestMutexesOfOneSessionAreOneLock(t *testing.T) {
	e := newEnv(t)
	s := shared.Session(t, e.Client)
	m1, m2 := concurrency.NewMutex(s, e.prefix), concurrency.NewMutex(s, e.prefix)
	shared.Must(t, m1.Lock(e.ctx))
	held := m1.Context()
	shared.Must(t, m1.Lock(e.ctx))
	shared.Must(t, m2.Lock(e.ctx))
	shared.Must(t, m2.TryLock(e.ctx))
	if m1.Rev() != m2.Rev() || m1.Context() != held {
		t.Errorf("tokens %d and %d, context the same: %v", m1.Rev(), m2.Rev(), m1.Context() == held)
	}
	// A Lock that fails leaves the lock to who has it.
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	if err := concurrency.NewMutex(s, e.prefix).Lock(ctx); err != context.Canceled { //nolint:errorlint // bare
		t.Errorf("Lock with a context that has ended: %v", err)
	}
	if held.Err() != nil {
		t.Errorf("lock lost: %v", context.Cause(held))
	}
	shared.Must(t, m2.Unlock(e.ctx))
	wantIs(t, awaitEnd(e.ctx, t, held), concurrency.ErrLockLost)
	shared.Must(t, m1.Unlock(e.ctx))
}

func TestUnlockWithoutLock(t *testing.T) {
	e := newEnv(t)
	m := concurrency.NewMutex(shared.Session(t, e.Client), e.prefix)
	if err := m.Unlock(e.ctx); err != concurrency.ErrLockReleased { //nolint:errorlint // bare, as documented
		t.Errorf("Unlock before Lock: %v", err)
	}
	if m.Key() != "" || m.Rev() != 0 || m.Header() != nil || m.Context().Err() == nil {
		t.Errorf("before Lock: key %q, token %d, header %v, context %v", m.Key(), m.Rev(), m.Header(), m.Context())
	}
	if resp, err := e.Txn(e.ctx).If(m.IsOwner()).Commit(); err != nil || resp.Succeeded {
		t.Errorf("IsOwner before Lock: %v, %v", resp, err)
	}
	shared.Must(t, m.Lock(e.ctx))
	if resp, err := e.Txn(e.ctx).If(m.IsOwner()).Commit(); err != nil || !resp.Succeeded {
		t.Errorf("IsOwner while locked: %v, %v", resp, err)
	}
	shared.Must(t, m.Unlock(e.ctx))
	if err := m.Unlock(e.ctx); err != concurrency.ErrLockReleased { //nolint:errorlint // bare, as documented
		t.Errorf("Unlock after Unlock: %v", err)
	}
	// A comparison that is made of the key is one that does not hold, not one that is refused.
	unlocked := clientv3.Compare(clientv3.CreateRevision(m.Key()), "!=", 0)
	if resp, err := e.Txn(e.ctx).If(unlocked).Commit(); err != nil || resp.Succeeded {
		t.Errorf("comparison of the key after Unlock: %v, %v", resp, err)
	}
}

func TestUnlockSparesALaterLockOfTheSession(t *testing.T) {
	e := newEnv(t)
	s := shared.Session(t, e.Client)
	m1, m2 := concurrency.NewMutex(s, e.prefix), concurrency.NewMutex(s, e.prefix)
	shared.Must(t, m1.Lock(e.ctx))
	_, err := e.Delete(e.ctx, m1.Key())
	shared.Must(t, err)
	shared.Must(t, m2.Lock(e.ctx))
	shared.Must(t, m1.Unlock(e.ctx))
	if got := e.keys(t, e.prefix); !slices.Equal(got, []string{m2.Key()}) {
		t.Errorf("keys after the first Unlock: %q", got)
	}
	if _, err := m2.Txn(e.ctx).Commit(); err != nil {
		t.Errorf("the later lock is not held: %v", err)
	}
}

func TestUnlockCanBeRepeated(t *testing.T) {
	e := newEnv(t)
	lose := newLossy()
	s := shared.Session(t, shared.ClientFor(t, e.cluster, lose.option()))
	m1, m2 := concurrency.NewMutex(s, e.prefix), concurrency.NewMutex(s, e.prefix)
	shared.Must(t, m1.Lock(e.ctx))
	lose.next(responses)
	if err := m1.Unlock(e.ctx); err == nil {
		t.Fatal("no error, though the response was lost")
	}
	shared.Must(t, m2.Lock(e.ctx)) // the first Unlock was carried out
	shared.Must(t, m1.Unlock(e.ctx))
	if _, err := m2.Txn(e.ctx).Commit(); err != nil {
		t.Errorf("the later lock is not held: %v", err)
	}
	if err := m1.Unlock(e.ctx); err != concurrency.ErrLockReleased { //nolint:errorlint // bare, as documented
		t.Errorf("Unlock after one that had a success: %v", err)
	}
}

// acquirers are the calls that must not have a success without a key.
var acquirers = map[string]func(*concurrency.Session, string) func(context.Context) error{
	"Lock": func(s *concurrency.Session, prefix string) func(context.Context) error {
		return concurrency.NewMutex(s, prefix).Lock
	},
	"TryLock": func(s *concurrency.Session, prefix string) func(context.Context) error {
		return concurrency.NewMutex(s, prefix).TryLock
	},
	"Campaign": func(s *concurrency.Session, prefix string) func(context.Context) error {
		e := concurrency.NewElection(s, prefix)
		return func(ctx context.Context) error { return e.Campaign(ctx, "value") }
	},
}

func TestNoSuccessAfterTheSession(t *testing.T) {
	for name, acquirer := range acquirers {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)

			s := shared.Session(t, e.Client)
			shared.Must(t, s.Close())
			wantIs(t, acquirer(s, e.prefix)(e.ctx), concurrency.ErrSessionExpired)

			s = shared.Session(t, e.Client)
			_, err := e.Revoke(e.ctx, s.Lease())
			shared.Must(t, err)
			wantIs(t, acquirer(s, e.prefix)(e.ctx), concurrency.ErrSessionExpired)
			wantIs(t, awaitEnd(e.ctx, t, s.Ctx()), concurrency.ErrSessionExpired, rpctypes.ErrLeaseNotFound)
			wantIs(t, acquirer(s, e.prefix)(e.ctx), concurrency.ErrSessionExpired)

			// The lease ends before the response is there.
			slow := newLossy()
			s = shared.Session(t, shared.ClientFor(t, e.cluster, slow.option()), concurrency.WithTTL(1))
			slow.next(func(context.Context) error {
				_, err := e.Revoke(e.ctx, s.Lease())
				shared.Must(t, err)
				<-s.Done()
				return nil
			})
			wantIs(t, acquirer(s, e.prefix)(e.ctx), concurrency.ErrSessionExpired)

			cli := shared.ClientFor(t, e.cluster)
			s = shared.Session(t, cli)
			shared.Must(t, cli.Close())
			wantIs(t, acquirer(s, e.prefix)(e.ctx), context.Canceled)

			if got := e.keys(t, e.prefix); len(got) != 0 {
				t.Errorf("keys in the end: %q", got)
			}
		})
	}
}

// An orphaned session's lease lives on, and with it what can be done under it: etcd's lock service works so.
func TestLockOfAnOrphanedSession(t *testing.T) {
	e := newEnv(t)
	s := shared.Session(t, e.Client)
	s.Orphan()
	m := concurrency.NewMutex(s, e.prefix)
	shared.Must(t, m.Lock(e.ctx))
	if _, err := m.Txn(e.ctx).Commit(); err != nil {
		t.Error(err)
	}
	held := m.Context()
	shared.Must(t, s.Close())
	wantIs(t, awaitEnd(e.ctx, t, held), concurrency.ErrSessionExpired)
}

func TestWaiterFailsWithItsSession(t *testing.T) {
	faults := map[string]struct {
		opts  []concurrency.SessionOption
		fault func(e *env, s *concurrency.Session) error
	}{
		"closed": {fault: func(_ *env, s *concurrency.Session) error { return s.Close() }},
		"lease revoked": {fault: func(e *env, s *concurrency.Session) error {
			_, err := e.Revoke(e.ctx, s.Lease())
			return err
		}},
		"key deleted": {fault: func(e *env, s *concurrency.Session) error {
			_, err := e.Delete(e.ctx, fmt.Sprintf("%s/%x", e.prefix, s.Lease()))
			return err
		}},
		"orphaned": {
			opts:  []concurrency.SessionOption{concurrency.WithTTL(1)},
			fault: func(_ *env, s *concurrency.Session) error { s.Orphan(); return nil },
		},
	}
	for _, call := range []string{"Lock", "Campaign"} {
		for name, f := range faults {
			t.Run(call+"/"+name, func(t *testing.T) {
				t.Parallel()
				e := newEnv(t)
				holder := concurrency.NewMutex(shared.Session(t, e.Client), e.prefix)
				shared.Must(t, holder.Lock(e.ctx))
				s := shared.Session(t, e.Client, f.opts...)
				waiting := shared.Background(func() error { return acquirers[call](s, e.prefix)(e.ctx) })
				shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
				shared.Must(t, f.fault(e, s))
				// The holder does not leave meanwhile.
				err := shared.Result(e.ctx, t, waiting)
				if err != concurrency.ErrSessionExpired { //nolint:errorlint // bare, as documented
					t.Errorf("the waiter got %v", err)
				}
			})
		}
	}
}

func TestLockThatFailsLeavesNoKey(t *testing.T) {
	for _, call := range []string{"Lock", "Campaign"} {
		t.Run(call, func(t *testing.T) {
			e := newEnv(t)
			holder := concurrency.NewMutex(shared.Session(t, e.Client), e.prefix)
			shared.Must(t, holder.Lock(e.ctx))
			lossy := newLossy()
			s := shared.Session(t, shared.ClientFor(t, e.cluster, lossy.option()))
			fails := func(fault string, ctx context.Context, want error) {
				t.Helper()
				if err := acquirers[call](s, e.prefix)(ctx); err != want { //nolint:errorlint // bare, as documented
					t.Errorf("%s: %v, want %v", fault, err, want)
				}
				if got := e.keys(t, e.prefix); !slices.Equal(got, []string{holder.Key()}) {
					t.Errorf("%s: keys left: %q", fault, got)
				}
			}

			ctx, cancel := context.WithTimeout(e.ctx, 50*time.Millisecond)
			defer cancel()
			fails("deadline", ctx, context.DeadlineExceeded)

			ctx, cancel = context.WithCancel(e.ctx)
			stop := context.AfterFunc(e.ctx, cancel)
			defer stop()
			go func() {
				shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
				cancel()
			}()
			fails("cancelled", ctx, context.Canceled)
			fails("cancelled before", ctx, context.Canceled)

			// The key is written, but the response does not come before the end of the context.
			ctx, cancel = context.WithCancel(e.ctx)
			defer cancel()
			lossy.next(func(context.Context) error {
				cancel()
				return context.Canceled
			})
			fails("response lost", ctx, context.Canceled)

			// A second one of the same session still waits for the key that the first one has made.
			first, cancelFirst := context.WithCancel(e.ctx)
			second, cancelSecond := context.WithCancel(e.ctx)
			one := shared.Background(func() error { return acquirers[call](s, e.prefix)(first) })
			shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
			await := lossy.count()
			two := shared.Background(func() error { return acquirers[call](s, e.prefix)(second) })
			await(e.ctx, t, 2) // it has found the key, and who is before it
			cancelFirst()
			wantIs(t, shared.Result(e.ctx, t, one), context.Canceled)
			if got := e.keys(t, e.prefix); len(got) != 2 {
				t.Errorf("keys while another one waits: %q", got)
			}
			cancelSecond()
			wantIs(t, shared.Result(e.ctx, t, two), context.Canceled)
			if got := e.keys(t, e.prefix); !slices.Equal(got, []string{holder.Key()}) {
				t.Errorf("keys after the last one: %q", got)
			}
		})
	}
}

// A request that was given up may be carried out later: its member was frozen, say.
func TestKeyOfALateRequestIsDeleted(t *testing.T) {
	e := newEnv(t)
	late := newLossy()
	s := shared.Session(t, shared.ClientFor(t, e.cluster, late.option()))
	m := concurrency.NewMutex(s, e.prefix)

	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	release := late.nextLate(cancel)
	wantIs(t, m.Lock(ctx), context.Canceled)
	watch := e.Watch(e.ctx, e.prefix, clientv3.WithPrefix())
	shared.Must(t, release())
	for _, want := range []mvccpb.Event_EventType{clientv3.EventTypePut, clientv3.EventTypeDelete} {
		if resp := <-watch; len(resp.Events) != 1 || resp.Events[0].Type != want {
			t.Fatalf("event %v, want a %v", resp.Events, want)
		}
	}

	// One that comes while the session has the lock is not there to be deleted.
	ctx, cancel = context.WithCancel(e.ctx)
	defer cancel()
	release = late.nextLate(cancel)
	wantIs(t, m.Lock(ctx), context.Canceled)
	shared.Must(t, m.Lock(e.ctx))
	shared.Must(t, release())
	if _, err := m.Txn(e.ctx).Commit(); err != nil {
		t.Errorf("the lock was lost: %v", err)
	}
	shared.Must(t, m.Unlock(e.ctx))
	if got := e.keys(t, e.prefix); len(got) != 0 {
		t.Errorf("keys in the end: %q", got)
	}
}

func TestLockSurvivesALostResponse(t *testing.T) {
	e := newEnv(t)
	lossy := newLossy()
	s := shared.Session(t, shared.ClientFor(t, e.cluster, lossy.option()))
	m := concurrency.NewMutex(s, e.prefix)
	lossy.next(responses)
	shared.Must(t, m.Lock(e.ctx))
	if _, err := m.Txn(e.ctx).Commit(); err != nil {
		t.Error(err)
	}
	shared.Must(t, m.Unlock(e.ctx))
	if got := e.keys(t, e.prefix); len(got) != 0 {
		t.Errorf("keys in the end: %q", got)
	}
}
