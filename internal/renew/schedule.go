package renew

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/seed-d18e112a/clientv3/internal/retry"
)

const (
	// Limits of outstanding renewals. The largest takes 16 KiB on the wire, so that gRPC always has room for what is
	// sent (64 KiB a stream). An answer that took longer than lateAnswer halves the limit, others raise it by one.
	minWindow   = 16
	startWindow = 128
	maxWindow   = 1024
	lateAnswer  = 500 * time.Millisecond

	// After a break, renewals go out every paceTick, in all at paceFactor times the rate needed in the long run, and
	// at least at minPace a second.
	minPace    = 200
	paceFactor = 2
	paceTick   = 20 * time.Millisecond

	// A stream must be open after openTimeout, doubled with each failed attempt up to openTimeout<<maxOpenShift.
	openTimeout  = 2 * time.Second
	maxOpenShift = 3
)

var (
	// streamBackoff is how long to wait for the next stream after streams that ended without an answer.
	streamBackoff = retry.Backoff{Base: 50 * time.Millisecond, Max: 500 * time.Millisecond}

	// holdBackoff is how long a lease waits that broke streams.
	holdBackoff = retry.Backoff{Base: 50 * time.Millisecond, Max: 500 * time.Millisecond}
)

// run does what is due until no caller is left.
func (e *Engine) run() {
	timer := time.NewTimer(never)
	defer timer.Stop()
	for {
		e.mu.Lock()
		now := e.now()
		next := e.step(now)
		if !e.running {
			e.mu.Unlock()
			return
		}
		e.wakeAt = next
		e.mu.Unlock()
		timer.Reset(next - now)
		select {
		case <-timer.C:
		case <-e.wake:
		}
	}
}

// step does all that is due now and returns when to look again. It clears running if no caller is left.
func (e *Engine) step(now time.Duration) time.Duration {
	e.watchFlight(now)
	if s := e.stream; s != nil && !s.open && s.openBy <= now {
		e.drop(now, ErrStalled)
	}
	for e.idle.next() <= now {
		e.makeReady(e.idle.first())
	}
	for _, q := range []*queue{&e.ready, &e.held} {
		for l := q.first(); l != nil && l.expires <= now; l = q.first() {
			e.expire(l)
		}
	}
	if e.lost > 0 {
		e.log.Warn("leases not renewed in time", zap.Int("leases", e.lost), zap.Error(e.lastError))
		e.lost = 0
	}
	if e.live == 0 {
		e.rest()
		return never
	}
	if e.stream == nil && e.waiting() > 0 {
		e.openStream(now)
	}
	e.send(now)
	return e.next(now)
}

// waiting returns how many leases are due and not sent.
func (e *Engine) waiting() int { return e.ready.Len() + e.held.Len() }

// makeReady puts a lease where it waits for being sent.
func (e *Engine) makeReady(l *lease) {
	if l.faults >= heldFaults {
		e.held.put(l, l.expires)
	} else {
		e.ready.put(l, l.expires)
	}
}

// next returns when step has something to do again, if nothing else happens.
func (e *Engine) next(now time.Duration) time.Duration {
	next := min(e.idle.next(), e.flight.next())
	for _, q := range []*queue{&e.ready, &e.held} {
		if l := q.first(); l != nil {
			next = min(next, l.at)
		}
	}
	if s := e.stream; s != nil {
		if !s.open {
			next = min(next, s.openBy)
		} else if e.paced && e.waiting() > 0 {
			next = min(next, now+paceTick)
		}
	}
	return next
}

// watchFlight looks at the leases that are in flight, and due to be looked at because they have expired or the stream
// may have stalled. An expired one remains in flight, see the package's invariants.
func (e *Engine) watchFlight(now time.Duration) {
	for e.flight.next() <= now {
		l := e.flight.first()
		if l.callers != nil && l.expires <= now {
			e.expire(l)
		}
		if e.stalledAt(l) <= now {
			e.drop(now, ErrStalled)
			break
		}
		e.flight.put(l, e.watchAt(l))
	}
}

// stalledAt returns when the lease in flight has waited too long. While the stream brings answers to earlier renewals,
// the server has not come to this one yet. If it has answered a later one, it will hardly answer this one at all.
func (e *Engine) stalledAt(l *lease) time.Duration {
	if l.order < e.stream.newest {
		return l.sent + l.stall()
	}
	return max(l.sent, e.stream.progress) + l.stall()
}

// watchAt returns when to look at a lease in flight again.
func (e *Engine) watchAt(l *lease) time.Duration {
	if l.callers == nil {
		return e.stalledAt(l)
	}
	return min(l.expires, e.stalledAt(l))
}

// rest ends the stream and forgets what is left, when no caller is left. What remains in the queues was in flight.
func (e *Engine) rest() {
	if e.stream != nil {
		e.stream.cancel()
		e.stream = nil
	}
	e.running = false
	e.wakeAt = 0
	e.leases = make(map[int64]*lease)
	e.idle, e.ready, e.held, e.flight = timetable{}, queue{}, queue{}, timetable{}
	e.load = 0
	e.attempts, e.refusals, e.lastError, e.previous = 0, 0, nil, nil
	e.paced = false
}

// send hands to the stream what is due, the nearest expiry first, as far as the window and the pace allow.
func (e *Engine) send(now time.Duration) {
	s := e.stream
	if s == nil || !s.open {
		return
	}
	if e.paced {
		at, pace := e.epoch.Add(now), max(minPace, paceFactor*float64(e.load)/1e6)
		e.pacer.SetLimitAt(at, rate.Limit(pace))
		e.pacer.SetBurstAt(at, max(1, int(pace*paceTick.Seconds())))
	}
	for e.flight.n < e.window {
		l := e.pick(now)
		if l == nil {
			break
		}
		e.order++
		l.sent, l.order = now, e.order
		e.flight.put(l, e.watchAt(l))
		s.outbox = append(s.outbox, l.id)
	}
	if e.waiting() == 0 {
		e.paced = false
	}
	if len(s.outbox) > 0 {
		select {
		case s.more <- struct{}{}:
		default: // the sender has not looked since the last time
		}
	}
}

// pick returns the next lease to be sent, or nil. Held ones come last, but while nothing else is urgent an urgent one
// goes ahead.
func (e *Engine) pick(now time.Duration) *lease {
	l := e.ready.first()
	if h := e.held.first(); h != nil && (l == nil || h.urgent(now) && !l.urgent(now)) {
		l = h
	}
	if l == nil || e.paced && !l.urgent(now) && !e.pacer.AllowN(e.epoch.Add(now), 1) {
		return nil
	}
	return l
}

// answer handles a response that has come on the stream.
func (e *Engine) answer(s *stream, resp *pb.LeaseKeepAliveResponse) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s != e.stream {
		return // dropped: what it had in flight was, or will be, sent again
	}
	now := e.now()
	s.progress = now
	if e.attempts > 1 {
		e.log.Info("lease keepalive stream works again", zap.Int("attempts", e.attempts))
	}
	e.attempts, e.refusals, e.lastError = 0, 0, nil
	l := e.flight.first()
	if l == nil || l.id != resp.GetID() { // nearly always it is: a server answers in order
		l = e.leases[resp.GetID()]
	}
	if l == nil || l.home != &e.flight {
		return // nobody asked
	}
	e.adjustWindow(l, now)
	s.newest = max(s.newest, l.order)
	l.leave()
	l.faults, l.cause = 0, nil
	switch {
	case l.callers == nil:
		e.forget(l)
	case resp.GetTTL() <= 0:
		e.endAll(l, rpctypes.ErrLeaseNotFound)
	default:
		e.renewed(l, resp, now)
	}
	// The window is refilled when half of it is free, which keeps renewals together.
	if e.waiting() > 0 && !e.paced && e.flight.n <= e.window/2 {
		e.wakeBy(now)
	}
}

// renewed notes that the lease was renewed, tells the callers, and schedules the next renewal.
func (e *Engine) renewed(l *lease, resp *pb.LeaseKeepAliveResponse, now time.Duration) {
	e.setTTL(l, ttlOf(resp.GetTTL()))
	l.expires = l.sent + l.ttl
	for c := l.callers; c != nil; c = c.next {
		c.sink.Offer(resp)
	}
	first := !l.answered
	l.answered = true
	// After a late answer less of the TTL is left: at the latest, renew when a third is.
	e.idle.put(l, min(l.due(now, first, len(e.leases) > crowd), l.expires-l.ttl/3))
	e.wakeBy(l.at)
}

// adjustWindow lowers the limit of outstanding renewals if the lease's answer was late, at most once for those sent
// together, and raises it otherwise.
func (e *Engine) adjustWindow(l *lease, now time.Duration) {
	if now-l.sent <= lateAnswer {
		e.window = min(e.window+1, maxWindow)
	} else if l.sent >= e.shrunk {
		e.window = max(e.window/2, minWindow)
		e.shrunk = now
	}
}
