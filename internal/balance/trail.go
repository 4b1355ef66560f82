package balance

import (
	"slices"
	"sync"
)

// Trail remembers the endpoints on which the streams of one kind have ended since one of them last worked, so that the
// next stream goes elsewhere. The zero Trail remembers none. It is safe for concurrent use.
type Trail struct {
	mu    sync.Mutex
	ended []*Endpoint
}

// Lead makes a stream's call avoid the endpoints on the trail.
func (t *Trail) Lead(call *Call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	call.avoid = append(call.avoid[:0], t.ended...)
}

// Ended records that the call's stream has ended. Whoever ended it, another endpoint is the better choice now: streams
// of this kind are meant to last.
func (t *Trail) Ended(call *Call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := call.endpoint.Load(); e != nil && !slices.Contains(t.ended, e) {
		t.ended = append(t.ended, e)
	}
}

// Working records that a stream works: all endpoints are as good as any again. A stream that works for one message and
// ends is the only one on the trail then.
func (t *Trail) Working() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = t.ended[:0]
}
