package coalesce

import (
	"context"

	"github.com/seed-d18e112a/clientv3"
)

// call is a caller's operation that waits for its turn, or for its answer.
//
// The fields above done belong to the caller until the call is queued. After that the merger's lock guards them, but for
// resp and err: the sender writes them before it tells the caller, who reads them after that.
type call struct {
	op    clientv3.Op
	key   string // of a write: no other of its request may have it
	alone bool   // it shares a request with no other, and none passes it in the queue
	bytes int    // in the request
	keys  int    // in the response, at most

	batch *batch // nil while it is in the queue
	told  bool   // the caller is being told: done has a value, or is about to
	left  bool   // the caller has gone, and nobody is to be told

	prev, next *call // in the queue

	done  chan struct{} // has room for one
	resp  clientv3.OpResponse
	err   error
	again bool // the caller is to make the call by itself, and then to settle with batch
}

// batch is what goes out as one request.
type batch struct {
	calls   []*call
	ops     []clientv3.Op
	bytes   int
	ctx     context.Context //nolint:containedctx // the request's, which its callers share
	cancel  context.CancelFunc
	present int // callers who still wait, or make their calls by themselves; guarded by the merger's lock
}

// reset makes an empty batch of one that has been answered. Nothing of that may be kept alive.
func (b *batch) reset() {
	clear(b.calls)
	clear(b.ops)
	b.calls, b.ops, b.bytes, b.present = b.calls[:0], b.ops[:0], 0, 0
}

// queue is the calls that wait, in the order in which they came.
type queue struct{ first, last *call }

func (q *queue) pushBack(c *call) {
	c.prev, c.next = q.last, nil
	if q.last == nil {
		q.first = c
	} else {
		q.last.next = c
	}
	q.last = c
}

func (q *queue) pushFront(c *call) {
	c.prev, c.next = nil, q.first
	if q.first == nil {
		q.last = c
	} else {
		q.first.prev = c
	}
	q.first = c
}

func (q *queue) remove(c *call) {
	if c.prev == nil {
		q.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		q.last = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
}
