package renew

import (
	"math"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
)

// lease is one lease that is kept alive, for one caller or several. Instants are durations since the engine was made.
type lease struct {
	id      int64
	callers *caller // nil only while in flight

	ttl     time.Duration // as last answered; Config.FirstTimeout until then
	expires time.Duration // when it is lost, if it is not renewed
	sent    time.Duration // when the last renewal was sent
	order   uint64        // which renewal of the engine that was

	home       home          // the queue or timetable it is in
	at         time.Duration // its key there
	slot       int32         // its index, if it is a queue
	next, prev *lease        // its neighbours, if it is a timetable

	answered bool  // at least once
	faults   uint8 // evidence that it breaks streams, see suspicion
	cause    error // why the last of these streams ended
}

const (
	maxTTL     = time.Duration(math.MaxInt64 / 4) // about 73 years: instants can be added without overflow
	minStall   = time.Second
	minGrid    = 10 * time.Millisecond
	maxGrid    = 5120 * time.Millisecond
	crowd      = 64 // more leases than that are renewed in groups
	heldFaults = 2  // faults from which on a lease is held back
	maxFaults  = 100
)

// ttlOf converts a TTL of the wire, in seconds.
func ttlOf(seconds int64) time.Duration {
	return time.Duration(min(seconds, int64(maxTTL/time.Second))) * time.Second
}

// stall is how long a stream may be silent while the lease waits on it.
func (l *lease) stall() time.Duration { return max(minStall, l.ttl/6) }

// urgent tells whether less than a quarter of its TTL is left.
func (l *lease) urgent(now time.Duration) bool { return l.expires-now < l.ttl/4 }

// load is what the lease needs in the long run, in renewals per million seconds. As an integer it can be summed up and
// subtracted again without drift.
func (l *lease) load() int64 { return 3e6 * int64(time.Second) / int64(max(l.ttl, time.Second)) }

// due returns when the lease, answered now, is to be renewed.
//
// In a crowd, instants are rounded down to a coarse grid, since renewals that go out together and are answered together
// cost a fraction of single ones, most of whose cost is to wake everything from the engine to the network poller. The
// first answers of a crowd, which was kept alive together, are spread over the whole period, as they are in the long run.
func (l *lease) due(now time.Duration, first, crowded bool) time.Duration {
	period := l.ttl / 3
	grid, spread := minGrid, period/16
	if crowded {
		for grid < maxGrid && grid*2 <= period/8 {
			grid *= 2
		}
		if first {
			spread = period - 2*grid // so that it is in the future even when rounded down
		}
	}
	return (now + period - rand.N(spread+1)).Truncate(grid)
}

// blame notes that a stream ended while the lease's renewal was the oldest unanswered one.
func (l *lease) blame(cause error) {
	if faults := suspicion(cause); faults > 0 {
		l.faults, l.cause = min(l.faults+faults, maxFaults), cause
	}
}

// suspicion tells how much the end of a stream says against the lease whose renewal was the oldest unanswered one: a
// server answers in order, so if the error is about a lease at all, it is about that one. A stall is most often the
// member's fault and counts only when it happens to the same lease twice in a row.
func suspicion(cause error) uint8 {
	if cause == ErrStalled {
		return 1
	}
	switch code(cause) {
	case codes.OK, codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Unauthenticated,
		codes.ResourceExhausted:
		return 0
	default:
		if staleToken(cause) {
			return 0
		}
		return heldFaults
	}
}
