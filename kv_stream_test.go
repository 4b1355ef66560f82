package clientv3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

const rangeStream = pb.KV_RangeStream_FullMethodName

// streamOf serves a range as a stream of these chunks, and ends it with err.
func streamOf(err error, chunks ...*pb.RangeResponse) scripted.Stream {
	return func(call *scripted.Call) error {
		if err := call.Stream.RecvMsg(&pb.RangeRequest{}); err != nil {
			return err
		}
		for _, chunk := range chunks {
			if err := call.Stream.SendMsg(&pb.RangeStreamResponse{RangeResponse: chunk}); err != nil {
				return err
			}
		}
		return err
	}
}

// keyValues returns key-values with the keys.
func keyValues(keys ...string) []*mvccpb.KeyValue {
	kvs := make([]*mvccpb.KeyValue, len(keys))
	for i, key := range keys {
		kvs[i] = &mvccpb.KeyValue{Key: []byte(key), Value: []byte("v")}
	}
	return kvs
}

// keysOf returns the keys of key-values.
func keysOf(kvs []*mvccpb.KeyValue) []string {
	keys := make([]string, len(kvs))
	for i, kv := range kvs {
		keys[i] = string(kv.Key)
	}
	return keys
}

var (
	firstChunk = &pb.RangeResponse{Kvs: keyValues("a", "b")}
	lastChunk  = &pb.RangeResponse{
		Header: &pb.ResponseHeader{Revision: 7}, Kvs: keyValues("c"), Count: 5, More: true,
	}
)

// readAll reads a stream to its end.
func readAll(ch GetStreamChan) (chunks []*pb.RangeResponse, err error) {
	for item := range ch {
		if err != nil {
			return chunks, fmt.Errorf("a chunk after the error %w", err)
		}
		if err = item.Err(); err == nil {
			chunks = append(chunks, item.RangeResponse)
		}
	}
	return chunks, err
}

func TestGetStreamPassesChunksOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		var req pb.RangeRequest
		m.stream(rangeStream, func(call *scripted.Call) error {
			if err := call.Stream.RecvMsg(&req); err != nil {
				return err
			}
			for _, chunk := range []*pb.RangeResponse{firstChunk, lastChunk} {
				if err := call.Stream.SendMsg(&pb.RangeStreamResponse{RangeResponse: chunk}); err != nil {
					return err
				}
			}
			return nil
		})
		opts := []OpOption{WithPrefix(), WithRev(4), WithLimit(3), WithSerializable(), WithKeysOnly()}
		ch, err := c.GetStream(t.Context(), "k", opts...)
		if err != nil {
			t.Fatal(err)
		}
		chunks, err := readAll(ch)
		if err != nil || len(chunks) != 2 || !proto.Equal(chunks[0], firstChunk) || !proto.Equal(chunks[1], lastChunk) {
			t.Errorf("chunks %v, error %v", chunks, err)
		}
		if want := OpGet("k", opts...).toRangeRequest(); !proto.Equal(&req, want) {
			t.Errorf("request %v, want %v", &req, want)
		}

		ch, err = c.GetStream(t.Context(), "k", opts...)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := GetStreamToGetResponse(ch)
		if err != nil || !slices.Equal(keysOf(resp.Kvs), []string{"a", "b", "c"}) || resp.Count != 5 || !resp.More || resp.Header.Revision != 7 {
			t.Errorf("put together: %v, error %v", resp, err)
		}
	})
}

func TestGetStreamOfAnEmptyRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		m.stream(rangeStream, streamOf(nil, &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 7}}))
		ch, err := m.client(t).GetStream(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		if chunks, err := readAll(ch); err != nil || len(chunks) != 1 || chunks[0].Header.Revision != 7 {
			t.Errorf("chunks %v, error %v", chunks, err)
		}
	})
}

func TestGetStreamIsNeverSilentlyShort(t *testing.T) {
	noSpace := rpctypes.ErrGRPCCompacted
	for name, tt := range map[string]struct {
		stream scripted.Stream
		chunks int
		is     func(error) bool
	}{
		"etcd error": {streamOf(noSpace, firstChunk), 1, func(err error) bool { return err == rpctypes.ErrCompacted }}, //nolint:errorlint // identity
		"lost connection": {func(call *scripted.Call) error {
			_ = streamOf(nil, firstChunk)(call)
			time.Sleep(time.Second) // the chunk is to be there first
			call.Cut()
			<-call.Context.Done()
			return nil
		}, 1, func(err error) bool { return status.Code(err) == codes.Unavailable }},
		"ends without its last chunk": {streamOf(nil, firstChunk), 1, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"ends without a chunk":        {streamOf(nil), 0, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"unimplemented half way": {streamOf(status.Error(codes.Unimplemented, "?"), firstChunk), 1,
			func(err error) bool { return status.Code(err) == codes.Unimplemented }},
		"unavailable half way": {streamOf(status.Error(codes.Unavailable, "?"), firstChunk), 1,
			func(err error) bool { return status.Code(err) == codes.Unavailable }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 2)
				m.stream(rangeStream, tt.stream)
				c := m.client(t)
				ch, err := c.GetStream(t.Context(), "k")
				if err != nil {
					t.Fatal(err)
				}
				var chunks int
				var last error
				for item := range ch {
					if item.Err() == nil {
						chunks++
					}
					last = item.Err()
				}
				if chunks != tt.chunks || !tt.is(last) {
					t.Errorf("%d chunks, then %v", chunks, last)
				}
				if n := m.count(rangeStream); n != 1 {
					t.Errorf("asked %d times: what has begun cannot be repeated", n)
				}
				ch, err = c.GetStream(t.Context(), "k")
				if err != nil {
					t.Fatal(err)
				}
				if resp, err := GetStreamToGetResponse(ch); resp != nil || !tt.is(err) {
					t.Errorf("put together: %v, error %v", resp, err)
				}
			})
		})
	}
}

func TestGetStreamReportsAnErrorBeforeItsFirstChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		m.stream(rangeStream, streamOf(rpctypes.ErrGRPCPermissionDenied))
		ch, err := c.GetStream(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		if chunks, err := readAll(ch); len(chunks) != 0 || err != rpctypes.ErrPermissionDenied { //nolint:errorlint // identity
			t.Errorf("chunks %v, error %v", chunks, err)
		}
	})
}

func TestGetStreamIsRetriedUntilItsFirstChunk(t *testing.T) {
	for name, fail := range map[string]scripted.Stream{
		"unavailable": streamOf(status.Error(codes.Unavailable, "not now")),
		"no leader":   streamOf(rpctypes.ErrGRPCNoLeader),
		"cut": func(call *scripted.Call) error {
			call.Cut()
			<-call.Context.Done()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 2)
				failed := make(chan struct{}, 1)
				m.stream(rangeStream, func(call *scripted.Call) error {
					select {
					case failed <- struct{}{}:
						return fail(call)
					default:
						return streamOf(nil, firstChunk, lastChunk)(call)
					}
				})
				c := m.client(t)
				time.Sleep(time.Second)
				ch, err := c.GetStream(t.Context(), "k")
				if err != nil {
					t.Fatal(err)
				}
				if chunks, err := readAll(ch); err != nil || len(chunks) != 2 {
					t.Errorf("chunks %v, error %v", chunks, err)
				}
				if got := m.counts(rangeStream); !slices.Equal(got, []int{1, 1}) {
					t.Errorf("attempts %v, want one at each member", got)
				}
			})
		})
	}
}

func TestGetStreamEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.stream(rangeStream, func(call *scripted.Call) error {
			_ = streamOf(nil, firstChunk)(call)
			<-call.Context.Done()
			return call.Context.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		ch, err := c.GetStream(ctx, "k")
		if err != nil {
			t.Fatal(err)
		}
		<-ch
		cancel()
		if chunks, err := readAll(ch); len(chunks) != 0 || err != context.Canceled { //nolint:errorlint // bare
			t.Errorf("chunks %v, error %v", chunks, err)
		}
		ch, err = c.GetStream(within(t, time.Second), "k")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(ch); err != context.DeadlineExceeded { //nolint:errorlint // bare
			t.Errorf("error %v", err)
		}
		if ch, err := c.GetStream(ctx, "k"); ch != nil || err != context.Canceled { //nolint:errorlint // bare
			t.Errorf("under an ended context: %v, %v", ch, err)
		}
		// The server may see the deadline a moment before the client.
		m.stream(rangeStream, func(call *scripted.Call) error {
			deadline, _ := call.Context.Deadline()
			time.Sleep(time.Until(deadline) - 10*time.Millisecond)
			return streamOf(status.Error(codes.DeadlineExceeded, "mine"), firstChunk)(call)
		})
		ch, err = c.GetStream(within(t, time.Second), "k")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(ch); err != context.DeadlineExceeded { //nolint:errorlint // bare
			t.Errorf("by the server's clock: %v", err)
		}
	})
}

// endless is a stream that never ends by itself.
func endless(call *scripted.Call) error {
	if err := call.Stream.RecvMsg(&pb.RangeRequest{}); err != nil {
		return err
	}
	chunk := &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Key: []byte("k"), Value: make([]byte, 64<<10)}}}
	for {
		if err := call.Stream.SendMsg(&pb.RangeStreamResponse{RangeResponse: chunk}); err != nil {
			return err
		}
	}
}

func TestAReaderThatWalksAwayFreesTheStreamByItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.stream(rangeStream, endless)
		ctx, cancel := context.WithCancel(t.Context())
		ch, err := c.GetStream(ctx, "k")
		if err != nil {
			t.Fatal(err)
		}
		<-ch
		synctest.Wait() // the stream waits for its reader
		cancel()
		synctest.Wait()
		// Only the error is left in the channel, which is closed: the goroutine has gone.
		item, open := <-ch
		if !open || !errors.Is(item.Err(), context.Canceled) {
			t.Errorf("item %+v, open %t", item, open)
		}
		if _, open := <-ch; open {
			t.Error("the channel is still open")
		}
		if n := c.endpoints.Statuses()[0].InFlight; n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

func TestCloseWaitsForGetStreams(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			m := newMembers(t, 1)
			c := m.client(t)
			m.stream(rangeStream, endless)
			chs := make([]GetStreamChan, 5)
			for i := range chs {
				var err error
				if chs[i], err = c.GetStream(t.Context(), "k"); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			for _, ch := range chs {
				<-ch // the error
				select {
				case <-ch:
				default:
					t.Fatal("a stream is still at work when Close has returned")
				}
			}
		})
	}
}

func TestCloseEndsGetStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.stream(rangeStream, endless)
		ch, err := c.GetStream(t.Context(), "k") // its reader has walked away without ending the context
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		if err := c.Close(); err != nil || time.Since(start) != 0 {
			t.Errorf("Close: %v after %v", err, time.Since(start))
		}
		if _, err := readAll(ch); !IsConnCanceled(err) {
			t.Errorf("error %v", err)
		}
	})
}

func TestGetStreamOnAStubOfTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		m.stream(rangeStream, streamOf(nil, firstChunk, lastChunk))
		kv := NewKVFromKVClient(RetryKVClient(m.client(t)), nil)
		ch, err := kv.GetStream(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		if chunks, err := readAll(ch); err != nil || len(chunks) != 2 {
			t.Errorf("chunks %v, error %v", chunks, err)
		}
	})
}

func TestGetStreamToGetResponseOfNothing(t *testing.T) {
	ch := make(chan RangeStreamResponse)
	close(ch)
	if resp, err := GetStreamToGetResponse(ch); err != nil || !proto.Equal((*pb.RangeResponse)(resp), &pb.RangeResponse{}) {
		t.Errorf("%v, %v", resp, err)
	}
}

// store is what a server without streams has: keys in order, at one revision.
type store struct {
	keys     []string
	value    []byte
	revision int64
	behind   bool // the member has not come to the revision yet, and says so to serializable reads of it
}

// serve answers a range.
func (s *store) serve(call *scripted.Call) (proto.Message, error) {
	req := call.Request.(*pb.RangeRequest)
	if req.Revision > s.revision || (s.behind && req.Revision > 0 && req.Serializable) {
		return nil, rpctypes.ErrGRPCFutureRev
	}
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: s.revision + 100}} // others write meanwhile
	if req.Revision == 0 {
		resp.Header.Revision = s.revision
	}
	end := string(req.RangeEnd)
	for _, key := range s.keys {
		if key < string(req.Key) || (end == "" && key != string(req.Key)) || (end != "" && end != "\x00" && key >= end) {
			continue
		}
		resp.Count++
		if req.CountOnly {
			continue
		}
		if req.Limit > 0 && int64(len(resp.Kvs)) == req.Limit {
			resp.More = true
			continue
		}
		resp.Kvs = append(resp.Kvs, &mvccpb.KeyValue{Key: []byte(key), Value: s.value})
	}
	return resp, nil
}

// newStore returns a store with n keys, on all members. Some of them follow upon each other as closely as keys can.
func newStore(m *members, n int) *store {
	s := &store{revision: 50}
	for i := range n {
		s.keys = append(s.keys, fmt.Sprintf("k%06d", i/3)+strings.Repeat("\x00", i%3))
	}
	m.handle(pb.KV_Range_FullMethodName, s.serve)
	return s
}

func TestWithoutStreamsARangeIsReadByPages(t *testing.T) {
	for name, tt := range map[string]struct {
		keys  int
		opts  []OpOption
		want  int // keys
		pages int // at least
	}{
		"nothing":           {0, []OpOption{WithPrefix()}, 0, 1},
		"one page":          {100, []OpOption{WithPrefix()}, 100, 1},
		"a key more":        {101, []OpOption{WithPrefix()}, 101, 2},
		"many":              {5000, []OpOption{WithFromKey()}, 5000, 5},
		"limited":           {5000, []OpOption{WithPrefix(), WithLimit(333)}, 333, 2},
		"limit not reached": {250, []OpOption{WithPrefix(), WithLimit(333)}, 250, 2},
		"limit of all":      {250, []OpOption{WithPrefix(), WithLimit(250)}, 250, 2},
		"limit of a page":   {250, []OpOption{WithPrefix(), WithLimit(100)}, 100, 1},
		"ascending":         {250, []OpOption{WithPrefix(), WithSort(SortByKey, SortAscend)}, 250, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 1) // which answers RangeStream with Unimplemented
				s := newStore(m, tt.keys)
				c := m.client(t)
				ch, err := c.GetStream(t.Context(), "k", tt.opts...)
				if err != nil {
					t.Fatal(err)
				}
				chunks, err := readAll(ch)
				if err != nil || len(chunks) < tt.pages {
					t.Fatalf("%d chunks, error %v", len(chunks), err)
				}
				var keys []string
				for i, chunk := range chunks {
					keys = append(keys, keysOf(chunk.Kvs)...)
					if last := i == len(chunks)-1; (chunk.Header != nil) != last || (!last && (chunk.More || chunk.Count != 0)) {
						t.Errorf("chunk %d of %d: header %v, more %t, count %d", i, len(chunks), chunk.Header, chunk.More, chunk.Count)
					}
				}
				if !slices.Equal(keys, s.keys[:tt.want]) {
					t.Errorf("%d keys, want the first %d", len(keys), tt.want)
				}
				end := chunks[len(chunks)-1]
				if end.Header.Revision != 50 || end.Count != int64(tt.keys) || end.More != (tt.want < tt.keys) {
					t.Errorf("revision %d, count %d, more %t", end.Header.Revision, end.Count, end.More)
				}
				for i, call := range m.servers[0].Calls(pb.KV_Range_FullMethodName) {
					if rev := call.Request.(*pb.RangeRequest).Revision; (i == 0 && rev != 0) || (i > 0 && rev != 50) {
						t.Errorf("page %d is of revision %d, want all of that of the first", i, rev)
					}
				}
			})
		})
	}
}

func TestPagesKeepTheRevisionThatWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		newStore(m, 300)
		ch, err := m.client(t).GetStream(t.Context(), "k", WithPrefix(), WithRev(40))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(ch); err != nil {
			t.Error(err)
		}
		for _, call := range m.servers[0].Calls(pb.KV_Range_FullMethodName) {
			if rev := call.Request.(*pb.RangeRequest).Revision; rev != 40 {
				t.Errorf("a page of revision %d", rev)
			}
		}
	})
}

func TestPagesAreAdaptedToTheSizeOfValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		s := newStore(m, 2000)
		s.value = make([]byte, 100<<10)
		ch, err := m.client(t).GetStream(t.Context(), "k", WithPrefix(), WithLimit(300))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(ch); err != nil {
			t.Error(err)
		}
		calls := m.servers[0].Calls(pb.KV_Range_FullMethodName)
		if limit := calls[len(calls)-2].Request.(*pb.RangeRequest).Limit; limit > 25 {
			t.Errorf("the pages have come to %d keys of 100 KiB", limit)
		}
	})
}

func TestASerializablePageAtAMemberThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		s := newStore(m, 300)
		s.behind = true
		c := m.client(t)
		ch, err := c.GetStream(t.Context(), "k", WithPrefix(), WithSerializable())
		if err != nil {
			t.Fatal(err)
		}
		resp, err := GetStreamToGetResponse(ch)
		if err != nil || !slices.Equal(keysOf(resp.Kvs), s.keys) {
			t.Errorf("%d keys, error %v", len(resp.Kvs), err)
		}
		// A revision of the caller's own that is not there is an error as ever.
		ch, err = c.GetStream(t.Context(), "k", WithPrefix(), WithSerializable(), WithRev(10))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(ch); err != rpctypes.ErrFutureRev { //nolint:errorlint // identity
			t.Errorf("error %v", err)
		}
	})
}

func TestRangesThatCannotBePagedAreOneGet(t *testing.T) {
	for name, opts := range map[string][]OpOption{
		"single key":      nil,
		"descending":      {WithPrefix(), WithSort(SortByKey, SortDescend)},
		"by value":        {WithPrefix(), WithSort(SortByValue, SortAscend)},
		"revision filter": {WithPrefix(), WithMinModRev(3)},
		"creation filter": {WithPrefix(), WithMaxCreateRev(3)},
		"count":           {WithPrefix(), WithCountOnly()},
		"negative limit":  {WithPrefix(), WithLimit(-1)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 1)
				newStore(m, 300)
				ch, err := m.client(t).GetStream(t.Context(), "k", opts...)
				if err != nil {
					t.Fatal(err)
				}
				if chunks, err := readAll(ch); err != nil || len(chunks) != 1 || chunks[0].Header == nil {
					t.Errorf("chunks %v, error %v", chunks, err)
				}
				if n := m.count(pb.KV_Range_FullMethodName); n != 1 {
					t.Errorf("%d ranges", n)
				}
				if got, want := m.last(t, pb.KV_Range_FullMethodName).Request, OpGet("k", opts...).toRangeRequest(); !proto.Equal(got, want) {
					t.Errorf("request %v, want %v", got, want)
				}
			})
		})
	}
}

func TestPagesReportTheirErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		s := newStore(m, 300)
		c := m.client(t)
		m.handle(pb.KV_Range_FullMethodName, scripted.InTurn(s.serve, scripted.Fail(rpctypes.ErrGRPCCompacted)))
		ch, err := c.GetStream(t.Context(), "k", WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := GetStreamToGetResponse(ch); resp != nil || err != rpctypes.ErrCompacted { //nolint:errorlint // identity
			t.Errorf("%v, error %v", resp, err)
		}
		ch, err = c.GetStream(t.Context(), "k", WithSort(9, 9))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(ch); err != rpctypes.ErrInvalidSortOption { //nolint:errorlint // identity
			t.Errorf("error %v", err)
		}
	})
}

func TestGetStreamOverTheLimitOfResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t, func(cfg *Config) { cfg.MaxCallRecvMsgSize = 1000 })
		big := &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Value: make([]byte, 2000)}}}
		m.stream(rangeStream, streamOf(nil, firstChunk, big, lastChunk))
		ch, err := c.GetStream(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		chunks, err := readAll(ch)
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "larger than max") {
			t.Errorf("%d chunks, error %v", len(chunks), err)
		}
	})
}
