package watchstream

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func TestCompaction(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		_, other := b.open(&s, Request{})
		ch := b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 3, CreatedNotify: true})
		id := s.accept(20).WatchId
		if r := b.next(ch); !r.Created {
			t.Errorf("response %+v, want the creation", r)
		}
		s.reply(compacted(id, 15))
		if r := b.last(ch); r.CompactRevision != 15 {
			t.Errorf("last response %+v, want compaction at 15", r)
		}
		// The server holds such a watcher to be one that has not caught up, and would answer no progress request.
		if got := s.cancel(); got != id {
			t.Errorf("cancelled %d, want %d", got, id)
		}
		s.reply(progress(-1, 30))
		b.next(other)
	})
}

func TestServerCancelsWatch(t *testing.T) {
	tests := []struct {
		reason string
		want   error
	}{
		{"", nil},
		{"anything", nil},
		{rpctypes.ErrGRPCPermissionDenied.Error(), rpctypes.ErrPermissionDenied},
		{rpctypes.ErrCompacted.Error(), rpctypes.ErrCompacted},
	}
	for _, test := range tests {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			var s *fakeStream
			b.open(&s, Request{})
			id, ch := b.open(&s, Request{})
			resp := events(id, 11)
			resp.Canceled, resp.CancelReason = true, test.reason
			s.reply(resp)
			r := b.last(ch)
			if r.CancelReason != test.reason || r.Err != test.want || len(r.Events) != 1 {
				t.Errorf("reason %q: last response %+v, want error %v", test.reason, r, test.want)
			}
		})
	}
}

// The caller's own context ends the channel without a response, in every state of the watch.
func TestContextEndsWatch(t *testing.T) {
	start := func(t *testing.T, b *bench, ctx context.Context, rev int64) <-chan (<-chan Response) {
		t.Helper()
		return b.watch(ctx, Request{Key: []byte("k"), StartRevision: rev})
	}
	tests := []struct {
		name  string
		play  func(t *testing.T, b *bench, ctx context.Context) <-chan (<-chan Response)
		after func(t *testing.T, b *bench)
	}{
		{"without stream", func(t *testing.T, b *bench, ctx context.Context) <-chan (<-chan Response) {
			return start(t, b, ctx, 0)
		}, func(_ *testing.T, b *bench) { b.noStream() }},
		{"waiting", func(t *testing.T, b *bench, ctx context.Context) <-chan (<-chan Response) {
			b.Watch(t.Context(), Request{Key: []byte("first"), StartRevision: 1})
			return start(t, b, ctx, 0)
		}, func(_ *testing.T, b *bench) {
			s := b.stream()
			s.accept(10)
			s.idle()
		}},
		{"while created", func(t *testing.T, b *bench, ctx context.Context) <-chan (<-chan Response) {
			return start(t, b, ctx, 0)
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
				ctx, cancel := context.WithCancel(t.Context())
				opening := test.play(t, b, ctx)
				cancel()
				b.closed(b.opened(opening))
				if test.after != nil {
					test.after(t, b)
				}
			})
		})
	}
	t.Run("with the create in flight", func(t *testing.T) {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			var s *fakeStream
			b.open(&s, Request{})
			ctx, cancel := context.WithCancel(t.Context())
			opening := start(t, b, ctx, 0)
			req := s.create()
			cancel()
			b.closed(b.opened(opening))
			s.idle()
			s.reply(created(req.WatchId, 10), events(req.WatchId, 11))
			if got := s.cancel(); got != req.WatchId {
				t.Errorf("cancelled %d, want %d", got, req.WatchId)
			}
		})
	})
	t.Run("with the refused create in flight", func(t *testing.T) {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			var s *fakeStream
			b.open(&s, Request{})
			ctx, cancel := context.WithCancel(t.Context())
			opening := start(t, b, ctx, 0)
			s.create()
			cancel()
			b.closed(b.opened(opening))
			s.reply(refused(-1, "no"))
			s.idle()
		})
	})
	t.Run("open", func(t *testing.T) {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			var s *fakeStream
			_, other := b.open(&s, Request{})
			ctx, cancel := context.WithCancel(t.Context())
			opening := start(t, b, ctx, 0)
			id := s.accept(10).WatchId
			ch := b.opened(opening)
			s.reply(events(id, 11))
			synctest.Wait()
			cancel()
			b.want(ch, 11)
			b.closed(ch)
			if got := s.cancel(); got != id {
				t.Errorf("cancelled %d, want %d", got, id)
			}
			s.reply(events(id, 12), compacted(id, 13)) // the server did not know
			b.nothing(other)
		})
	})
	t.Run("before Watch", func(t *testing.T) {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			b.closed(b.Watch(ctx, Request{Key: []byte("k")}))
			b.noStream()
		})
	})
	t.Run("with a backlog", func(t *testing.T) {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			var s *fakeStream
			b.open(&s, Request{})
			ctx, cancel := context.WithCancel(t.Context())
			opening := start(t, b, ctx, 0)
			id := s.accept(10).WatchId
			ch := b.opened(opening)
			s.reply(events(id, 11), events(id, 12), events(id, 13))
			synctest.Wait()
			cancel()
			synctest.Wait()
			b.want(ch, 11)
			b.closed(ch)
		})
	})
	t.Run("ended with a backlog", func(t *testing.T) {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			var s *fakeStream
			b.open(&s, Request{})
			ctx, cancel := context.WithCancel(t.Context())
			opening := start(t, b, ctx, 0)
			id := s.accept(10).WatchId
			ch := b.opened(opening)
			s.reply(events(id, 11), events(id, 12), compacted(id, 13))
			synctest.Wait()
			cancel()
			synctest.Wait()
			b.want(ch, 11)
			b.closed(ch)
		})
	})
}

func TestCloseEndsWatchesWithItsReason(t *testing.T) {
	cfg := Config[Response]{MaxPendingEvents: 3}
	bubble(t, cfg, func(t *testing.T, b *bench) {
		var s *fakeStream
		_, idle := b.open(&s, Request{})
		one, unread := b.open(&s, Request{})
		two, lagging := b.open(&s, Request{})
		three, pausedCh := b.open(&s, Request{})
		four, compactedCh := b.open(&s, Request{})
		s.reply(events(one, 11))
		s.reply(events(two, 11), events(two, 12), events(two, 13))
		s.reply(events(three, 11), events(three, 12, 13, 14, 15))
		s.reply(events(four, 11), events(four, 12), compacted(four, 13))
		s.cancel()
		s.cancel()
		creating := b.watch(t.Context(), Request{Key: []byte("k")})
		s.create()
		waitingCh := b.Watch(withMetadata(t.Context(), "other", "stream"), Request{Key: []byte("k"), StartRevision: 1})

		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		for i, ch := range []<-chan Response{
			idle, unread, lagging, pausedCh, b.opened(creating), waitingCh, b.Watch(t.Context(), Request{}),
		} {
			if r := b.last(ch); !errors.Is(r.Err, ErrClosed) {
				t.Errorf("watch %d ended with %v, want %v", i, r.Err, ErrClosed)
			}
		}
		if r := b.last(compactedCh); r.CompactRevision != 13 {
			t.Errorf("last response %+v, want the compaction", r)
		}
		if !s.ended() {
			t.Error("the stream is still open")
		}
	})
}

// Who ends the context and then closes the engine, or has the server end the watch, is told nothing of that, even if the
// former was not yet acted upon: that takes a goroutine, which here is kept from running by the group's lock.
func TestContextThatEndsFirstIsTheReason(t *testing.T) {
	for name, unread := range map[string]int64{"reader keeps up": 0, "reader lags": 2} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
				var s *fakeStream
				id, open := b.open(&s, Request{})
				ctx, cancel := context.WithCancel(t.Context())
				watching := b.watch(ctx, Request{Key: []byte("k")})
				req := s.accept(10)
				ch := b.opened(watching)
				for i := range unread {
					s.reply(events(req.WatchId, 11+i))
				}
				synctest.Wait()
				g := b.groups[""]
				g.mu.Lock()
				cancel()
				for w := range g.watchers {
					if w.id == req.WatchId {
						w.endNow()
					}
				}
				g.mu.Unlock()
				if unread > 0 {
					b.want(ch, 11)
				}
				b.closed(ch)
				s.reply(events(id, 20))
				b.want(open, 20)
			})
		})
	}
	t.Run("the server ends it", func(t *testing.T) {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			var s *fakeStream
			b.open(&s, Request{})
			ctx, cancel := context.WithCancel(t.Context())
			watching := b.watch(ctx, Request{Key: []byte("k")})
			req := s.accept(10)
			ch := b.opened(watching)
			g := b.groups[""]
			g.mu.Lock()
			cancel()
			for w := range g.watchers {
				if w.id == req.WatchId {
					w.end(&Response{Canceled: true, Err: errCut})
				}
			}
			g.mu.Unlock()
			b.closed(ch)
		})
	})
}

func TestCloseDoesNotWaitForAStuckStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Config[Response]{})
		b.client.depth = 0 // Send blocks
		ch := b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 1})
		s := b.stream()
		synctest.Wait()
		b.Close()
		b.last(ch)
		if !s.ended() {
			t.Error("the stream is still open")
		}
		b.Close()
	})
}

// countingContext counts the functions that are to run when it ends.
type countingContext struct {
	context.Context
	waiting atomic.Int64
}

// Value hides the context inside, which would be asked otherwise.
func (c *countingContext) Value(any) any { return nil }

func (c *countingContext) AfterFunc(f func()) func() bool {
	c.waiting.Add(1)
	stop := context.AfterFunc(c.Context, f)
	return func() bool {
		stopped := stop()
		if stopped {
			c.waiting.Add(-1)
		}
		return stopped
	}
}

// A context that lives on keeps nothing of the watches that have ended.
func TestEndedWatchesLeaveTheirContext(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		parent, cancel := context.WithCancel(t.Context())
		defer cancel()
		ctx := &countingContext{Context: parent}
		var s *fakeStream
		b.open(&s, Request{})
		watch := func() (int64, <-chan Response) {
			opening := b.watch(ctx, Request{Key: []byte("k")})
			return s.accept(10).WatchId, b.opened(opening)
		}
		one, ch := watch()
		two, lagging := watch()
		if n := ctx.waiting.Load(); n != 2 {
			t.Fatalf("%d functions wait for the context, want 2", n)
		}
		s.reply(compacted(one, 20))
		b.last(ch)
		s.reply(events(two, 11), compacted(two, 20))
		synctest.Wait()
		if n := ctx.waiting.Load(); n != 1 {
			t.Errorf("%d functions wait for the context, want that of the one whose last response is unread", n)
		}
		b.want(lagging, 11)
		b.last(lagging)
		s.cancel()
		s.cancel()
		watch()
		b.Close()
		if n := ctx.waiting.Load(); n != 0 {
			t.Errorf("%d functions wait for the context, want none", n)
		}
	})
}

// A watch opened when the last one of its stream has ended, but the goroutine of that has not, gets a stream of its
// own; and the end of the former does not hide the latter.
func TestWatchWhileItsFormerStreamIsEnding(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		gate := make(chan struct{})
		b.client.refuse = func() error { <-gate; return nil }
		ctx, cancel := context.WithCancel(t.Context())
		former := b.Watch(ctx, Request{Key: []byte("a"), StartRevision: 1})
		synctest.Wait()
		cancel()
		b.closed(former)
		latter := b.Watch(t.Context(), Request{Key: []byte("b"), StartRevision: 1})
		synctest.Wait()
		close(gate)
		s := b.stream()
		id := s.accept(10).WatchId
		s.reply(events(id, 11))
		b.want(latter, 11)
		b.Watch(t.Context(), Request{Key: []byte("c"), StartRevision: 1})
		s.accept(10)
		b.noStream()
	})
}
