package watchstream

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

func TestFragmentsArePutTogether(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{Fragment: true})
		s.reply(fragment(events(id, 11, 12)), fragment(events(id, 12, 13)))
		b.nothing(ch)
		s.reply(events(id, 14))
		b.want(ch, 11, 12, 12, 13, 14)
		s.reply(events(id, 15))
		b.want(ch, 15)
	})
}

// As much as a consumer that lags may be owed is put together, and no more.
func TestLargeFragmentsArePutTogetherUpToALimit(t *testing.T) {
	for name, cfg := range map[string]Config[Response]{
		"events": {MaxPendingEvents: 5},
		"bytes":  {MaxPendingBytes: 5 * eventSize},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, cfg, func(t *testing.T, b *bench) {
				var s *fakeStream
				id, ch := b.open(&s, Request{Fragment: true})
				s.reply(fragment(events(id, 11, 12)), fragment(events(id, 12, 13)))
				b.nothing(ch)
				s.reply(fragment(events(id, 14)))
				b.want(ch, 11, 12, 12, 13)
				s.reply(fragment(events(id, 15)))
				b.nothing(ch)
				s.reply(events(id, 16))
				b.want(ch, 14, 15, 16)
			})
		})
	}
}

// The limit of what is put together is one event here.
func TestFragmentsArePutTogetherByRevision(t *testing.T) {
	bubble(t, Config[Response]{MaxPendingEvents: 1}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{Fragment: true})
		s.reply(fragment(events(id, 11, 12, 13, 13)))
		b.want(ch, 11, 12)
		s.reply(fragment(events(id, 13)))
		s.reply(fragment(events(id, 13, 14)))
		b.want(ch, 13, 13, 13, 13)
		s.reply(fragment(events(id, 15)))
		b.want(ch, 14)
		s.reply(events(id, 16))
		b.want(ch, 15, 16)
		s.reply(events(id, 17))
		b.want(ch, 17)
	})
}

func TestBrokenFragmentsAreDeliveredOnceAndWhole(t *testing.T) {
	bubble(t, Config[Response]{MaxPendingEvents: 1}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{Fragment: true})
		s.reply(fragment(events(id, 11, 12)), fragment(events(id, 12)))
		b.want(ch, 11)
		s.end(errCut)
		s = b.stream()
		req := s.accept(20)
		if req.StartRevision != 12 {
			t.Fatalf("resumed at revision %d, want 12", req.StartRevision)
		}
		s.reply(events(req.WatchId, 12, 12, 12, 13))
		b.want(ch, 12, 12, 12, 13)
	})
}

// What a consumer got must not change when more is received, nor may it change what is held.
func TestDeliveredEventsAreTheConsumers(t *testing.T) {
	bubble(t, Config[Response]{MaxPendingEvents: 1}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{Fragment: true})
		s.reply(fragment(events(id, 11, 12)))
		r := b.next(ch)
		_ = append(r.Events, &mvccpb.Event{Kv: &mvccpb.KeyValue{ModRevision: -1}})
		s.reply(events(id, 12))
		b.want(ch, 12, 12)
	})
}

func TestProgressReachesTheWatchesOfItsStream(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s, other *fakeStream
		_, first := b.open(&s, Request{})
		_, second := b.open(&s, Request{ProgressNotify: true})
		creating := b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 1})
		req := s.create()
		b.Watch(withMetadata(t.Context(), "a", "b"), Request{Key: []byte("k"), StartRevision: 1})
		other = b.stream()
		other.accept(10)

		if err := b.RequestProgress(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := s.request(); r.GetProgressRequest() == nil {
			t.Fatalf("request %v, want one for progress", r)
		}
		other.idle()
		s.reply(progress(-1, 40))
		for _, ch := range []<-chan Response{first, second} {
			if r := b.next(ch); r.Header.Revision != 40 || len(r.Events) != 0 || r.Created || r.Canceled {
				t.Errorf("response %+v, want progress at 40", r)
			}
		}
		// The server's events for it may be held back until its creation is announced: the progress is not its own.
		s.reply(created(req.WatchId, 40), events(req.WatchId, 30))
		b.want(creating, 30)
	})
}

// Old servers answer a progress request for watchers that are behind. What these get later is not lost.
func TestEventsThatAreLaterThanProgressAreDelivered(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{})
		s.reply(progress(-1, 40))
		b.next(ch)
		s.reply(events(id, 30), events(id, 30))
		b.want(ch, 30)
		b.nothing(ch)
		s.end(errCut)
		s = b.stream()
		if req := s.create(); req.StartRevision != 41 {
			t.Errorf("resumed at revision %d, want 41", req.StartRevision)
		}
	})
}

func TestProgressIsRequestedOnceAllWatchesAreCreated(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		for range 3 {
			b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 1})
		}
		if err := b.RequestProgress(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := b.stream()
		for range 3 {
			s.accept(10)
		}
		if r := s.request(); r.GetProgressRequest() == nil {
			t.Errorf("request %v, want one for progress", r)
		}
	})
}

func TestUnansweredProgressRequestIsRepeatedOnTheNextStream(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		b.open(&s, Request{})
		ask := func() {
			t.Helper()
			if r := s.request(); r.GetProgressRequest() == nil {
				t.Fatalf("request %v, want one for progress", r)
			}
		}
		if err := b.RequestProgress(t.Context()); err != nil {
			t.Fatal(err)
		}
		ask()
		s.end(errCut)
		s = b.stream()
		s.accept(10)
		ask()
		s.reply(progress(-1, 10))
		s.end(errCut)
		s = b.stream()
		s.accept(10)
		s.idle()
	})
}

func TestRequestProgressErrors(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		if err := b.RequestProgress(t.Context()); err != nil {
			t.Errorf("without a watch: %v", err)
		}
		b.noStream()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.RequestProgress(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
		b.Close()
		if err := b.RequestProgress(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("when closed: %v", err)
		}
	})
}

func TestProgressDoesNotOvertakeHeldEvents(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{Fragment: true})
		s.reply(fragment(events(id, 11)), progress(-1, 50))
		b.nothing(ch)
		s.reply(events(id, 11))
		b.want(ch, 11, 11)
	})
}
