package renew

import (
	"errors"
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
	crowd      = 64 // more leases than that are renewed in groups,
	groups     = 4  // of which there are so many
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
// A crowd is renewed in groups, four in a period, since renewals that go out together and are answered together
// cost a fraction of single ones, most of whose cost is to wake everything from the engine to the network poller. As
// the period is a multiple of the groups' distance, a lease stays in its group. The first answers of a crowd, which
// was kept alive together, are spread over the whole period, and so over all groups.
func (l *lease) due(now time.Duration, first, crowded bool) time.Duration {
	period := l.ttl / 3
	if !crowded {
		return now + period - rand.N(period/16)
	}
	distance := period / groups
	if first {
		return min((now + distance + rand.N(period)).Truncate(distance), now+period)
	}
	return (now + period).Truncate(distance)
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
	if errors.Is(cause, ErrStalled) {
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
