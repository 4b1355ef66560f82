package watchstream

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// firstID is the first watch id that a stream chooses; the next ones follow it. 0 would leave the choice to the
	// server, which then counts from 0, as does a proxy whatever it is asked for. So an id from here in an answer is
	// one that was honoured.
	firstID = 1 << 20

	// allWatchers is the watch id of a response to the stream as a whole: progress that was asked for, and, in answers
	// to creates, refusals.
	allWatchers = -1

	// maxInflight bounds the creates that wait for their answers. It is large because a window costs a round trip.
	maxInflight = 1 << 14
)

// stream is one gRPC stream of a group: what the server knows of it and what is still to be told. Except for the
// constants above it and the channel, everything is guarded by group.mu.
//
// # Which watcher an answer to a create is for
//
// A server answers creates in the order of the requests, and since 3.4 it takes the watch ids that a client chooses. An
// answer is matched by its id, and a refusal, which may come without, is that of the oldest create in flight. This is
// all that is needed to have thousands in flight.
//
// A grpc-proxy ignores the ids, and does not keep the order either: each create waits for the proxy's own watcher, and
// a later one that shares an existing watcher is answered before. With an id of its own, and no order, nothing says
// which create an answer is for, so a proxy is asked for one at a time. Servers before 3.4 are treated so too. Which of
// them is at the other end shows in the first answer, therefore the first create of a stream goes alone.
type stream[R any] struct {
	g      *group[R]
	ctx    context.Context
	cancel context.CancelFunc
	client pb.Watch_WatchClient
	wake   chan struct{} // of capacity 1: there is something to send

	open     map[int64]*watcher[R] // by the id the server uses
	inflight []create[R]           // sent and not answered, oldest first
	window   int                   // how many inflight may have
	nextID   int64
	cancels  []int64 // ids to cancel
	asked    bool    // progress was asked for and not answered
}

// create is a create request in flight. Its watcher may have ended meanwhile.
type create[R any] struct {
	id int64
	w  *watcher[R]
}

func newStream[R any](
	ctx context.Context, cancel context.CancelFunc, g *group[R], client pb.Watch_WatchClient,
) *stream[R] {
	return &stream[R]{
		g: g, ctx: ctx, cancel: cancel, client: client,
		wake: make(chan struct{}, 1), open: make(map[int64]*watcher[R]), window: 1, nextID: firstID,
	}
}

func (s *stream[R]) wakeSender() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// send sends what there is to be sent until the stream ends. It returns the error that the transport had with a
// request, if that is not the stream's own end, which the receiver learns.
func (s *stream[R]) send() error {
	for {
		req, w := s.next()
		if req == nil {
			select {
			case <-s.wake:
				continue
			case <-s.ctx.Done():
				return nil
			}
		}
		err := s.client.Send(req)
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) || s.ctx.Err() != nil {
			return nil //nolint:nilerr // the stream's own end
		}
		// A key larger than a message may be, for instance: the fault of this watcher, and the others shall not share
		// its end. What is not its fault will be the same, or be over, on the next stream.
		if w != nil && judge(err) == fatal {
			s.reject(w, err)
			err = errCreateRejected
		}
		s.cancel()
		return err
	}
}

// next returns the next request, and the watcher whose create it is, or nil if there is none. Cancels come first, they
// relieve the server; progress last, so that it is of all watchers.
func (s *stream[R]) next() (*pb.WatchRequest, *watcher[R]) {
	g := s.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(s.cancels); n > 0 {
		id := s.cancels[n-1]
		s.cancels = s.cancels[:n-1]
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
			CancelRequest: &pb.WatchCancelRequest{WatchId: id},
		}}, nil
	}
	if len(s.inflight) < s.window {
		if w := g.waiting.pop(); w != nil {
			id := s.nextID
			s.nextID++
			w.state = creating
			s.inflight = append(s.inflight, create[R]{id, w})
			return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: w.createRequest(id)}}, w
		}
	}
	if g.progress && g.waiting.head == nil {
		g.progress = false
		s.asked = true
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
			ProgressRequest: &pb.WatchProgressRequest{},
		}}, nil
	}
	return nil, nil
}

// reject ends the watcher whose create could not be sent.
func (s *stream[R]) reject(w *watcher[R], err error) {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if w.state == creating {
		w.end(&Response{Canceled: true, Err: err})
	}
}

// receive takes one response. The error it returns is one that ends the stream.
func (s *stream[R]) receive(resp *pb.WatchResponse) error {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if resp.Created {
		return s.answer(resp)
	}
	if resp.WatchId == allWatchers {
		if !resp.Canceled && len(resp.Events) == 0 {
			s.asked = false
			for _, w := range s.open {
				w.progress(resp.Header)
			}
		}
		return nil
	}
	w := s.open[resp.WatchId]
	switch {
	case w == nil:
		// Cancelled or paused here, and the server did not know it yet.
	case resp.Canceled || resp.CompactRevision != 0:
		return s.refuse(w, resp)
	case len(resp.Events) == 0:
		w.progress(resp.Header)
	default:
		w.receive(resp)
	}
	return nil
}

// answer takes the answer to a create.
func (s *stream[R]) answer(resp *pb.WatchResponse) error {
	c, ok := s.answered(resp.WatchId)
	if !ok {
		return nil
	}
	if c.id == resp.WatchId {
		s.window = maxInflight
	}
	s.wakeSender() // there is room in the window
	refused := resp.Canceled || resp.CompactRevision != 0
	if !refused {
		s.g.refusedSince = time.Time{} // the token is good
	}
	switch {
	case c.w.state != creating:
		// Its context ended while the create was in flight.
		if !refused {
			s.cancelID(resp.WatchId)
		}
	case refused:
		return s.refuse(c.w, resp)
	default:
		c.w.id = resp.WatchId
		s.open[c.w.id] = c.w
		c.w.created(resp.Header)
	}
	return nil
}

// answered takes the create which the answer with this id is for out of those in flight.
func (s *stream[R]) answered(id int64) (create[R], bool) {
	if len(s.inflight) == 0 {
		return create[R]{}, false
	}
	at := 0
	if id != allWatchers {
		at = max(0, slices.IndexFunc(s.inflight, func(c create[R]) bool { return c.id == id }))
	}
	c := s.inflight[at]
	if at > 0 {
		s.inflight = slices.Delete(s.inflight, at, at+1)
		return c, true
	}
	s.inflight[0] = create[R]{}
	s.inflight = s.inflight[1:]
	if len(s.inflight) == 0 {
		s.inflight = nil // and with it what is before the slice's start
	}
	return c, true
}

// refuse takes the server's end of a watch, open or not yet. A refused token is not the watcher's fault: it is created
// again on a stream with a new one.
func (s *stream[R]) refuse(w *watcher[R], resp *pb.WatchResponse) error {
	err := reasonError(resp.CancelReason)
	if err != nil && judge(err) == unauthenticated && s.g.mayRenewToken() {
		if w.state == open {
			delete(s.open, w.id)
		}
		w.held = nil
		s.g.enqueue(w)
		return errTokenRefused
	}
	w.end(&Response{
		Header:          resp.Header,
		Events:          resp.Events,
		CompactRevision: resp.CompactRevision,
		Canceled:        true,
		CancelReason:    resp.CancelReason,
		Err:             err,
	})
	return nil
}

// forget makes the server forget an open watcher. That is necessary too for one that the server has cancelled because
// of a compaction: it keeps such a watcher as one that is not in sync, and until it is cancelled no progress request of
// the stream is answered (seen in 3.7, watchableStore.progressIfSync).
func (s *stream[R]) forget(w *watcher[R]) {
	delete(s.open, w.id)
	s.cancelID(w.id)
}

func (s *stream[R]) cancelID(id int64) {
	s.cancels = append(s.cancels, id)
	s.wakeSender()
}

// release makes the watchers of a stream that has ended wait for the next one.
func (s *stream[R]) release() {
	for w := range s.g.watchers {
		if w.state == creating || w.state == open {
			w.held = nil
			s.g.enqueue(w)
		}
	}
	if s.asked {
		s.g.progress = true
	}
}
