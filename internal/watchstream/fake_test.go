package watchstream

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

var errCut = status.Error(codes.Unavailable, "connection cut")

// fakeClient is a pb.WatchClient whose streams are served by a test, one accept after the other.
type fakeClient struct {
	accepts chan *fakeStream
	refuse  func() error // asked before each stream; nil: none is refused
	depth   int          // requests that a stream takes before Send blocks
}

func (c *fakeClient) Watch(
	ctx context.Context, _ ...grpc.CallOption,
) (grpc.BidiStreamingClient[pb.WatchRequest, pb.WatchResponse], error) {
	if c.refuse != nil {
		if err := c.refuse(); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	s := &fakeStream{ctx: ctx, requests: make(chan *pb.WatchRequest, c.depth), answers: make(chan answer)}
	select {
	case c.accepts <- s:
		return s, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// fakeStream is both ends of a stream: Send and Recv are the engine's, the rest is the test's.
type fakeStream struct {
	grpc.ClientStream
	t        *testing.T
	ctx      context.Context
	requests chan *pb.WatchRequest
	answers  chan answer
	sendErr  func(*pb.WatchRequest) error // what Send returns; nil: nothing
}

type answer struct {
	resp *pb.WatchResponse
	err  error
}

func (s *fakeStream) Send(req *pb.WatchRequest) error {
	if s.sendErr != nil {
		if err := s.sendErr(req); err != nil {
			return err
		}
	}
	select {
	case s.requests <- req:
		return nil
	case <-s.ctx.Done():
		return io.EOF
	}
}

func (s *fakeStream) Recv() (*pb.WatchResponse, error) {
	select {
	case a := <-s.answers:
		return a.resp, a.err
	case <-s.ctx.Done():
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
}

// reply sends responses to the engine, and returns whether the stream lived long enough for it to get them.
func (s *fakeStream) reply(resps ...*pb.WatchResponse) bool {
	for _, resp := range resps {
		select {
		case s.answers <- answer{resp: resp}:
		case <-s.ctx.Done():
			return false
		}
	}
	return true
}

// end ends the stream with the error.
func (s *fakeStream) end(err error) {
	select {
	case s.answers <- answer{err: err}:
	case <-s.ctx.Done():
	}
}

// idle fails the test if there is a request.
func (s *fakeStream) idle() {
	s.t.Helper()
	synctest.Wait()
	select {
	case req := <-s.requests:
		s.t.Fatalf("unexpected request %v", req)
	default:
	}
}

func (s *fakeStream) request() *pb.WatchRequest {
	s.t.Helper()
	synctest.Wait()
	select {
	case req := <-s.requests:
		return req
	default:
		s.t.Fatal("no request on the stream")
		return nil
	}
}

func (s *fakeStream) create() *pb.WatchCreateRequest {
	s.t.Helper()
	req := s.request()
	if req.GetCreateRequest() == nil {
		s.t.Fatalf("request %v, want a create", req)
	}
	return req.GetCreateRequest()
}

// creates returns the creates that are on the way, in the order of their keys.
func (s *fakeStream) creates(n int) []*pb.WatchCreateRequest {
	s.t.Helper()
	var all []*pb.WatchCreateRequest
	for range n {
		all = append(all, s.create())
	}
	slices.SortFunc(all, func(a, b *pb.WatchCreateRequest) int { return slices.Compare(a.Key, b.Key) })
	return all
}

func (s *fakeStream) cancel() int64 {
	s.t.Helper()
	req := s.request()
	if req.GetCancelRequest() == nil {
		s.t.Fatalf("request %v, want a cancel", req)
	}
	return req.GetCancelRequest().WatchId
}

// accept takes a create and accepts it at the revision.
func (s *fakeStream) accept(rev int64) *pb.WatchCreateRequest {
	s.t.Helper()
	req := s.create()
	s.reply(created(req.WatchId, rev))
	synctest.Wait()
	return req
}

func (s *fakeStream) ended() bool {
	synctest.Wait()
	return s.ctx.Err() != nil
}

func header(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }

func created(id, rev int64) *pb.WatchResponse {
	return &pb.WatchResponse{Header: header(rev), WatchId: id, Created: true}
}

func refused(id int64, reason string) *pb.WatchResponse {
	return &pb.WatchResponse{Header: header(1), WatchId: id, Created: true, Canceled: true, CancelReason: reason}
}

func compacted(id, rev int64) *pb.WatchResponse {
	return &pb.WatchResponse{Header: header(0), WatchId: id, Canceled: true, CompactRevision: rev}
}

func progress(id, rev int64) *pb.WatchResponse {
	return &pb.WatchResponse{Header: header(rev), WatchId: id}
}

// events makes a response with one event for each revision.
func events(id int64, revs ...int64) *pb.WatchResponse {
	resp := &pb.WatchResponse{Header: header(revs[len(revs)-1]), WatchId: id}
	for _, rev := range revs {
		resp.Events = append(resp.Events, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("k"), ModRevision: rev}})
	}
	return resp
}

func fragment(resp *pb.WatchResponse) *pb.WatchResponse {
	resp.Fragment = true
	return resp
}

// bench is an engine on a fake client.
type bench struct {
	*Engine[Response]
	t      *testing.T
	client *fakeClient
}

// bubble runs the test in a synctest bubble with an engine, which it closes in the end.
func bubble(t *testing.T, cfg Config[Response], test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, cfg)
		test(t, b)
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func newBench(t *testing.T, cfg Config[Response]) *bench {
	client := &fakeClient{accepts: make(chan *fakeStream), depth: 1 << 15}
	cfg.Client = client
	cfg.Convert = func(r *Response) Response { return *r }
	return &bench{Engine: New(cfg), t: t, client: client}
}

// stream waits for the engine to open a stream; in a bubble this takes no time, whatever the backoff.
func (b *bench) stream() *fakeStream {
	s := <-b.client.accepts
	s.t = b.t
	return s
}

// noStream fails the test if the engine is opening a stream.
func (b *bench) noStream() {
	b.t.Helper()
	synctest.Wait()
	select {
	case <-b.client.accepts:
		b.t.Fatal("unexpected stream")
	default:
	}
}

// watch starts a Watch that may block and returns what becomes its channel.
func (b *bench) watch(ctx context.Context, req Request) <-chan (<-chan Response) {
	opened := make(chan (<-chan Response), 1)
	go func() { opened <- b.Watch(ctx, req) }()
	synctest.Wait()
	return opened
}

// opened returns the channel of a Watch that must have returned.
func (b *bench) opened(opening <-chan (<-chan Response)) <-chan Response {
	b.t.Helper()
	synctest.Wait()
	select {
	case ch := <-opening:
		return ch
	default:
		b.t.Fatal("Watch has not returned")
		return nil
	}
}

// open opens a watch of key k at the revision, 0 being now, on the stream, whose server is at revision 10. It returns
// the watch id and the channel. A nil stream is accepted.
func (b *bench) open(s **fakeStream, req Request) (int64, <-chan Response) {
	b.t.Helper()
	if req.Key == nil {
		req.Key = []byte("k")
	}
	opening := b.watch(b.t.Context(), req)
	if *s == nil {
		*s = b.stream()
	}
	creq := (*s).accept(10)
	return creq.WatchId, b.opened(opening)
}

func (b *bench) next(ch <-chan Response) Response {
	b.t.Helper()
	synctest.Wait()
	select {
	case r, ok := <-ch:
		if !ok {
			b.t.Fatal("channel closed, want a response")
		}
		return r
	default:
		b.t.Fatal("no response")
		return Response{}
	}
}

// want takes a response that must have exactly the events of these revisions.
func (b *bench) want(ch <-chan Response, revs ...int64) {
	b.t.Helper()
	r := b.next(ch)
	var got []int64
	for _, e := range r.Events {
		got = append(got, e.Kv.ModRevision)
	}
	if !slices.Equal(got, revs) || r.Canceled || r.Created {
		b.t.Fatalf("response %+v, want events of revisions %v", r, revs)
	}
}

// nothing fails the test if there is a response.
func (b *bench) nothing(ch <-chan Response) {
	b.t.Helper()
	synctest.Wait()
	select {
	case r, ok := <-ch:
		if !ok {
			b.t.Fatal("channel closed, want it open")
		}
		b.t.Fatalf("unexpected response %+v", r)
	default:
	}
}

func (b *bench) closed(ch <-chan Response) {
	b.t.Helper()
	synctest.Wait()
	select {
	case r, ok := <-ch:
		if ok {
			b.t.Fatalf("response %+v, want the channel closed", r)
		}
	default:
		b.t.Fatal("the channel is open, want it closed")
	}
}

// last takes the last response, behind which the channel is closed.
func (b *bench) last(ch <-chan Response) Response {
	b.t.Helper()
	r := b.next(ch)
	if !r.Canceled {
		b.t.Fatalf("response %+v, want the last one", r)
	}
	b.closed(ch)
	return r
}

func withMetadata(ctx context.Context, kv ...string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(kv...))
}
