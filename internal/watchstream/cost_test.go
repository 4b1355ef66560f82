package watchstream

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// acceptAll serves the engine's streams one after the other: every create is accepted at revision 10. Each stream is
// handed to onStream, if that is not nil, when its server has started.
func (b *bench) acceptAll(onStream func(*fakeStream)) (stop func()) {
	done := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			select {
			case <-done:
				return
			case s := <-b.client.accepts:
				serving.Go(func() {
					for {
						select {
						case req := <-s.requests:
							if c := req.GetCreateRequest(); c != nil {
								s.reply(created(c.WatchId, 10))
							}
						case <-s.ctx.Done():
							return
						}
					}
				})
				if onStream != nil {
					onStream(s)
				}
			}
		}
	})
	return func() {
		close(done)
		serving.Wait()
	}
}

// generous is the limit of what takes some 20 ms on an idle machine: it is for what grows with the square of n.
const generous = 5 * time.Second

func heapInUse() int64 {
	var stats runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// Ten thousand idle watches cost no goroutine and less than a KiB each, whether they share a context or have their own,
// and after they were reopened.
func TestIdleWatchesAreCheap(t *testing.T) {
	const n = 10_000
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("own context %v", own), func(t *testing.T) {
			b := newBench(t, Config[Response]{})
			streams := make(chan *fakeStream, 2)
			defer b.acceptAll(func(s *fakeStream) { streams <- s })()
			defer b.Close()
			shared, cancel := context.WithCancel(t.Context())
			defer cancel()
			ctxs := make([]context.Context, n)
			for i := range ctxs {
				ctxs[i] = shared
				if own {
					var cancel context.CancelFunc
					ctxs[i], cancel = context.WithCancel(t.Context())
					defer cancel()
				}
			}
			chs := make([]<-chan Response, n)
			keys := make([][]byte, n)
			for i := range keys {
				keys[i] = fmt.Append(nil, i)
			}
			chs[0] = b.Watch(t.Context(), Request{Key: []byte("first")})
			s := <-streams
			goroutines, heap := runtime.NumGoroutine(), heapInUse()

			var opening sync.WaitGroup
			begin := time.Now()
			const openers = 100 // few, because the runtime keeps what it knew of a goroutine
			for from := range openers {
				opening.Go(func() {
					for i := from; i < n; i += openers {
						chs[i] = b.Watch(ctxs[i], Request{Key: keys[i]})
					}
				})
			}
			opening.Wait()
			opened := time.Since(begin)
			each := (heapInUse() - heap) / n
			if got := runtime.NumGoroutine(); got > goroutines {
				t.Errorf("%d goroutines, want %d as before", got, goroutines)
			}

			begin = time.Now()
			s.end(errCut)
			<-streams
			for b.opens() < n+1 {
				runtime.Gosched()
			}
			reopened := time.Since(begin)
			again := (heapInUse() - heap) / n
			if got := runtime.NumGoroutine(); got > goroutines {
				t.Errorf("%d goroutines after reopening, want %d as before", got, goroutines)
			}
			begin = time.Now()
			b.Close()
			closed := time.Since(begin)
			t.Logf("%d bytes a watch, %d after reopening; opened in %v, reopened in %v, closed in %v",
				each, again, opened, reopened, closed)
			if max(each, again) > 1024 {
				t.Errorf("%d bytes a watch, %d after reopening; want at most 1024", each, again)
			}
			if closed > generous {
				t.Errorf("closing took %v", closed)
			}
			runtime.KeepAlive(chs)
		})
	}
}

// opens returns the number of open watches.
func (b *bench) opens() int {
	b.mu.Lock()
	g := b.groups[""]
	b.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stream == nil {
		return 0
	}
	return len(g.stream.open)
}

func TestCancellingManyWatchesIsQuick(t *testing.T) {
	const n = 10_000
	b := newBench(t, Config[Response]{})
	defer b.acceptAll(nil)()
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	stays := b.Watch(t.Context(), Request{Key: []byte("stays")})
	chs := make([]<-chan Response, n)
	for i := range chs {
		chs[i] = b.Watch(ctx, Request{Key: []byte("k"), StartRevision: 1})
	}
	begin := time.Now()
	cancel()
	for _, ch := range chs {
		if r, ok := <-ch; ok {
			t.Fatalf("response %+v, want the channel closed", r)
		}
	}
	if d := time.Since(begin); d > generous {
		t.Errorf("the watches ended after %v", d)
	}
	select {
	case r, ok := <-stays:
		t.Errorf("response %+v, %v on the watch that stays", r, ok)
	default:
	}
}

// largeResponse has 100 events of 256 bytes.
func largeResponse(id int64) *pb.WatchResponse {
	resp := &pb.WatchResponse{WatchId: id, Header: header(1)}
	for range 100 {
		resp.Events = append(resp.Events, &mvccpb.Event{Kv: &mvccpb.KeyValue{
			Key: []byte("key"), Value: make([]byte, 256), ModRevision: 11,
		}})
	}
	return resp
}

// receiving sets up an open watch whose responses the test feeds in by itself.
func receiving(t testing.TB, c *fakeClient) (*Engine[Response], *stream[Response], *watcher[Response]) {
	e := New(Config[Response]{Client: c, Convert: func(r *Response) Response { return *r }})
	g := newGroup(e, "", nil)
	w := &watcher[Response]{ch: make(chan Response, 1), next: 1}
	g.add(t.Context(), w)
	s := newStream(g.ctx, g.cancel, g, nil)
	g.stream = s
	s.next()
	if err := s.receive(created(firstID, 10)); err != nil {
		t.Fatal(err)
	}
	return e, s, w
}

func TestDeliveryToAConsumerThatKeepsUpAllocatesNothing(t *testing.T) {
	e, s, w := receiving(t, nil)
	resp := largeResponse(w.id)
	allocs := testing.AllocsPerRun(1000, func() {
		w.floor = 1
		if err := s.receive(resp); err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.ch:
		default:
			t.Fatal("not delivered")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a response, want none", allocs)
	}
	s.cancel()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// A consumer that is a little late again and again has a pump come and go, which costs little.
func TestMomentaryLagAllocatesLittle(t *testing.T) {
	e, s, w := receiving(t, nil)
	resp := largeResponse(w.id)
	allocs := testing.AllocsPerRun(1000, func() {
		for range 4 {
			w.floor = 1
			if err := s.receive(resp); err != nil {
				t.Fatal(err)
			}
		}
		for range 4 {
			<-w.ch
		}
		for pumping := true; pumping; {
			runtime.Gosched()
			s.g.mu.Lock()
			pumping = w.backlog != nil
			s.g.mu.Unlock()
		}
	})
	if allocs > 4 {
		t.Errorf("%v allocations for 4 responses of 100 events, want at most 4", allocs)
	}
	s.cancel()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkDelivery(b *testing.B) {
	_, s, w := receiving(b, nil)
	resp := largeResponse(w.id)
	b.ReportAllocs()
	for b.Loop() {
		w.floor = 1
		if err := s.receive(resp); err != nil {
			b.Fatal(err)
		}
		<-w.ch
	}
	s.cancel()
}
