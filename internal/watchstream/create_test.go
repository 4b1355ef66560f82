package watchstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestWatchFromNowReturnsWhenCreated(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		opening := b.watch(t.Context(), Request{Key: []byte("k")})
		s := b.stream()
		req := s.create()
		synctest.Wait()
		if len(opening) != 0 {
			t.Fatal("Watch returned before the server has answered")
		}
		s.reply(created(req.WatchId, 10))
		ch := b.opened(opening)
		b.nothing(ch)
		s.reply(events(req.WatchId, 11))
		b.want(ch, 11)
	})
}

func TestWatchFromRevisionReturnsAtOnce(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		ch := b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 5})
		s := b.stream()
		id := s.accept(10).WatchId
		s.reply(events(id, 5, 7))
		b.want(ch, 5, 7)
	})
}

func TestRequestIsPassedOnAsItIs(t *testing.T) {
	reqs := []Request{
		{Key: []byte("b"), RangeEnd: []byte("a"), StartRevision: 1 << 40},
		{RangeEnd: []byte{0}, StartRevision: -3},
		{
			Key: []byte("k"), StartRevision: 1, ProgressNotify: true, PrevKV: true, Fragment: true,
			Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE, pb.WatchCreateRequest_NOPUT},
		},
	}
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		for _, req := range reqs {
			b.Watch(t.Context(), req)
			if s == nil {
				s = b.stream()
			}
			got := s.accept(10)
			want := &pb.WatchCreateRequest{
				Key: req.Key, RangeEnd: req.RangeEnd, StartRevision: req.StartRevision, WatchId: got.WatchId,
				ProgressNotify: req.ProgressNotify, PrevKv: req.PrevKV, Fragment: req.Fragment, Filters: req.Filters,
			}
			if !proto.Equal(got, want) {
				t.Errorf("request %v, want %v", got, want)
			}
		}
	})
}

func TestCreatesArePipelinedBehindTheFirst(t *testing.T) {
	const n = 1000
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var opening []<-chan (<-chan Response)
		for range n {
			opening = append(opening, b.watch(t.Context(), Request{Key: []byte("k")}))
		}
		s := b.stream()
		first := s.create()
		s.idle()
		s.reply(created(first.WatchId, 10))

		ids := map[int64]bool{first.WatchId: true}
		for _, req := range s.creates(n - 1) {
			ids[req.WatchId] = true
			s.reply(created(req.WatchId, 10))
		}
		if len(ids) != n {
			t.Errorf("%d different watch ids, want %d", len(ids), n)
		}
		for _, o := range opening {
			b.nothing(b.opened(o))
		}
	})
}

// A proxy ignores the ids and has its own, which begin at 0 and go up with the creates, and it answers out of order: it
// must not have two creates to answer.
func TestProxyWithOwnIDsIsAskedOneAtATime(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		keys := []string{"a", "b", "c", "d"}
		channels := make(map[string]<-chan Response)
		for _, key := range keys {
			channels[key] = b.Watch(t.Context(), Request{Key: []byte(key), StartRevision: 1})
		}
		s := b.stream()
		for own := range int64(len(keys)) {
			req := s.create()
			s.idle()
			s.reply(created(own, 10))
			resp := events(own, 20+own)
			resp.Events[0].Kv.Key = req.Key
			s.reply(resp)
		}
		for i, key := range keys {
			r := b.next(channels[key])
			if got := string(r.Events[0].Kv.Key); got != key {
				t.Errorf("watch %d of %s got an event of %s", i, key, got)
			}
		}
	})
}

func TestAnswersMatchByID(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		b.open(&s, Request{})
		chs := make([]<-chan Response, 3)
		for i := range chs {
			chs[i] = b.Watch(t.Context(), Request{Key: []byte{byte('a' + i)}, StartRevision: 1})
		}
		reqs := s.creates(3)
		slices.Reverse(reqs)
		for _, req := range reqs {
			s.reply(created(req.WatchId, 10))
		}
		for i, req := range reqs {
			s.reply(events(req.WatchId, int64(20+i)))
		}
		b.want(chs[0], 22)
		b.want(chs[1], 21)
		b.want(chs[2], 20)
	})
}

func TestRefusalWithoutIDIsOfTheOldestCreate(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		b.open(&s, Request{})
		a := b.Watch(t.Context(), Request{Key: []byte("a"), StartRevision: 1})
		synctest.Wait()
		c := b.Watch(t.Context(), Request{Key: []byte("c"), StartRevision: 1})
		reqs := s.creates(2)
		s.reply(refused(-1, rpctypes.ErrGRPCPermissionDenied.Error()), created(reqs[1].WatchId, 10))
		r := b.last(a)
		denied := rpctypes.ErrGRPCPermissionDenied.Error()
		if r.Err != rpctypes.ErrPermissionDenied || r.CancelReason != denied || r.Created {
			t.Errorf("last response %+v, want one of permission denied", r)
		}
		b.nothing(c)
	})
}

func TestRefusalOfTheFirstCreate(t *testing.T) {
	for _, id := range []int64{-1, firstID} { // 3.4 refuses with the id that was asked for
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			a := b.watch(t.Context(), Request{Key: []byte("b"), RangeEnd: []byte("a"), CreatedNotify: true})
			c := b.Watch(t.Context(), Request{Key: []byte("c"), StartRevision: 1})
			s := b.stream()
			s.create()
			s.reply(refused(id, "mvcc: watcher range is empty"))
			r := b.last(b.opened(a))
			if r.CancelReason != "mvcc: watcher range is empty" || r.Err != nil || r.Created {
				t.Errorf("last response %+v, want one with the server's reason", r)
			}
			s.accept(10)
			b.nothing(c)
		})
	}
}

func TestCreatedNotifyComesOnce(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		_, ch := b.open(&s, Request{CreatedNotify: true})
		if r := b.next(ch); !r.Created || r.Header.Revision != 10 {
			t.Fatalf("response %+v, want the creation at revision 10", r)
		}
		s.end(errCut)
		s = b.stream()
		s.accept(20)
		b.nothing(ch)
	})
}

// From 3.6 on the server registers a watch before it reads the revision of the answer, so events up to that revision
// may follow. They are not delivered, so that the watch starts after the revision of the answer, as before 3.6.
func TestWatchFromNowStartsAfterTheAnswersRevision(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		id, ch := b.open(&s, Request{})
		s.reply(events(id, 9), events(id, 10), events(id, 10, 11), events(id, 12))
		b.want(ch, 11)
		b.want(ch, 12)
	})
}

func TestWatchFromNowIsAskedAgainIfTheAnswerIsLost(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		opening := b.watch(t.Context(), Request{Key: []byte("k"), CreatedNotify: true})
		s := b.stream()
		s.create()
		s.end(errCut)
		s = b.stream()
		if len(opening) != 0 {
			t.Fatal("Watch returned though the watch was not created")
		}
		if req := s.accept(30); req.StartRevision != 0 {
			t.Fatalf("asked from revision %d, want from now", req.StartRevision)
		}
		ch := b.opened(opening)
		if r := b.next(ch); !r.Created || r.Header.Revision != 30 {
			t.Fatalf("response %+v, want the creation at revision 30", r)
		}
	})
}

func TestStreamPerMetadata(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		type value struct{}
		parent, cancel := context.WithCancel(context.WithValue(t.Context(), value{}, 1))
		defer cancel()
		req := Request{Key: []byte("k"), StartRevision: 1}
		b.Watch(withMetadata(parent, "a", "1", "b", "2"), req)
		s := b.stream()
		b.Watch(withMetadata(t.Context(), "b", "2", "a", "1"), req)
		b.noStream()
		others := [][]string{{}, {"a", "1"}, {"a", "1", "a", "2"}, {"a", "2", "a", "1"}, {"a", "1b", "", "2"}}
		for _, md := range others {
			b.Watch(withMetadata(t.Context(), md...), req)
			other := b.stream()
			other.accept(10)
		}
		if s.ctx.Value(value{}) != nil {
			t.Error("the stream's context carries a caller's value")
		}
		cancel()
		s.accept(10)
		if s.ended() {
			t.Error("the stream has ended with one caller's context")
		}
	})
}

func TestStreamEndsWithItsLastWatch(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		ctx, cancel := context.WithCancel(t.Context())
		first := b.Watch(ctx, Request{Key: []byte("a"), StartRevision: 1})
		second := b.Watch(ctx, Request{Key: []byte("b"), StartRevision: 1})
		s := b.stream()
		s.accept(10)
		cancel()
		b.closed(first)
		b.closed(second)
		if !s.ended() {
			t.Error("the stream is still open")
		}
		var again *fakeStream
		b.open(&again, Request{})
	})
}

// A create that the transport cannot send, because it is too large, ends its own watcher only.
func TestUnsendableCreateEndsOnlyItself(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		_, good := b.open(&s, Request{})
		tooLarge := status.Error(codes.ResourceExhausted, "trying to send message larger than max")
		s.sendErr = func(req *pb.WatchRequest) error {
			if len(req.GetCreateRequest().GetKey()) > 100 {
				return tooLarge
			}
			return nil
		}
		bad := b.Watch(t.Context(), Request{Key: bytes.Repeat([]byte("x"), 101), StartRevision: 1})
		if r := b.last(bad); !errors.Is(r.Err, tooLarge) {
			t.Errorf("ended with %v, want %v", r.Err, tooLarge)
		}
		s = b.stream()
		id := s.accept(20).WatchId
		s.reply(events(id, 11))
		b.want(good, 11)
	})
}

func TestSendFailureOfTheTransportResumes(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		_, ch := b.open(&s, Request{})
		s.sendErr = func(*pb.WatchRequest) error { return errCut }
		other := b.Watch(t.Context(), Request{Key: []byte("l"), StartRevision: 1})
		s = b.stream()
		s.accept(20)
		s.accept(20)
		b.nothing(ch)
		b.nothing(other)
	})
}

// While there is no stream, watches that come and go leave nothing behind.
func TestWatchesThatComeAndGoWithoutStreamLeaveNothing(t *testing.T) {
	var up atomic.Bool
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		b.client.refuse = func() error {
			if up.Load() {
				return nil
			}
			return errCut
		}
		b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 1})
		for i := range 100 {
			ctx, cancel := context.WithCancel(t.Context())
			ch := b.Watch(ctx, Request{Key: fmt.Append(nil, i), StartRevision: 1})
			cancel()
			b.closed(ch)
		}
		up.Store(true)
		s := b.stream()
		if req := s.accept(10); string(req.Key) != "k" {
			t.Errorf("create of %s", req.Key)
		}
		s.idle()
	})
}
