package concurrency

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"

	v3 "github.com/seed-d18e112a/clientv3"
)

const (
	defaultSessionTTL = 60        // seconds
	unknownTTL        = time.Hour // that of somebody else's lease, until it is known
)

// Session is a lease that is kept alive: what locks and elections are held by. Make one with NewSession and end it with
// Close. Its methods are safe for concurrent use.
type Session struct {
	client *v3.Client
	id     v3.LeaseID
	ttl    time.Duration
	parent context.Context // the one of WithContext, which also bounds Close

	// Three contexts, since a session ends in two steps. ctx ends when the lease is no longer renewed; after Orphan it
	// lives on, and locks can still be taken and held under it. lost ends when the lease is known to be gone: nothing of
	// the session is left then. sweeping ends with lost, or when an orphaned lease that nobody else renews has run out,
	// and is what the session's own cleaning up goes on under. The latter two have no parent, so that an orphaned
	// session is garbage as soon as nobody has it, and not when the client is closed.
	ctx       context.Context // by contract of Ctx
	end       context.CancelCauseFunc
	lost      context.Context // the lease's lifetime
	lose      context.CancelCauseFunc
	sweeping  context.Context // the lease's expected lifetime
	stopSweep context.CancelFunc

	done chan struct{}

	background sync.WaitGroup // the goroutines of spawn

	mu         sync.Mutex // guards what follows
	closed     bool
	aliveUntil time.Time // the lease lives at least so long, as far as is known; zero before the first word of it
	places     map[string]*place
}

type sessionOptions struct {
	ttl     int
	leaseID v3.LeaseID
	ctx     context.Context // an option's value
}

// SessionOption is an option of NewSession.
type SessionOption func(*sessionOptions, *zap.Logger)

// WithTTL sets the time to live of the session's lease in seconds; the default is 60. When the program dies its locks
// are free after that time. A value that is not positive is logged and the default used. With WithLease it bounds
// Close only.
func WithTTL(ttl int) SessionOption {
	return func(o *sessionOptions, lg *zap.Logger) {
		if ttl <= 0 {
			lg.Warn("session time to live must be positive, using the default", zap.Int("ttl", ttl))
			return
		}
		o.ttl = ttl
	}
}

// WithLease makes the session use a lease that is there already: of a program that was restarted, say. Close revokes
// it all the same. NoLease, the default, grants a new one.
func WithLease(leaseID v3.LeaseID) SessionOption {
	return func(o *sessionOptions, _ *zap.Logger) { o.leaseID = leaseID }
}

// WithContext makes the session end with ctx: it bounds NewSession, the renewals, and Close. If it ends before Close,
// the lease is not revoked but left to run out. The default is the client's context.
func WithContext(ctx context.Context) SessionOption {
	return func(o *sessionOptions, _ *zap.Logger) { o.ctx = ctx }
}

// NewSession grants a lease, unless WithLease brings one, and keeps it alive until the session ends. That a lease of
// WithLease is not there is found out later: the session ends then.
func NewSession(client *v3.Client, opts ...SessionOption) (*Session, error) {
	o := sessionOptions{ttl: defaultSessionTTL, ctx: client.Ctx()}
	for _, opt := range opts {
		opt(&o, client.GetLogger())
	}
	s := &Session{
		client: client,
		id:     o.leaseID,
		ttl:    time.Duration(o.ttl) * time.Second,
		parent: o.ctx,
		done:   make(chan struct{}),
		places: map[string]*place{},
	}
	if s.id == v3.NoLease {
		asked := time.Now()
		granted, err := client.Grant(o.ctx, int64(o.ttl))
		if err != nil {
			return nil, err
		}
		s.id, s.aliveUntil = granted.ID, asked.Add(time.Duration(granted.TTL)*time.Second)
	}
	s.ctx, s.end = context.WithCancelCause(o.ctx)
	renewals, err := client.KeepAlive(s.ctx, s.id)
	if err != nil {
		s.end(err)
		return nil, err
	}
	s.lost, s.lose = context.WithCancelCause(context.Background())
	s.sweeping, s.stopSweep = context.WithCancel(s.lost)
	go s.follow(renewals)
	return s, nil
}

// Client returns the client that the session was made with.
func (s *Session) Client() *v3.Client { return s.client }

// Lease returns the session's lease.
func (s *Session) Lease() v3.LeaseID { return s.id }

// Ctx returns a context that ends with the session, as Done does; context.Cause tells why: ErrSessionExpired, with more
// behind it, if the lease is gone, and context.Canceled after Orphan and Close. It is derived from the one of
// WithContext.
func (s *Session) Ctx() context.Context { return s.ctx }

// Done returns a channel that is closed when the lease is gone or is no longer renewed: after Orphan and Close, with
// the context of WithContext, and when the client is closed.
func (s *Session) Done() <-chan struct{} { return s.done }

// Orphan ends the renewals and leaves the lease to run out, or to somebody else to renew. Locks and leaderships of the
// session stay as long as the lease does, and can still be taken.
func (s *Session) Orphan() {
	s.end(nil)
	<-s.done
}

// Close ends the session and revokes its lease, which gives up its locks and leaderships. Calls of Lock and Campaign
// that wait return ErrSessionExpired. It takes no longer than the session's time to live and the context of WithContext
// allow; if the lease cannot be revoked it runs out.
func (s *Session) Close() error {
	s.Orphan()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	// Holders are told before the cluster frees what they hold.
	s.lose(fmt.Errorf("%w: it was closed", ErrSessionExpired))
	s.stopSweep()
	s.background.Wait()
	ctx, cancel := context.WithTimeout(s.parent, s.ttl)
	defer cancel()
	_, err := s.client.Revoke(ctx, s.id)
	return err
}

// errNotRenewed is why a session has expired whose cluster could not be reached.
var errNotRenewed = errors.New("lease not renewed within its time to live")

// follow reads the renewals until they end, or the lease's time to live has passed without one.
func (s *Session) follow(renewals <-chan *v3.LeaseKeepAliveResponse) {
	defer close(s.done)
	deadline, known := s.leaseDeadline()
	if !known {
		deadline = time.Now().Add(unknownTTL) // the first renewal tells
	}
	ttl := time.Until(deadline)
	expiry := time.NewTimer(ttl)
	defer expiry.Stop()
	for {
		select {
		case resp, ok := <-renewals:
			if !ok {
				s.renewalsEnded(deadline, ttl)
				return
			}
			// A response that comes after the deadline may be old: the program was halted, and the server has
			// let the lease end since. The timer is due then.
			if now := time.Now(); now.Before(deadline) {
				ttl = time.Duration(resp.TTL) * time.Second
				deadline = now.Add(ttl)
				expiry.Reset(ttl)
				s.mu.Lock()
				s.aliveUntil = deadline
				s.mu.Unlock()
			}
		case <-expiry.C:
			s.expire(errNotRenewed) // the renewals end with the session's context
			for range renewals {
			}
			return
		}
	}
}

// renewalsEnded sees to what the end of the renewals means for the lease, which has the time to live and lives until
// the deadline as far as the session knows.
func (s *Session) renewalsEnded(deadline time.Time, ttl time.Duration) {
	switch {
	case s.client.Ctx().Err() != nil:
		s.lose(s.client.Ctx().Err())
		s.end(s.client.Ctx().Err())
	case s.ctx.Err() != nil: // Orphan, Close, or the context of WithContext
		timer := time.AfterFunc(time.Until(deadline), s.stopSweep)
		context.AfterFunc(s.sweeping, func() { timer.Stop() })
	case time.Until(deadline) < ttl/4:
		// The client has given up. It does so a little before the deadline, for it counts from when the last renewal
		// was sent, not from when its answer came.
		s.expire(errNotRenewed)
	default:
		s.expire(rpctypes.ErrLeaseNotFound) // the server has said so, when it was to renew it
	}
}

// expire ends the session because its lease is gone.
func (s *Session) expire(reason error) {
	cause := fmt.Errorf("%w: %w", ErrSessionExpired, reason)
	s.lose(cause)
	s.end(cause)
}

// failure returns the error of a call that cannot succeed any more because the session is lost, or nil while it is not.
func (s *Session) failure() error {
	switch {
	case s.client.Ctx().Err() != nil:
		return s.client.Ctx().Err()
	case s.lost.Err() != nil || s.overdue():
		return ErrSessionExpired // bare: callers compare with ==
	}
	return nil
}

// overdue reports whether the lease was to be renewed by now, and was not. The session is as good as lost then: when
// the program was halted, follow may be the last one to notice. An orphaned lease may have been renewed by somebody
// else.
func (s *Session) overdue() bool {
	deadline, known := s.leaseDeadline()
	return known && s.ctx.Err() == nil && !time.Now().Before(deadline)
}

// spawn runs f in a goroutine that Close waits for, so f must end with s.lost. It does nothing once Close was called.
func (s *Session) spawn(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.background.Go(f)
	}
}

// leaseDeadline returns until when the lease lives at least, and whether that is known.
func (s *Session) leaseDeadline() (deadline time.Time, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aliveUntil, !s.aliveUntil.IsZero()
}
