package watchstream

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestSlowConsumerGetsEverythingInOrder(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, slow := b.open(&s, Request{})
		other, quick := b.open(&s, Request{})
		for rev := range int64(500) {
			s.reply(events(id, 11+rev), events(other, 11+rev))
			b.want(quick, 11+rev)
		}
		for rev := range int64(500) {
			b.want(slow, 11+rev)
		}
		b.nothing(slow)
		s.reply(events(id, 511)) // and what follows, when the backlog is gone
		b.want(slow, 511)
	})
}

func TestPumpExistsWhileItsConsumerLags(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{})
		synctest.Wait()
		before := runtime.NumGoroutine()
		for rev := int64(11); rev < 20; rev += 3 {
			s.reply(events(id, rev))
			synctest.Wait()
			if n := runtime.NumGoroutine(); n != before {
				t.Fatalf("%d goroutines with nothing queued, want %d", n, before)
			}
			s.reply(events(id, rev+1), events(id, rev+2))
			synctest.Wait()
			if n := runtime.NumGoroutine(); n != before+1 {
				t.Fatalf("%d goroutines with a backlog, want %d", n, before+1)
			}
			for range 3 {
				b.next(ch)
			}
		}
	})
}

func TestLaggingWatchIsPausedAndReopenedWhereItWas(t *testing.T) {
	limits := map[string]Config[Response]{
		"events": {MaxPendingEvents: 4},
		"bytes":  {MaxPendingBytes: 4 * (responseSize + eventSize + 1)}, // the key is one byte
	}
	for name, cfg := range limits {
		t.Run(name, func(t *testing.T) {
			bubble(t, cfg, func(t *testing.T, b *bench) {
				var s *fakeStream
				_, other := b.open(&s, Request{})
				id, ch := b.open(&s, Request{ProgressNotify: true})
				for rev := range int64(4) { // one in the channel, three in the backlog
					s.reply(events(id, 11+rev))
				}
				s.idle()
				s.reply(events(id, 15))
				if got := s.cancel(); got != id {
					t.Fatalf("cancelled %d, want %d", got, id)
				}
				s.reply(events(id, 16), progress(id, 17), progress(-1, 18)) // the server did not know
				s.idle()
				b.next(other)

				b.want(ch, 11)
				s.idle() // three are left, and half of the limit is two
				b.want(ch, 12)
				req := s.create()
				if req.StartRevision != 16 || req.WatchId == id || !req.ProgressNotify {
					t.Fatalf("reopened with %v, want revision 16, another id and progress", req)
				}
				s.reply(created(req.WatchId, 30), events(req.WatchId, 16))
				b.want(ch, 13)
				b.want(ch, 14)
				b.want(ch, 15)
				b.want(ch, 16)
				s.idle()
			})
		})
	}
}

func TestPausedWatchStaysPausedWhenTheStreamBreaks(t *testing.T) {
	bubble(t, Config[Response]{MaxPendingEvents: 2}, func(t *testing.T, b *bench) {
		var s *fakeStream
		b.open(&s, Request{})
		id, ch := b.open(&s, Request{})
		s.reply(events(id, 11), events(id, 12), events(id, 13))
		s.cancel()
		s.end(errCut)
		s = b.stream()
		s.accept(20)
		s.idle()
		b.want(ch, 11)
		b.want(ch, 12)
		if req := s.accept(20); req.StartRevision != 14 {
			t.Errorf("reopened at revision %d, want 14", req.StartRevision)
		}
		b.want(ch, 13)
	})
}

func TestCompactionWhilePausedComesAfterTheBacklog(t *testing.T) {
	bubble(t, Config[Response]{MaxPendingEvents: 2}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{})
		s.reply(events(id, 11), events(id, 12), events(id, 13))
		s.cancel()
		b.want(ch, 11)
		b.want(ch, 12)
		s.reply(compacted(s.accept(99).WatchId, 50))
		b.want(ch, 13)
		if r := b.last(ch); r.CompactRevision != 50 {
			t.Errorf("last response %+v, want compaction at 50", r)
		}
	})
}

// A response larger than the limit is taken as it is: the watch goes on, one such response at a time.
func TestResponseBeyondTheLimit(t *testing.T) {
	bubble(t, Config[Response]{MaxPendingEvents: 1}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{})
		s.reply(events(id, 11))
		for rev := int64(12); rev < 100; rev += 3 {
			s.reply(events(id, rev, rev+1, rev+2))
			if got := s.cancel(); got != id {
				t.Fatalf("cancelled %d, want %d", got, id)
			}
			b.next(ch)
			req := s.accept(1000)
			if req.StartRevision != rev+3 {
				t.Fatalf("reopened at revision %d, want %d", req.StartRevision, rev+3)
			}
			id = req.WatchId
		}
	})
}

// What a paused watch missed comes in responses of up to a thousand revisions, unless it asks for fragments.
func TestPausedWatchOfLargeEventsIsReopenedWithFragments(t *testing.T) {
	for _, large := range []bool{false, true} {
		bubble(t, Config[Response]{MaxPendingEvents: 1}, func(t *testing.T, b *bench) {
			var s *fakeStream
			id, ch := b.open(&s, Request{})
			resp := events(id, 12)
			if large {
				resp.Events[0].Kv.Value = make([]byte, largeEvent)
			}
			s.reply(events(id, 11), resp)
			s.cancel()
			b.want(ch, 11)
			if req := s.accept(20); req.Fragment != large {
				t.Errorf("large events %v: reopened with %v", large, req)
			}
			b.want(ch, 12)
		})
	}
}

func TestQueuedProgressKeepsItsPlaceAndOnlyTheLatest(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{})
		s.reply(events(id, 11), events(id, 12))
		for rev := range int64(1000) {
			s.reply(progress(id, 13+rev))
		}
		s.reply(events(id, 2000))
		b.want(ch, 11)
		b.want(ch, 12)
		if r := b.next(ch); len(r.Events) != 0 || r.Header.Revision != 1012 {
			t.Errorf("response %+v, want progress at 1012", r)
		}
		b.want(ch, 2000)
	})
}

// The progress that the pump is handing over is not replaced by a later one, which has yet to be handed over then.
func TestProgressInThePumpsHandIsNotReplaced(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{})
		s.reply(events(id, 11), progress(id, 13))
		synctest.Wait()
		s.reply(progress(id, 14))
		b.want(ch, 11)
		for _, rev := range []int64{13, 14} {
			if r := b.next(ch); r.Header.Revision != rev {
				t.Errorf("response %+v, want progress at %d", r, rev)
			}
		}
	})
}

func TestBacklogKeepsNoMoreThanItHas(t *testing.T) {
	b := &backlog[int]{}
	next := 0
	for i := range 10_000 {
		b.push(item[int]{r: i, bytes: 10, events: 2})
		if i >= 50 {
			if got := b.items[b.head].r; got != next {
				t.Fatalf("item %d, want %d", got, next)
			}
			b.drop(false)
			next++
		}
	}
	if cap(b.items) > 256 || b.bytes != 500 || b.events != 100 {
		t.Errorf("capacity %d, %d bytes, %d events; want at most 256, 500, 100", cap(b.items), b.bytes, b.events)
	}
}

func TestLogBacklog(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	bubble(t, Config[Response]{Logger: zap.New(core)}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{LogBacklog: true})
		silent, _ := b.open(&s, Request{})
		for rev := int64(11); rev < 46; rev++ {
			s.reply(events(id, rev), events(silent, rev))
			time.Sleep(time.Second)
		}
		if n := logs.Len(); n != 3 {
			t.Errorf("%d log entries in 35 s without reading, want 3: %v", n, logs.All())
		}
		for range 35 {
			b.next(ch)
		}
		s.reply(events(id, 46), events(id, 47))
		if n := logs.Len(); n != 3 {
			t.Error("logged for a consumer that has caught up")
		}
	})
}
