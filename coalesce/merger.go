package coalesce

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/retry"
)

// merger is what the reads of NewKV and the writes of a Writer have in common.
//
// Calls of one group share a lane. A lane has slots; who has one may have a request under way:
//
//   - a caller who finds all slots free, for its own call, under its own context;
//   - a sender, a goroutine which takes what is in the queue again and again, and ends when it finds nothing;
//   - the callers of a request that was refused, together, while they make their calls by themselves. The last of them
//     gives the slot back.
//
// A slot that is given back while calls wait gets a sender. So whatever waits has somebody to send it, and there is no
// goroutine while nothing waits: every request ends at the latest when its last caller has gone, since that cancels it.
//
// Writes of one key keep their order: what a request writes is held, and a call that is in the way of what is held, or of
// a call before it in the queue, stays in the queue. Some slot is in use then, and whoever has it looks at the queue when
// its request has ended.
type merger struct {
	kv     clientv3.KV
	writes bool
	opts   options
	calls  sync.Pool // of *call; each merger has its own, since in tests channels belong to the bubble they are made in

	mu sync.Mutex // guards what follows, the lanes, and of calls and batches what they say
	// The lanes of calls without metadata, by far the most common: linearizable and serializable.
	plain [2]lane
	// The others, while they are in use.
	others   map[group]*lane
	maxOps   int
	maxBytes int
	keyBytes int // how large a key-value is expected to be
}

// lane is where the calls of a group wait.
type lane struct {
	merger *merger
	group  group
	ctx    context.Context //nolint:containedctx // what the calls of the group have in common
	busy   int             // slots in use
	queue  queue

	// Of writes, what those under way have to themselves: keys, or all of them.
	held    map[string]struct{}
	heldAll bool
}

func newMerger(kv clientv3.KV, writes bool, opts []Option) *merger {
	m := &merger{kv: kv, writes: writes, opts: newOptions(opts), others: make(map[group]*lane)}
	m.calls.New = func() any { return &call{done: make(chan struct{}, 1)} }
	m.maxOps, m.maxBytes = m.opts.maxOps, m.opts.maxBytes
	for i := range m.plain {
		m.plain[i] = lane{merger: m, group: group{serializable: i == 1}, ctx: context.Background()}
	}
	return m
}

func (m *merger) newCall() *call { return m.calls.Get().(*call) }

// free takes back a call that nobody else knows any more.
func (m *merger) free(c *call) {
	*c = call{done: c.done}
	m.calls.Put(c)
}

// laneOf returns the lane of a group, to which the call with context ctx belongs. The lock is held.
func (m *merger) laneOf(ctx context.Context, g group) *lane {
	switch g {
	case m.plain[0].group:
		return &m.plain[0]
	case m.plain[1].group:
		return &m.plain[1]
	}
	l := m.others[g]
	if l == nil {
		l = &lane{merger: m, group: g, ctx: m.opts.contextOf(ctx)}
		m.others[g] = l
	}
	return l
}

// unsent makes what a caller is told whose call was given up before it was sent.
func (m *merger) unsent(ctx context.Context) error {
	if m.writes {
		return &retry.UnsentError{Err: ctx.Err()}
	}
	return ctx.Err()
}

// do makes a call, alone or with others.
func (m *merger) do(ctx context.Context, c *call, serializable bool) (clientv3.OpResponse, error) {
	g, ok := m.opts.groupOf(ctx, serializable)
	if !ok {
		op := c.op
		m.free(c)
		return m.kv.Do(ctx, op)
	}
	m.mu.Lock()
	if m.maxOps == 1 && !m.writes { // nothing to merge, and no order to keep
		m.mu.Unlock()
		op := c.op
		m.free(c)
		return m.kv.Do(ctx, op)
	}
	l := m.laneOf(ctx, g)
	if l.busy == 0 {
		l.busy++
		l.hold(c)
		m.mu.Unlock()
		return l.doAlone(ctx, c)
	}
	if ctx.Err() != nil {
		m.mu.Unlock()
		m.free(c)
		return clientv3.OpResponse{}, m.unsent(ctx)
	}
	l.queue.pushBack(c)
	if l.busy < m.opts.inFlight && !l.inTheWay(c) {
		l.busy++
		go l.send()
	}
	m.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		if err := l.leave(ctx, c); err != nil {
			return clientv3.OpResponse{}, err
		}
		<-c.done // the answer has come at the same moment
	}
	resp, err := c.resp, c.err
	if c.again {
		return l.doAlone(ctx, c)
	}
	m.free(c)
	return resp, err
}

// doAlone makes a call by itself: in a slot of its own, or after its batch was refused in that of the batch, which is
// given back when nobody of it is left.
func (l *lane) doAlone(ctx context.Context, c *call) (resp clientv3.OpResponse, err error) {
	defer func() {
		l.merger.mu.Lock()
		l.merger.learn(resp)
		l.yield(c)
		last := true
		if b := c.batch; b != nil {
			b.present--
			last = b.present == 0
		}
		if last {
			l.release()
		}
		l.merger.mu.Unlock()
		l.merger.free(c)
	}()
	return l.merger.kv.Do(ctx, c.op)
}

// leave takes a caller out whose context has ended, and returns what it is told. It returns nil if the caller is being
// told already.
func (l *lane) leave(ctx context.Context, c *call) error {
	l.merger.mu.Lock()
	defer l.merger.mu.Unlock()
	switch b := c.batch; {
	case c.told:
		return nil
	case b == nil:
		l.queue.remove(c)
		return l.merger.unsent(ctx)
	default:
		c.left = true
		if b.present--; b.present == 0 {
			b.cancel()
		}
		return ctx.Err()
	}
}

// release gives a slot back. The lock is held.
func (l *lane) release() {
	if l.queue.first != nil {
		go l.send() // the slot is its from now on
		return
	}
	l.busy--
	if l.busy == 0 && l != &l.merger.plain[0] && l != &l.merger.plain[1] {
		delete(l.merger.others, l.group)
	}
}

// send sends what waits, one request after the other, until there is nothing.
func (l *lane) send() {
	b := &batch{}
	for {
		// Those who have just been told, and any others who are about to call, do so before the queue is taken: not a
		// wait, since it costs nothing when nobody else is to run.
		runtime.Gosched()
		if !l.take(b) {
			return
		}
		resp, err := l.exchange(b)
		b.cancel()
		if !l.tell(b, resp, err) {
			return
		}
		b.reset()
	}
}

// take fills a batch from the queue. It returns false, and has given back the slot, if there is nothing that can go.
func (l *lane) take(b *batch) bool {
	m := l.merger
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.queue.first == nil {
		l.release()
		return false
	}
	scan := passBound * m.maxOps
	for c := l.queue.first; c != nil && len(b.calls) < m.maxOps && scan > 0; scan-- {
		next := c.next
		bytes := c.bytes + c.keys*m.keyBytes
		if len(b.calls) > 0 && b.bytes+bytes > m.maxBytes {
			break
		}
		if !l.inTheWay(c) {
			l.hold(c)
			l.queue.remove(c)
			c.batch = b
			b.calls = append(b.calls, c)
			b.bytes += bytes
		}
		if c.alone {
			break // it goes by itself, or waits while anything else is under way, and none passes it
		}
		c = next
	}
	if len(b.calls) == 0 {
		l.busy-- // another slot is in use, by what is in the way
		return false
	}
	b.present = len(b.calls)
	b.ctx, b.cancel = context.WithCancel(l.ctx)
	return true
}

// inTheWay reports whether a write has to wait for one that is under way. The lock is held.
func (l *lane) inTheWay(c *call) bool {
	if !l.merger.writes {
		return false
	}
	if c.alone {
		return len(l.held) > 0 || l.heldAll
	}
	_, held := l.held[c.key]
	return held || l.heldAll
}

// hold keeps other writes out of the way of one that is about to be sent. The lock is held.
func (l *lane) hold(c *call) {
	switch {
	case !l.merger.writes:
	case c.alone:
		l.heldAll = true
	default:
		if l.held == nil {
			l.held = make(map[string]struct{})
		}
		l.held[c.key] = struct{}{}
	}
}

// yield ends what hold began. The lock is held.
func (l *lane) yield(c *call) {
	switch {
	case !l.merger.writes:
	case c.alone:
		l.heldAll = false
	default:
		delete(l.held, c.key)
	}
}

// passBound is how many times as many calls as fit into a request are looked at for it.
const passBound = 4

// exchange sends a batch and returns the answer: to a single operation its own.
func (l *lane) exchange(b *batch) (clientv3.OpResponse, error) {
	if len(b.calls) == 1 {
		return l.merger.kv.Do(b.ctx, b.calls[0].op)
	}
	for _, c := range b.calls {
		b.ops = append(b.ops, c.op)
	}
	resp, err := l.merger.kv.Txn(b.ctx).Then(b.ops...).Commit()
	if err != nil {
		return clientv3.OpResponse{}, err
	}
	if len(resp.Responses) != len(b.calls) {
		return clientv3.OpResponse{}, fmt.Errorf("%w: %d responses to %d operations", errMisfit, len(resp.Responses),
			len(b.calls))
	}
	return resp.OpResponse(), nil
}

var errMisfit = errors.New("coalesce: the answer does not fit the request")

// tell tells the callers of a batch what has come of it, or has them or the queue try again. It returns false if the
// slot is no longer the sender's.
func (l *lane) tell(b *batch, resp clientv3.OpResponse, err error) bool {
	m := l.merger
	m.mu.Lock()
	if len(b.calls) > 1 && err != nil && m.shrink(b, err) {
		l.requeue(b)
		m.mu.Unlock()
		return true
	}
	again := len(b.calls) > 1 && err != nil && !m.concernsAll(err) && b.present > 0
	waiting := b.calls[:0]
	for i, c := range b.calls {
		if c.left || !again {
			l.yield(c)
		}
		if c.left {
			continue
		}
		c.told, c.again, c.err = true, again, err
		switch {
		case err != nil:
		case len(b.calls) == 1:
			c.resp = resp
		default:
			c.resp, c.err = part(resp.Txn(), i)
		}
		if c.err == nil {
			m.learn(c.resp)
		}
		waiting = append(waiting, c)
	}
	m.mu.Unlock()
	for _, c := range waiting {
		c.done <- struct{}{}
	}
	return !again
}

// shrink lowers the bound that a refused batch has gone beyond, and reports whether there was one. The lock is held.
func (m *merger) shrink(b *batch, err error) bool {
	switch {
	case errors.Is(err, rpctypes.ErrTooManyOps):
		m.maxOps = min(m.maxOps, len(b.calls)/2)
	case m.writes && errors.Is(err, rpctypes.ErrRequestTooLarge):
		m.maxBytes = min(m.maxBytes, b.bytes/2)
	default:
		return false
	}
	return true
}

// requeue puts the calls of a batch back to where they were. The lock is held.
func (l *lane) requeue(b *batch) {
	for _, c := range slices.Backward(b.calls) {
		l.yield(c)
		if !c.left {
			c.batch = nil
			l.queue.pushFront(c)
		}
	}
}

// concernsAll reports whether the failure of a request is that of each of its calls: it says something about the
// connection, the member or the cluster, or it leaves open whether writes were applied. Any other may be about a single
// operation, and has changed nothing.
func (m *merger) concernsAll(err error) bool {
	if m.writes && clientv3.MayHaveApplied(err) || errors.Is(err, rpctypes.ErrTooManyRequests) {
		return true
	}
	code := status.Code(err)
	if known, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		code = known.Code()
	}
	switch code {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Unauthenticated, codes.DataLoss:
		return true
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// learn goes by the key-values of a response in what it expects of others: it believes in large ones at once, and in
// small ones little by little. The lock is held.
func (m *merger) learn(resp clientv3.OpResponse) {
	get := resp.Get()
	if get == nil || len(get.Kvs) == 0 {
		return
	}
	bytes := 0
	for _, kv := range get.Kvs {
		bytes += len(kv.Key) + len(kv.Value)
	}
	bytes /= len(get.Kvs)
	if bytes < m.keyBytes {
		bytes += (m.keyBytes - bytes) * (memory - 1) / memory
	}
	m.keyBytes = bytes
}

// memory is how many responses with smaller key-values it takes to halve, or so, what is expected.
const memory = 64

// part returns the response to one operation of a transaction. A response within one has the revision only; in a
// response of its own the header says where it comes from, too.
func part(txn *clientv3.TxnResponse, i int) (clientv3.OpResponse, error) {
	switch r := txn.Responses[i].GetResponse().(type) {
	case *pb.ResponseOp_ResponseRange:
		if r.ResponseRange != nil {
			r.ResponseRange.Header = complete(r.ResponseRange.Header, txn.Header)
			return (*clientv3.GetResponse)(r.ResponseRange).OpResponse(), nil
		}
	case *pb.ResponseOp_ResponsePut:
		if r.ResponsePut != nil {
			r.ResponsePut.Header = ofWrite(r.ResponsePut.Header, txn.Header)
			return (*clientv3.PutResponse)(r.ResponsePut).OpResponse(), nil
		}
	case *pb.ResponseOp_ResponseDeleteRange:
		if r.ResponseDeleteRange != nil {
			r.ResponseDeleteRange.Header = ofWrite(r.ResponseDeleteRange.Header, txn.Header)
			return (*clientv3.DeleteResponse)(r.ResponseDeleteRange).OpResponse(), nil
		}
	}
	return clientv3.OpResponse{}, errMisfit
}

// complete fills in what the header of an operation leaves to that of its transaction.
func complete(h, txn *pb.ResponseHeader) *pb.ResponseHeader {
	if h == nil {
		h = &pb.ResponseHeader{Revision: txn.GetRevision()}
	}
	h.ClusterId, h.MemberId, h.RaftTerm = txn.GetClusterId(), txn.GetMemberId(), txn.GetRaftTerm()
	return h
}

// ofWrite is complete for a write, whose revision is that of its transaction: a deletion that finds nothing would have
// the one before or that one, as there are others in front of it or not.
func ofWrite(h, txn *pb.ResponseHeader) *pb.ResponseHeader {
	h = complete(h, txn)
	h.Revision = txn.GetRevision()
	return h
}
