package clientv3

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

func TestErrOfAWatchResponse(t *testing.T) {
	plain := errors.New("plain")
	for name, tt := range map[string]struct {
		resp WatchResponse
		want error
	}{
		"events":               {WatchResponse{Events: []*Event{{}}}, nil},
		"created":              {WatchResponse{Created: true}, nil},
		"the client's reason":  {WatchResponse{closeErr: plain, CompactRevision: 5, Canceled: true}, plain},
		"etcd's, to be named":  {WatchResponse{closeErr: rpctypes.ErrGRPCNoLeader, Canceled: true}, rpctypes.ErrNoLeader},
		"compacted":            {WatchResponse{CompactRevision: 5, Canceled: true, CancelReason: "x"}, rpctypes.ErrCompacted},
		"future revision":      {WatchResponse{Canceled: true}, rpctypes.ErrFutureRev},
		"a known reason":       {WatchResponse{Canceled: true, CancelReason: "etcdserver: permission denied"}, rpctypes.ErrPermissionDenied},
		"reason without end":   {WatchResponse{CancelReason: "etcdserver: permission denied"}, nil},
		"progress":             {WatchResponse{Header: &pb.ResponseHeader{Revision: 3}}, nil},
		"the zero response":    {WatchResponse{}, nil},
		"revision and created": {WatchResponse{Created: true, Header: &pb.ResponseHeader{Revision: 3}}, nil},
	} {
		if got := tt.resp.Err(); got != tt.want { //nolint:errorlint // identity is what is promised
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	unknown := WatchResponse{Canceled: true, CancelReason: "something else"}
	if st, ok := status.FromError(unknown.Err()); !ok || st.Code() != codes.FailedPrecondition || st.Message() != "something else" {
		t.Errorf("an unknown reason: %v", unknown.Err())
	}
}

func TestIsProgressNotify(t *testing.T) {
	header := &pb.ResponseHeader{Revision: 3}
	for name, tt := range map[string]struct {
		resp WatchResponse
		want bool
	}{
		"progress":         {WatchResponse{Header: header}, true},
		"events":           {WatchResponse{Header: header, Events: []*Event{{}}}, false},
		"created":          {WatchResponse{Header: header, Created: true}, false},
		"canceled":         {WatchResponse{Header: header, Canceled: true}, false},
		"compacted":        {WatchResponse{Header: header, CompactRevision: 1}, false},
		"without revision": {WatchResponse{Header: &pb.ResponseHeader{}}, false},
		"without header":   {WatchResponse{}, false},
	} {
		if got := tt.resp.IsProgressNotify(); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestWithRequireLeader(t *testing.T) {
	leader := func(ctx context.Context) []string {
		md, _ := metadata.FromOutgoingContext(ctx)
		return md.Get(rpctypes.MetadataRequireLeaderKey)
	}
	if got := leader(WithRequireLeader(t.Context())); len(got) != 1 || got[0] != "true" {
		t.Errorf("%q", got)
	}
	if got := leader(WithRequireLeader(WithRequireLeader(t.Context()))); len(got) != 1 {
		t.Errorf("twice: %q", got)
	}
	base := metadata.NewOutgoingContext(t.Context(), metadata.Pairs("k", "v"))
	md, _ := metadata.FromOutgoingContext(WithRequireLeader(base))
	if got := md.Get("k"); len(got) != 1 || got[0] != "v" {
		t.Errorf("the caller's metadata has become %v", md)
	}
	if got := leader(base); len(got) != 0 {
		t.Errorf("the context it derives from has changed: %q", got)
	}
}

// watches serves watches: it reports each request to create one, confirms it, and sends the responses.
func watches(requests chan<- *pb.WatchCreateRequest, responses ...*pb.WatchResponse) scripted.Stream {
	return func(call *scripted.Call) error {
		for {
			var req pb.WatchRequest
			if err := call.Stream.RecvMsg(&req); err != nil {
				return nil
			}
			create := req.GetCreateRequest()
			if create == nil {
				continue
			}
			requests <- proto.CloneOf(create)
			for _, resp := range append([]*pb.WatchResponse{{Header: testHeader, Created: true}}, responses...) {
				resp = proto.CloneOf(resp)
				resp.WatchId = create.WatchId
				if err := call.Stream.SendMsg(resp); err != nil {
					return err
				}
			}
		}
	}
}

func TestWatchRequests(t *testing.T) {
	b := func(s string) []byte { return []byte(s) }
	for name, tt := range map[string]struct {
		key  string
		opts []OpOption
		want *pb.WatchCreateRequest
	}{
		"key":               {"k", nil, &pb.WatchCreateRequest{Key: b("k")}},
		"prefix":            {"k", []OpOption{WithPrefix()}, &pb.WatchCreateRequest{Key: b("k"), RangeEnd: b("l")}},
		"all":               {"", []OpOption{WithFromKey()}, &pb.WatchCreateRequest{Key: b("\x00"), RangeEnd: b("\x00")}},
		"two ranges":        {"k", []OpOption{WithPrefix(), WithFromKey()}, &pb.WatchCreateRequest{Key: b("k"), RangeEnd: b("\x00")}},
		"revision":          {"k", []OpOption{WithRev(5)}, &pb.WatchCreateRequest{Key: b("k"), StartRevision: 5}},
		"progress":          {"k", []OpOption{WithProgressNotify()}, &pb.WatchCreateRequest{Key: b("k"), ProgressNotify: true}},
		"previous":          {"k", []OpOption{WithPrevKV()}, &pb.WatchCreateRequest{Key: b("k"), PrevKv: true}},
		"without puts":      {"k", []OpOption{WithFilterPut()}, &pb.WatchCreateRequest{Key: b("k"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}}},
		"without deletions": {"k", []OpOption{WithFilterDelete()}, &pb.WatchCreateRequest{Key: b("k"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}}},
		"created":           {"k", []OpOption{WithCreatedNotify()}, &pb.WatchCreateRequest{Key: b("k")}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 1)
				requests := make(chan *pb.WatchCreateRequest, 1)
				m.stream(pb.Watch_Watch_FullMethodName, watches(requests))
				c := m.client(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ch := c.Watch(ctx, tt.key, tt.opts...)
				got := <-requests
				// Ids are the client's choice, and large revisions always come in fragments, which it puts together.
				got.WatchId, got.Fragment = 0, false
				if !proto.Equal(got, tt.want) {
					t.Errorf("request %v, want %v", got, tt.want)
				}
				if name == "created" {
					if resp := <-ch; !resp.Created || resp.Header.Revision != 3 {
						t.Errorf("first response %+v", resp)
					}
				}
			})
		})
	}
}

func TestWatchDeliversWhatTheServerSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		put := &mvccpb.Event{Type: EventTypePut, Kv: &mvccpb.KeyValue{Key: []byte("k"), Value: []byte("v"), ModRevision: 4}}
		requests := make(chan *pb.WatchCreateRequest, 1)
		m.stream(pb.Watch_Watch_FullMethodName, watches(requests,
			&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 4}, Events: []*mvccpb.Event{put}},
			&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 8}},
			&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 9}, Canceled: true, CompactRevision: 7},
		))
		ch := m.client(t).Watch(t.Context(), "k")
		if resp := <-ch; len(resp.Events) != 1 || !proto.Equal(resp.Events[0], put) || resp.Header.Revision != 4 || resp.Err() != nil {
			t.Errorf("events: %+v", resp)
		}
		if resp := <-ch; !resp.IsProgressNotify() || resp.Header.Revision != 8 {
			t.Errorf("progress: %+v", resp)
		}
		if resp := <-ch; resp.Err() != rpctypes.ErrCompacted || resp.CompactRevision != 7 || !resp.Canceled { //nolint:errorlint // identity
			t.Errorf("end: %+v", resp)
		}
		if resp, open := <-ch; open {
			t.Errorf("after the end: %+v", resp)
		}
	})
}

func TestAWatchMovesToAnotherMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		requests := make(chan *pb.WatchCreateRequest, 100)
		m.stream(pb.Watch_Watch_FullMethodName, watches(requests))
		c := m.client(t)
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c.Watch(ctx, "k")
		at := func() int { return slices.Index(m.counts(pb.Watch_Watch_FullMethodName), 1) }
		for range 20 {
			from := at()
			m.forget()
			m.servers[from].Cut()
			time.Sleep(10 * time.Second) // the stream is open elsewhere, and the member is connected again
			if to := at(); to < 0 || to == from {
				t.Fatalf("the stream was at member %d and is at %d now", from, to)
			}
		}
	})
}

func TestWatchPanicsOnOptionsThatItCannotHave(t *testing.T) {
	c := newMembers(t, 1).client(t)
	if got := panicOf(func() { c.Watch(t.Context(), "k", WithLimit(1)) }); got != "unexpected limit in watch" {
		t.Errorf("panic %v", got)
	}
}

func TestCloseEndsWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		requests := make(chan *pb.WatchCreateRequest, 3)
		m.stream(pb.Watch_Watch_FullMethodName, watches(requests))
		c := m.client(t)
		ch := c.Watch(t.Context(), "k")
		w := NewWatcher(c)
		other := w.Watch(t.Context(), "k")
		if err := w.Close(); err != nil {
			t.Errorf("Close of the watcher: %v", err)
		}
		for range other {
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for range ch {
		}
	})
}
