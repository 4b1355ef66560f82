package renew

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// DefaultFirstTimeout is the FirstTimeout of a Config that has none.
const DefaultFirstTimeout = 5 * time.Second

// ErrExpired is the reason given to Sink.Close when a lease's TTL, or FirstTimeout, has passed without a renewal. It
// may be wrapped together with the error that kept it from being renewed.
var ErrExpired = errors.New("renew: lease not renewed before its time to live had passed")

// Sink receives what happens to a lease on behalf of one KeepAlive call. Its methods are called one at a time, with the
// engine locked: they must neither block nor call the engine.
type Sink interface {
	// Offer hands over the answer to a renewal, always with a TTL above 0. Other sinks of the lease get the same
	// message, so it is not to be changed.
	Offer(resp *pb.LeaseKeepAliveResponse)

	// Close is called exactly once, after the last Offer. The reason is
	//
	//   - nil if the context given to KeepAlive has ended,
	//   - rpctypes.ErrLeaseNotFound if the server said that the lease is gone,
	//   - an error that wraps ErrExpired if it was not renewed in time,
	//   - rpctypes.ErrNoLeader if that context asked for a leader and the members have none,
	//   - context.Canceled if the engine was closed.
	Close(reason error)
}

// Config says how an Engine works. Only Client is required.
type Config struct {
	// Client opens the streams. Their contexts carry the require-leader metadata and nothing of the callers' contexts.
	Client pb.LeaseClient

	// CallOptions are passed to every LeaseKeepAlive call.
	CallOptions []grpc.CallOption

	// Logger is told when streams break and leases expire. Nil means no logging.
	Logger *zap.Logger

	// FirstTimeout is how long a lease is kept trying of which no renewal has been answered yet. 0 means
	// DefaultFirstTimeout.
	FirstTimeout time.Duration

	// Reauthenticate, if not nil, is called before the next stream is opened when a server refused the auth token. Its
	// context ends when the stream takes too long to open.
	Reauthenticate func(context.Context) error

	// StreamContext, if not nil, returns the context to open a stream with, derived from the one it gets. It can carry
	// a wish to avoid the previous stream's member. attempt counts the streams that ended without an answer since the
	// last answer, previous is why the last one ended: nil for the first, ErrStalled, or the stream's error.
	StreamContext func(ctx context.Context, attempt int, previous error) context.Context

	// NoLeaderLimit, if not nil, returns how many times members must say that they have no leader, with no answer in
	// between, until callers who asked for a leader are let go; usually the number of members. Nil or less than 1
	// means 1. It must not block or call the engine.
	NoLeaderLimit func() int
}

// Engine keeps leases alive. It is safe for concurrent use. Use New.
type Engine struct {
	cfg    Config
	log    *zap.Logger
	epoch  time.Time
	ctx    context.Context // of all streams
	cancel context.CancelFunc
	tasks  sync.WaitGroup // all goroutines, and context functions that may still run
	wake   chan struct{}  // capacity 1: run is to look again

	mu      sync.Mutex
	closed  bool
	running bool          // run is
	wakeAt  time.Duration // when run looks again by itself
	leases  map[int64]*lease
	live    int       // leases with callers
	lost    int       // leases that have expired and were not logged yet
	load    int64     // sum of lease.load
	idle    timetable // by due time
	ready   queue     // by expiry
	held    queue     // by expiry
	flight  timetable // by when to look at it: expiry or stall
	order   uint64

	stream    *stream // nil if none is wanted, or the last one has ended
	attempts  int     // streams ended since the last answer
	refusals  int     // of those, how many for want of a leader
	newToken  bool    // Reauthenticate before the next stream
	lastError error   // why the last stream ended, nil after an answer
	previous  error   // the same, but kept until the next stream ends

	window int           // limit of outstanding renewals
	shrunk time.Duration // when it was last lowered
	paced  bool          // catching up after a break
	pacer  *rate.Limiter // for that
}

// caller is one KeepAlive call.
type caller struct {
	engine      *Engine
	lease       *lease
	next        *caller // of the same lease
	sink        Sink    // nil once closed
	unfollow    func() bool
	needsLeader bool
}

// New returns an engine without leases, which has no goroutine until the first KeepAlive.
func New(cfg Config) *Engine {
	if cfg.FirstTimeout <= 0 {
		cfg.FirstTimeout = DefaultFirstTimeout
	}
	log := cfg.Logger
	if log == nil {
		log = zap.NewNop()
	}
	e := &Engine{
		cfg:    cfg,
		log:    log,
		epoch:  time.Now(),
		wake:   make(chan struct{}, 1),
		leases: make(map[int64]*lease),
		pacer:  rate.NewLimiter(minPace, 1),
	}
	e.ctx, e.cancel = context.WithCancel(
		metadata.AppendToOutgoingContext(context.Background(),
			rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader))
	return e
}

// KeepAlive keeps the lease alive until ctx ends, the lease is lost, or the engine is closed. It does not wait for the
// server. The first renewal is sent at once, unless the lease is already kept alive for another caller, whose renewals
// are then shared. The engine closes the sink, also when ctx has already ended; only if it returns an error, because
// the engine is closed, the sink is left alone.
func (e *Engine) KeepAlive(ctx context.Context, id int64, sink Sink) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return e.halted()
	}
	if ctx.Err() != nil {
		sink.Close(nil)
		return nil
	}
	now := e.now()
	l := e.leases[id]
	if l == nil {
		l = &lease{id: id, ttl: e.cfg.FirstTimeout}
		e.leases[id] = l
		e.load += l.load()
	}
	c := &caller{engine: e, lease: l, next: l.callers, sink: sink, needsLeader: asksForLeader(ctx)}
	l.callers = c
	if c.next == nil {
		e.revive(l, now)
	}
	if ctx.Done() != nil {
		e.tasks.Add(1)
		c.unfollow = context.AfterFunc(ctx, c.contextEnded)
	}
	if !e.running {
		e.running = true
		e.tasks.Go(e.run)
	}
	return nil
}

// Gone says that the lease has been revoked, as the server has answered somebody else: its callers need not wait for the
// next renewal to learn that.
func (e *Engine) Gone(id int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.leases[id]; l != nil {
		e.endAll(l, rpctypes.ErrLeaseNotFound)
	}
}

// Halted returns nil while the engine works, and why it does not once it is closed: context.Canceled.
func (e *Engine) Halted() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.halted()
}

func (e *Engine) halted() error {
	if e.closed {
		return context.Canceled
	}
	return nil
}

// Close closes all sinks, ends the stream and waits for all goroutines. It always returns nil. It may be called again.
func (e *Engine) Close() error {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		for _, l := range e.leases {
			e.endAll(l, context.Canceled)
		}
		e.wakeBy(e.now())
	}
	e.mu.Unlock()
	e.cancel()
	e.tasks.Wait()
	return nil
}

// now returns the time since the engine was made, by the monotonic clock.
func (e *Engine) now() time.Duration { return time.Since(e.epoch) }

// contextEnded runs in a goroutine of its own when the caller's context has ended. If the sink was closed for another
// reason meanwhile, nothing is left to do.
func (c *caller) contextEnded() {
	e := c.engine
	defer e.tasks.Done()
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.sink != nil {
		c.unfollow = nil
		c.end(nil)
	}
}

// end closes the caller's sink, and forgets the lease if it was the last caller.
func (c *caller) end(reason error) {
	link := &c.lease.callers
	for *link != c {
		link = &(*link).next
	}
	*link = c.next
	c.next = nil
	if c.unfollow != nil && c.unfollow() {
		c.engine.tasks.Done()
	}
	c.sink.Close(reason)
	c.sink = nil
	if c.lease.callers == nil {
		c.engine.abandon(c.lease)
	}
}

// endAll ends all callers of the lease.
func (e *Engine) endAll(l *lease, reason error) {
	for l.callers != nil {
		l.callers.end(reason)
	}
}

// revive is called when a lease has got its first caller, or one again while in flight.
func (e *Engine) revive(l *lease, now time.Duration) {
	e.live++
	if l.expires <= now {
		l.expires = now + e.cfg.FirstTimeout
	}
	if l.home == &e.flight {
		e.flight.put(l, e.watchAt(l))
		e.wakeBy(l.at)
	} else {
		e.ready.put(l, l.expires)
		e.wakeBy(now)
	}
}

// abandon is called when a lease has lost its last caller. In flight it is kept, see the package's invariants.
func (e *Engine) abandon(l *lease) {
	e.live--
	if l.home != &e.flight {
		e.forget(l)
	}
	if e.live == 0 {
		e.wakeBy(0)
	}
}

// forget removes a lease without callers.
func (e *Engine) forget(l *lease) {
	l.leave()
	e.load -= l.load()
	delete(e.leases, l.id)
}

// setTTL notes the TTL that the server has answered.
func (e *Engine) setTTL(l *lease, ttl time.Duration) {
	e.load -= l.load()
	l.ttl = ttl
	e.load += l.load()
}

// wakeBy makes run look again at the given instant, unless it will anyway.
func (e *Engine) wakeBy(at time.Duration) {
	if at >= e.wakeAt {
		return
	}
	e.wakeAt = at
	select {
	case e.wake <- struct{}{}:
	default: // it has not looked since the last call
	}
}

// expire ends the callers of a lease that was not renewed in time.
func (e *Engine) expire(l *lease) {
	reason, cause := ErrExpired, l.cause
	if cause == nil {
		cause = e.lastError
	}
	if cause != nil {
		reason = fmt.Errorf("%w: %w", ErrExpired, cause)
	}
	e.lost++
	e.endAll(l, reason)
}

// refused lets those callers go who asked for a leader, once enough members have said that there is none.
func (e *Engine) refused() {
	e.refusals++
	if e.cfg.NoLeaderLimit != nil && e.refusals < e.cfg.NoLeaderLimit() {
		return
	}
	for _, l := range e.leases {
		for c := l.callers; c != nil; {
			next := c.next
			if c.needsLeader {
				c.end(rpctypes.ErrNoLeader)
			}
			c = next
		}
	}
}

func asksForLeader(ctx context.Context) bool {
	md, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		return false
	}
	values := md.Get(rpctypes.MetadataRequireLeaderKey)
	return len(values) > 0 && values[0] == rpctypes.MetadataHasLeader
}

// never is further away than any timer needs to be set.
const never = time.Duration(math.MaxInt64)
