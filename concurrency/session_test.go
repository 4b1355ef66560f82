package concurrency

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	v3 "github.com/seed-d18e112a/clientv3"
)

// newSession returns a session with a time to live of 10 s.
func newSession(t *testing.T, client *v3.Client, opts ...SessionOption) *Session {
	t.Helper()
	s, err := NewSession(client, append([]SessionOption{WithTTL(10)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// endsAfter checks when the session ends, from now, and why.
func endsAfter(t *testing.T, s *Session, d time.Duration, causes ...error) {
	t.Helper()
	begin := time.Now()
	<-s.Done()
	if took := time.Since(begin); took != d {
		t.Errorf("ended after %v, want %v", took, d)
	}
	for _, cause := range causes {
		if got := context.Cause(s.Ctx()); !errors.Is(got, cause) {
			t.Errorf("cause %v, want %v", got, cause)
		}
	}
}

func TestSessionEndsWithItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, client := newScripted(t)
		s := newSession(t, client)
		endsAfter(t, s, 10*time.Second, ErrSessionExpired, errNotRenewed)
		if s.failure() != ErrSessionExpired { //nolint:errorlint // bare
			t.Errorf("failure %v", s.failure())
		}

		s = newSession(t, client)
		time.Sleep(4 * time.Second)
		cluster.renew(20)
		endsAfter(t, s, 20*time.Second, ErrSessionExpired, errNotRenewed)

		// That of another lease is not known before the first renewal.
		s = newSession(t, client, WithLease(leaseID))
		time.Sleep(time.Minute)
		cluster.renew(5)
		endsAfter(t, s, 5*time.Second, ErrSessionExpired, errNotRenewed)

		// The renewals end because the server says so, or because the client has given up.
		for _, c := range []struct {
			after time.Duration
			cause error
		}{{0, rpctypes.ErrLeaseNotFound}, {9 * time.Second, errNotRenewed}} {
			cluster, client := newScripted(t)
			s := newSession(t, client)
			time.Sleep(c.after)
			close(cluster.renewals)
			endsAfter(t, s, 0, ErrSessionExpired, c.cause)
		}
	})
}

// A program that was halted finds a renewal that the server made before it let the lease end.
func TestSessionDoesNotBelieveALateRenewal(t *testing.T) {
	for range 20 { // which of two channels that are ready is read is chance
		synctest.Test(t, func(t *testing.T) {
			_, client := newScripted(t)
			ctx, end := context.WithCancelCause(context.Background())
			s := &Session{client: client, ctx: ctx, end: end, done: make(chan struct{}), aliveUntil: time.Now().Add(time.Second)}
			s.lost, s.lose = context.WithCancelCause(context.Background())
			renewals := make(chan *v3.LeaseKeepAliveResponse, 1)
			renewals <- &v3.LeaseKeepAliveResponse{TTL: 10}
			context.AfterFunc(ctx, func() { close(renewals) })
			time.Sleep(2 * time.Second)
			go s.follow(renewals)
			endsAfter(t, s, 0, ErrSessionExpired, errNotRenewed)
		})
	}
}

// When a program goes on that was halted, a response that has waited for it may be read before the timer is.
func TestNoSuccessAfterTheLeasesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, client := newScripted(t)
		s := &Session{
			client: client, id: leaseID, ctx: t.Context(), aliveUntil: time.Now().Add(time.Second),
			places: map[string]*place{},
		}
		s.lost, s.lose = context.WithCancelCause(context.Background())
		s.sweeping, s.stopSweep = context.WithCancel(s.lost)
		m := NewMutex(s, "lock")
		cluster.does(acquires)
		if err := m.Lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		cluster.does(func(s *script) {
			s.txn = func(context.Context) (*v3.TxnResponse, error) {
				time.Sleep(time.Second)
				return acquired("lock/1234", 7), nil
			}
		})
		for range 2 {
			if err := m.Lock(t.Context()); err != ErrSessionExpired { //nolint:errorlint // bare
				t.Errorf("Lock: %v", err)
			}
		}
		s.lose(nil)
		s.background.Wait()
	})
}

func TestSessionCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, client := newScripted(t) // which does not answer a revocation
		s := newSession(t, client)
		begin := time.Now()
		if err := s.Close(); err != context.DeadlineExceeded { //nolint:errorlint // bare
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("Close took %v", took)
		}

		ctx, cancel := context.WithCancel(context.Background())
		s = newSession(t, client, WithContext(ctx))
		cancel()
		begin = time.Now()
		if err := s.Close(); err != context.Canceled { //nolint:errorlint // bare
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("Close took %v", took)
		}
	})
}

// An orphaned lease may be renewed by somebody else. It is asked for, and lives as long as it is seen alive.
func TestContextOfAnOrphanedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, client := newScripted(t)
		s := newSession(t, client)
		m := NewMutex(s, "lock")
		cluster.does(acquires)
		if err := m.Lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		held := m.Context()
		answers := time.Now().Add(time.Minute)
		cluster.does(func(s *script) {
			s.timeToLive = func(ctx context.Context) (*v3.LeaseTimeToLiveResponse, error) {
				if time.Now().After(answers) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return &v3.LeaseTimeToLiveResponse{TTL: 9}, nil
			}
		})
		s.Orphan()
		<-held.Done()
		if cause := context.Cause(held); !errors.Is(cause, ErrSessionExpired) || !errors.Is(cause, errNotRenewed) {
			t.Errorf("cause %v", cause)
		}
		if late := time.Since(answers); late < 0 || late > 9*time.Second {
			t.Errorf("ended %v after the last answer", late)
		}

		s = newSession(t, client)
		m = NewMutex(s, "lock")
		if err := m.Lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		held = m.Context()
		cluster.does(func(s *script) {
			s.timeToLive = func(context.Context) (*v3.LeaseTimeToLiveResponse, error) {
				return &v3.LeaseTimeToLiveResponse{TTL: -1}, nil
			}
		})
		s.Orphan()
		begin := time.Now()
		<-held.Done()
		if cause := context.Cause(held); !errors.Is(cause, rpctypes.ErrLeaseNotFound) || time.Since(begin) != 0 {
			t.Errorf("cause %v after %v", cause, time.Since(begin))
		}
	})
}

// Of a lease that another program has granted nothing is known at first. The first answer tells how long it lives.
func TestContextOfAnOrphanedSessionWithAnotherLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, client := newScripted(t)
		s := newSession(t, client, WithLease(leaseID))
		s.Orphan()
		m := NewMutex(s, "lock")
		cluster.does(acquires)
		if err := m.Lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		asked := time.Now().Add(time.Minute) // before that there is no answer, and no end
		cluster.does(func(s *script) {
			s.timeToLive = func(ctx context.Context) (*v3.LeaseTimeToLiveResponse, error) {
				if time.Now().Before(asked) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				s.timeToLive = nil
				asked = time.Now()
				return &v3.LeaseTimeToLiveResponse{TTL: 2}, nil
			}
		})
		held := m.Context()
		<-held.Done()
		if cause := context.Cause(held); !errors.Is(cause, ErrSessionExpired) || !errors.Is(cause, errNotRenewed) {
			t.Errorf("cause %v", cause)
		}
		if took := time.Since(asked); took != 2*time.Second {
			t.Errorf("ended %v after the one answer", took)
		}
	})
}

// A Lock that is given up returns soon, though its key cannot be deleted. The session goes on trying.
func TestLockGivenUpDoesNotWaitLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, client := newScripted(t)
		s := newSession(t, client)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := NewMutex(s, "lock").Lock(ctx); err != context.DeadlineExceeded { //nolint:errorlint // bare
			t.Errorf("Lock: %v", err)
		}
		if took := time.Since(begin); took != time.Second+sweepPatience {
			t.Errorf("Lock took %v", took)
		}

		// The next one waits until it is clear what has become of the key.
		again, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		cluster.does(acquires)
		if err := NewMutex(s, "lock").Lock(again); err != context.DeadlineExceeded { //nolint:errorlint // bare
			t.Errorf("Lock: %v", err)
		}
		cluster.does(func(s *script) {
			s.get = func(context.Context) (*v3.GetResponse, error) { return &v3.GetResponse{}, nil }
		})
		cluster.renew(60)
		if err := NewMutex(s, "lock").Lock(t.Context()); err != nil {
			t.Errorf("Lock: %v", err)
		}

		cluster.does(func(s *script) {
			s.revoke = func(context.Context) (*v3.LeaseRevokeResponse, error) { return &v3.LeaseRevokeResponse{}, nil }
		})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A request to delete the key that was lost is made again.
func TestSweepOutlastsALostRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, client := newScripted(t)
		s := newSession(t, client)
		requests := 0
		cluster.does(func(s *script) {
			s.txn = func(ctx context.Context) (*v3.TxnResponse, error) {
				switch requests++; requests {
				case 1:
					return queued("lock/1234", 7), nil
				case 2, 3: // who is before it; and the first deletion
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return &v3.TxnResponse{Succeeded: true}, nil
			}
		})
		cluster.renew(60)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := NewMutex(s, "lock").Lock(ctx); err != context.DeadlineExceeded { //nolint:errorlint // bare
			t.Errorf("Lock: %v", err)
		}
		s.background.Wait()
		if requests != 4 {
			t.Errorf("%d requests, want 4", requests)
		}
		s.Orphan()
	})
}

// All older keys are gone, and the waiter's own too, of which the watch has not told yet.
func TestNoSuccessWithoutTheOwnKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, client := newScripted(t)
		s := newSession(t, client)
		requests := 0
		cluster.does(func(s *script) {
			s.txn = func(context.Context) (*v3.TxnResponse, error) {
				if requests++; requests == 1 {
					return queued("lock/1234", 7), nil
				}
				none := &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{}}
				return &v3.TxnResponse{Succeeded: true, Responses: []*pb.ResponseOp{{Response: none}}}, nil
			}
			s.holds = func(c v3.Cmp) bool {
				return string(c.KeyBytes()) != "lock/1234" || c.GetCompare().GetCreateRevision() == 0
			}
		})
		err := NewMutex(s, "lock").Lock(t.Context())
		if err != ErrSessionExpired { //nolint:errorlint // bare
			t.Errorf("Lock: %v", err)
		}
		s.Orphan()
	})
}

// A waiter whose key cannot be watched any more says why.
func TestLockKeepsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, client := newScripted(t)
		s := newSession(t, client)
		requests := 0
		cluster.does(func(s *script) {
			s.txn = func(context.Context) (*v3.TxnResponse, error) {
				switch requests++; requests {
				case 1:
					return queued("lock/1234", 7), nil
				case 2:
					return follows("lock/1", 7), nil
				}
				return &v3.TxnResponse{Succeeded: true}, nil
			}
			s.watch = func(key string) *v3.WatchResponse {
				if key == "lock/1" {
					return nil
				}
				return &v3.WatchResponse{Canceled: true, CancelReason: rpctypes.ErrPermissionDenied.Error()}
			}
		})
		err := NewMutex(s, "lock").Lock(t.Context())
		if !errors.Is(err, ErrSessionExpired) || !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("Lock: %v", err)
		}
		s.Orphan()
	})
}

// So is what an orphaned session cleans up, for as long as its lease can be expected to live.
func TestOrphanedSessionStopsSweeping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, client := newScripted(t)
		s := newSession(t, client)
		s.Orphan()
		deadline, _ := s.leaseDeadline()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = NewMutex(s, "lock").Lock(ctx)
		s.background.Wait()
		if at := time.Until(deadline); at != 0 {
			t.Errorf("ended %v before the lease's expected end", at)
		}
	})
}

func TestLockKeepsTryingWhileThereIsNoCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, client := newScripted(t)
		s := newSession(t, client)
		attempts := 0
		cluster.does(func(s *script) {
			s.txn = func(context.Context) (*v3.TxnResponse, error) {
				if attempts++; attempts <= 5 {
					return nil, rpctypes.ErrNoLeader
				}
				return acquired("lock/1234", 7), nil
			}
		})
		if err := NewMutex(s, "lock").Lock(t.Context()); err != nil {
			t.Errorf("Lock: %v", err)
		}
		attempts = 0
		if err := NewMutex(s, "lock").TryLock(t.Context()); err != rpctypes.ErrNoLeader { //nolint:errorlint // bare
			t.Errorf("TryLock: %v", err)
		}
		cluster.does(refuses(rpctypes.ErrPermissionDenied))
		err := NewMutex(s, "lock").Lock(t.Context())
		if err != rpctypes.ErrPermissionDenied { //nolint:errorlint // bare
			t.Errorf("Lock: %v", err)
		}
		cluster.does(refuses(rpctypes.ErrNoLeader))
		begin := time.Now()
		err = NewMutex(s, "lock").Lock(t.Context())
		if err != ErrSessionExpired { //nolint:errorlint // bare
			t.Errorf("Lock: %v", err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("Lock went on for %v after its session", took)
		}
		s.background.Wait()
	})
}
