package balance

import (
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"

	"github.com/seed-d18e112a/clientv3/internal/endpoint"
)

// Endpoint is the record of one endpoint. The exported methods are safe for concurrent use.
type Endpoint struct {
	target endpoint.Endpoint

	sub      balancer.SubConn        // set by the policy before the endpoint is first picked
	done     func(balancer.DoneInfo) // for picks outside a Call; made once, so that a pick allocates nothing
	traffic  traffic
	standing atomic.Uint32 // why picks pass it over: a sum of refusing and demoted

	lines lines // what can be cut

	// Guarded by the Set's mu.
	state connectivity.State
	err   error // why the last connection attempt failed; nil once connected
	watch watch
}

// What an endpoint's standing is made of. The larger one weighs more.
const (
	refusing = 1 << iota // it has said that it cannot serve calls that need a leader
	demoted              // it owes an answer
)

func newEndpoint(target endpoint.Endpoint) *Endpoint {
	e := &Endpoint{target: target, state: connectivity.Idle}
	e.watch.since = time.Now()
	e.done = func(info balancer.DoneInfo) { e.traffic.end(info.BytesReceived) }
	return e
}

// String returns the endpoint as it was given to the client.
func (e *Endpoint) String() string { return e.target.Raw }

// setStanding sets or clears a reason to pass the endpoint over.
func (e *Endpoint) setStanding(reason uint32, on bool) {
	if on {
		e.standing.Or(reason)
	} else {
		e.standing.And(^reason)
	}
}

// traffic counts in one word, so that the health logic costs a call no atomic operation of its own: the calls and
// streams under way in the lower half, the answers, each a sign of life, in the upper one.
type traffic struct{ word atomic.Uint64 }

const oneAnswer = 1 << 32

// begin counts a call that begins. It returns the answers so far.
func (t *traffic) begin() (answers uint32) { return uint32(t.word.Add(1) >> 32) }

// end counts a call that ends, and whether it was answered.
func (t *traffic) end(answered bool) {
	if answered {
		t.word.Add(oneAnswer - 1)
	} else {
		t.word.Add(^uint64(0))
	}
}

// answer counts an answer to a call that goes on.
func (t *traffic) answer() { t.word.Add(oneAnswer) }

// load returns the number of calls under way and of answers. The latter is good for comparison only, it wraps around.
func (t *traffic) load() (open, answers uint32) {
	word := t.word.Load()
	return uint32(word), uint32(word >> 32)
}

// lines is what ends when an endpoint is given up: its connections, and the long-lived streams on them, which can be
// ended while calls beside them go on.
type lines struct {
	mu      sync.Mutex // a leaf
	links   [2]*link   // the connection in use, and the one before it, on which streams may still run out
	streams map[*Call]struct{}
	removed bool // the endpoint is no longer one of the set
}

// connected keeps hold of a new connection.
func (l *lines) connected(conn *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links[1], l.links[0] = l.links[0], conn
}

// cuttable reports whether a connection can be cut: not if the program brings credentials of its own.
func (l *lines) cuttable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.links[0] != nil
}

// cut closes the connections: calls and streams on them end with the reason.
func (l *lines) cut(reason string) {
	l.mu.Lock()
	links := l.links
	l.links = [2]*link{}
	l.mu.Unlock()
	for _, conn := range links {
		if conn != nil {
			conn.cut(reason)
		}
	}
}

// join counts a long-lived stream in. On an endpoint that has been removed it is ended at once: a picker that does not
// know of the removal yet may still pick it.
func (l *lines) join(call *Call) {
	l.mu.Lock()
	if l.streams == nil {
		l.streams = make(map[*Call]struct{})
	}
	l.streams[call] = struct{}{}
	removed := l.removed
	l.mu.Unlock()
	if removed {
		call.leave(reasonRemoved)
	}
}

// part counts a stream out that has ended.
func (l *lines) part(call *Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.streams, call)
}

// move ends the long-lived streams, so that they are opened elsewhere.
func (l *lines) move(reason string) {
	l.mu.Lock()
	streams := make([]*Call, 0, len(l.streams))
	for call := range l.streams {
		streams = append(streams, call)
	}
	l.mu.Unlock()
	for _, call := range streams {
		call.leave(reason)
	}
}

const reasonRemoved = "the endpoint was removed"

// remove moves the streams away for good. Calls under way run to their end.
func (l *lines) remove() {
	l.mu.Lock()
	l.removed = true
	l.mu.Unlock()
	l.move(reasonRemoved)
}
