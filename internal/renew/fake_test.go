package renew

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fakeClient is a pb.LeaseClient whose streams are served by a handler, each in a goroutine of its own.
type fakeClient struct {
	pb.LeaseClient // not to be called

	// open, if not nil, runs in the call that opens a stream, the nth, and may block or refuse.
	open func(ctx context.Context, n int) error
	// serve is the server's handler.
	serve func(st *fakeStream) error
	// room is how many requests a stream buffers before Send blocks; 0 means plenty.
	room int

	mu    sync.Mutex
	opens []time.Time
}

// fakeStream is one stream, with the client's methods; the handler uses the others.
type fakeStream struct {
	grpc.ClientStream // not to be called

	n         int // counted from 1
	ctx       context.Context
	requests  chan int64
	responses chan *pb.LeaseKeepAliveResponse
	ended     chan struct{} // closed when the handler has returned
	err       error         // then, what the client gets
}

func (c *fakeClient) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (pb.Lease_LeaseKeepAliveClient, error) {
	c.mu.Lock()
	c.opens = append(c.opens, time.Now())
	n := len(c.opens)
	c.mu.Unlock()
	if c.open != nil {
		if err := c.open(ctx, n); err != nil {
			return nil, err
		}
	}
	room := 4096
	if c.room > 0 {
		room = c.room
	}
	st := &fakeStream{
		n:         n,
		ctx:       ctx,
		requests:  make(chan int64, room),
		responses: make(chan *pb.LeaseKeepAliveResponse, 4096),
		ended:     make(chan struct{}),
	}
	go func() {
		defer close(st.ended)
		if st.err = c.serve(st); st.err == nil {
			st.err = io.EOF
		}
	}()
	return st, nil
}

// opened returns how many streams were asked for.
func (c *fakeClient) opened() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.opens)
}

func (st *fakeStream) Send(r *pb.LeaseKeepAliveRequest) error {
	select {
	case st.requests <- r.GetID():
		return nil
	case <-st.ended:
		return io.EOF
	case <-st.ctx.Done():
		return status.FromContextError(st.ctx.Err()).Err()
	}
}

func (st *fakeStream) Recv() (*pb.LeaseKeepAliveResponse, error) {
	select {
	case resp := <-st.responses:
		return resp, nil
	default:
	}
	select {
	case resp := <-st.responses:
		return resp, nil
	case <-st.ctx.Done():
		return nil, status.FromContextError(st.ctx.Err()).Err()
	case <-st.ended:
		select {
		case resp := <-st.responses:
			return resp, nil
		default:
			return nil, st.err
		}
	}
}

// next returns the next renewal, or the context's error.
func (st *fakeStream) next() (int64, error) {
	select {
	case id := <-st.requests:
		return id, nil
	case <-st.ctx.Done():
		return 0, st.ctx.Err()
	}
}

func (st *fakeStream) answer(id, ttl int64) {
	select {
	case st.responses <- &pb.LeaseKeepAliveResponse{Header: &pb.ResponseHeader{}, ID: id, TTL: ttl}:
	case <-st.ctx.Done():
	}
}

// pause takes time, unless the stream ends.
func (st *fakeStream) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-st.ctx.Done():
	}
}

// hang waits for the stream's end.
func (st *fakeStream) hang() error {
	<-st.ctx.Done()
	return st.ctx.Err()
}

// renewal is one request as the server saw it.
type renewal struct {
	stream int
	id     int64
	at     time.Duration
}

// journal collects renewals.
type journal struct {
	start time.Time
	mu    sync.Mutex
	list  []renewal
}

func newJournal() *journal { return &journal{start: time.Now()} }

func (j *journal) add(st *fakeStream, id int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.list = append(j.list, renewal{st.n, id, time.Since(j.start)})
}

func (j *journal) all() []renewal {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]renewal(nil), j.list...)
}

// of returns when the lease was renewed.
func (j *journal) of(id int64) []time.Duration {
	var at []time.Duration
	for _, r := range j.all() {
		if r.id == id {
			at = append(at, r.at)
		}
	}
	return at
}

// answering returns a handler that answers all renewals at once, with a TTL given by lease.
func answering(j *journal, ttl func(id int64) int64) func(*fakeStream) error {
	return func(st *fakeStream) error {
		for {
			id, err := st.next()
			if err != nil {
				return err
			}
			j.add(st, id)
			st.answer(id, ttl(id))
		}
	}
}

func always(ttl int64) func(int64) int64 { return func(int64) int64 { return ttl } }

// recorder is a Sink that remembers everything and complains about calls after Close.
type recorder struct {
	t     testing.TB
	start time.Time

	mu       sync.Mutex
	got      []time.Duration
	closed   bool
	reason   error
	closedAt time.Duration
}

func newRecorder(t testing.TB) *recorder { return &recorder{t: t, start: time.Now()} }

func (r *recorder) Offer(resp *pb.LeaseKeepAliveResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		r.t.Error("Offer after Close")
	}
	if resp.GetTTL() <= 0 {
		r.t.Error("offered a response without a TTL")
	}
	r.got = append(r.got, time.Since(r.start))
}

func (r *recorder) Close(reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		r.t.Error("closed twice")
	}
	r.closed, r.reason, r.closedAt = true, reason, time.Since(r.start)
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// wantOpen fails the test if the sink was closed.
func (r *recorder) wantOpen() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		r.t.Fatalf("closed after %v: %v", r.closedAt, r.reason)
	}
}

// wantClosed fails the test unless the sink was closed for the reason; it returns when.
func (r *recorder) wantClosed(reason error) time.Duration {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.t.Fatalf("open, want closed with %v", reason)
	}
	if !errors.Is(r.reason, reason) {
		r.t.Fatalf("closed with %v, want %v", r.reason, reason)
	}
	return r.closedAt
}

// bubble runs the test with fake time.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// start makes an engine that is closed with the test.
func start(t *testing.T, cfg Config) *Engine {
	t.Helper()
	e := New(cfg)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

// keep keeps the lease alive with a new recorder.
func keep(t *testing.T, e *Engine, ctx context.Context, id int64) *recorder {
	t.Helper()
	r := newRecorder(t)
	if err := e.KeepAlive(ctx, id, r); err != nil {
		t.Fatalf("KeepAlive: %v", err)
	}
	return r
}

// state returns whether the sink is closed, when and why.
func (r *recorder) state() (closed bool, at time.Duration, reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed, r.closedAt, r.reason
}

// last returns when the last response was offered.
func (r *recorder) last() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[len(r.got)-1]
}

// wantRest fails the test unless the engine has nothing to do and no goroutine.
func wantRest(t *testing.T, e *Engine) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running || e.stream != nil || len(e.leases) > 0 || e.live != 0 || e.load != 0 {
		t.Errorf("an engine without callers does not rest: %d leases", len(e.leases))
	}
}

// locked runs f with the engine locked, and wakes it.
func locked(e *Engine, f func(now time.Duration)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	f(now)
	e.wakeBy(now)
}

// pass lets time pass, then waits until everything has come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var errGone = status.Error(codes.Unavailable, "connection gone")
