package watchstream

import (
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

type state uint8

const (
	waiting  state = iota // to be created: in group.waiting
	creating              // the create is sent: in stream.inflight
	open                  // in stream.open
	paused                // cancelled on the server, because its consumer lags
	ended                 // no longer in group.watchers
)

// watcher is one watch. Everything but req and ch is guarded by group.mu.
type watcher[R any] struct {
	g    *group[R]
	req  Request
	ch   chan R
	done <-chan struct{} // of the context
	stop func() bool     // ends AfterFunc; nil if the context never ends

	state     state
	announced bool          // the created response was delivered
	ready     chan struct{} // closed when Watch may return; nil if it has
	id        int64         // on the stream, if open
	next      int64         // the revision to go on at; 0 before the first creation of a watch "from now"
	floor     int64         // events before this revision are dropped; next, but for progress
	held      []*mvccpb.Event
	heldBytes int         // their size, if the caller asked for fragments
	fragment  bool        // ask for fragments though the caller does not
	backlog   *backlog[R] // nil while the consumer keeps up

	before, after *watcher[R] // in group.waiting
}

func (w *watcher[R]) createRequest(id int64) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{
		Key:            w.req.Key,
		RangeEnd:       w.req.RangeEnd,
		StartRevision:  w.next,
		ProgressNotify: w.req.ProgressNotify,
		Filters:        w.req.Filters,
		PrevKv:         w.req.PrevKV,
		WatchId:        id,
		Fragment:       w.req.Fragment || w.fragment,
	}
}

// created takes the server's acceptance.
//
// # Where a watch without start revision starts
//
// The server registers it at the revision it has, say r, and sends it the events after r. The header of the answer has
// a revision too, say c. Before 3.6, c is r: the server reads its revision once and asks itself for a watch from there
// (v3rpc/watch.go, recvLoop). From 3.6 on it reads c after the registration, so writes may come in between: r ≤ c, and
// the events in (r, c] follow the answer. If the stream breaks before the first event, the client knows c only: to go
// on at c+1 loses what was between r and c, to go on anywhere before may repeat what was before r.
//
// So the watch is made to start at c, whatever the version: it goes on at c+1, and events up to c are dropped
// (receive). No caller can miss them. The server read c before it answered, and Watch returns after the answer: an
// event up to c is one from before Watch returned, and it was chance that the watch was registered in time for it.
// With that, whether and where the stream breaks makes no difference to what is delivered: every event after c, once.
//
// An answer that never arrives promises nothing: the watch is created once more, "from now", while Watch still waits.
func (w *watcher[R]) created(header *pb.ResponseHeader) {
	w.state = open
	if rev := header.GetRevision(); w.next == 0 && rev > 0 {
		w.next = rev + 1
	}
	w.floor = w.next
	if w.req.CreatedNotify && !w.announced {
		w.announced = true
		w.deliver(Response{Header: header, Created: true})
	}
	w.setReady()
}

func (w *watcher[R]) setReady() {
	if w.ready != nil {
		close(w.ready)
		w.ready = nil
	}
}

// receive takes events. A response has whole revisions, many of them if the watcher was behind, and its header tells
// the revision of the server, which is not that of the events: more may follow for revisions up to the header's. So
// only the events tell where to go on.
//
// If the response is a fragment that the caller asked for, it is held until the last one of the response has come, so
// that the caller gets what the server had to send in one piece. What is held is bounded as a backlog is; past that, and
// if the fragments are the watcher's own idea, only the last revision is held, which may go on in the next fragment,
// until it is known to be complete; the others are delivered.
func (w *watcher[R]) receive(resp *pb.WatchResponse) {
	events := w.unseen(resp.Events)
	if resp.Fragment && w.req.Fragment {
		if len(w.held) == 0 {
			w.heldBytes = 0
		}
		w.heldBytes += size(events)
	}
	if len(w.held) > 0 {
		events = append(w.held, events...)
		w.held = nil
	}
	if len(events) == 0 {
		return
	}
	if resp.Fragment {
		if w.mayHold(len(events)) {
			w.held = events
			return
		}
		last := revision(events[len(events)-1])
		cut := sort.Search(len(events), func(i int) bool { return revision(events[i]) >= last })
		if cut == 0 {
			w.held = events
			return
		}
		w.held = events[cut:]
		w.heldBytes = size(w.held)
		events = events[:cut:cut] // so that the consumer cannot append over what is held
	}
	w.floor = revision(events[len(events)-1]) + 1
	w.next = max(w.next, w.floor)
	w.deliver(Response{Header: resp.Header, Events: events})
	if w.backlog != nil && w.backlog.full(&w.g.e.cfg) {
		w.pause()
	}
}

// mayHold returns whether so many events of a response that is not complete may all be held until it is.
func (w *watcher[R]) mayHold(events int) bool {
	c := &w.g.e.cfg
	return w.req.Fragment && w.heldBytes < c.MaxPendingBytes && events < c.MaxPendingEvents
}

// unseen returns the events that were not delivered yet, which are all of them, except those before the start of a
// watch from now on (see created).
func (w *watcher[R]) unseen(events []*mvccpb.Event) []*mvccpb.Event {
	if len(events) == 0 || revision(events[0]) >= w.floor {
		return events
	}
	return events[sort.Search(len(events), func(i int) bool { return revision(events[i]) >= w.floor }):]
}

func revision(e *mvccpb.Event) int64 { return e.GetKv().GetModRevision() }

// progress takes the server's word that all events up to the header's revision were sent. It is passed on, and the
// watch goes on after that revision. Where it tells less than what was delivered it is dropped: a request's progress
// may have been on the way when the watcher was created at a later revision.
//
// Servers before 3.4.25 and 3.5.8 answer a progress request out of turn, and for watchers that are behind, too. Nothing
// tells such an answer from a true one, so events up to its revision are delivered all the same if they come; but if
// the stream breaks before they do, they are lost.
func (w *watcher[R]) progress(header *pb.ResponseHeader) {
	rev := header.GetRevision()
	if rev+1 < w.next || len(w.held) > 0 {
		return
	}
	w.next = rev + 1
	w.deliver(Response{Header: header})
}

// largeEvent is the mean size of events from which a watcher that was paused is created with fragments.
const largeEvent = 4 << 10

// pause cancels the watcher on the server until its consumer has read half of its backlog: see backlog.pump.
//
// When it is created again the server will send what it missed in responses of up to a thousand revisions (mvcc,
// watchBatchMaxRevs), a GiB if each of them is a MiB. So it then asks for fragments, which are no larger than the
// server's limit of requests, and between which it can be paused. Not for small events: the server computes the size of
// a fragment anew with each event that it adds (v3rpc/watch.go, sendFragments), which for many small ones takes it
// seconds.
func (w *watcher[R]) pause() {
	w.g.stream.forget(w)
	w.state = paused
	w.held = nil
	if w.backlog.bytes >= largeEvent*w.backlog.events {
		w.fragment = true
	}
}

// leave takes the watcher off its group and the server.
func (w *watcher[R]) leave() {
	g := w.g
	switch w.state {
	case waiting:
		g.waiting.remove(w)
	case open:
		g.stream.forget(w)
	case creating, paused, ended:
		// The answer to a create in flight will find that it has ended.
	}
	w.state = ended
	w.held = nil
	delete(g.watchers, w)
	w.setReady()
	if len(g.watchers) == 0 {
		g.over()
	}
}

// end ends the watcher with a last response, behind what its consumer has yet to read.
func (w *watcher[R]) end(last *Response) {
	if w.contextEnded() {
		w.drop()
		return
	}
	w.deliver(*last)
	w.leave()
	if w.backlog != nil {
		w.backlog.last = true
	} else {
		w.shut()
	}
}

// endNow ends the watcher for Engine.Close: the last response takes the place of what its consumer has yet to read.
func (w *watcher[R]) endNow() {
	if w.contextEnded() {
		w.drop()
		return
	}
	w.leave()
	if w.backlog == nil { // or else the pump does it
		w.replace(w.g.e.cfg.Convert(closedResponse()))
		w.shut()
	}
}

// contextEnded returns whether the caller's context has ended. Abandon may be yet to come then: it has a goroutine of
// its own. But a caller who ends a context and after that closes the engine is to be told of the former only.
func (w *watcher[R]) contextEnded() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// abandon is called when the context has ended.
func (w *watcher[R]) abandon() {
	w.g.mu.Lock()
	defer w.g.mu.Unlock()
	w.drop()
}

// drop ends the watcher without a response.
func (w *watcher[R]) drop() {
	was := w.state
	if was != ended {
		w.leave()
	}
	if w.backlog != nil {
		w.backlog.abandon()
	} else if was != ended {
		w.shut()
	}
}

// queue is a list of waiting watchers, first in first out, from which any can be removed: while there is no stream,
// watchers may come and go without end, and must leave nothing behind.
type queue[R any] struct {
	head, tail *watcher[R]
}

func (q *queue[R]) push(w *watcher[R]) {
	w.before, w.after = q.tail, nil
	if q.tail != nil {
		q.tail.after = w
	} else {
		q.head = w
	}
	q.tail = w
}

func (q *queue[R]) pop() *watcher[R] {
	w := q.head
	if w != nil {
		q.remove(w)
	}
	return w
}

func (q *queue[R]) remove(w *watcher[R]) {
	if w.before != nil {
		w.before.after = w.after
	} else {
		q.head = w.after
	}
	if w.after != nil {
		w.after.before = w.before
	} else {
		q.tail = w.before
	}
	w.before, w.after = nil, nil
}
