package clientv3

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

func TestKeyOperationsSendTheirRequestAndReturnTheResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		header := &pb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: 3, RaftTerm: 4}
		kvs := []*mvccpb.KeyValue{{Key: []byte("k"), Value: []byte("v"), Version: 9, Lease: 8}}
		tests := map[string]struct {
			method         string
			do             func() (proto.Message, error)
			request, reply proto.Message
		}{
			"Put": {
				pb.KV_Put_FullMethodName, func() (proto.Message, error) {
					resp, err := c.Put(t.Context(), "k", "v", WithLease(5), WithPrevKV())
					return (*pb.PutResponse)(resp), err
				},
				&pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: 5, PrevKv: true},
				&pb.PutResponse{Header: header, PrevKv: kvs[0]},
			},
			"Get": {
				pb.KV_Range_FullMethodName, func() (proto.Message, error) {
					resp, err := c.Get(t.Context(), "k", WithPrefix(), WithLimit(2))
					return (*pb.RangeResponse)(resp), err
				},
				&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 2},
				&pb.RangeResponse{Header: header, Kvs: kvs, More: true, Count: 7},
			},
			"Delete": {
				pb.KV_DeleteRange_FullMethodName, func() (proto.Message, error) {
					resp, err := c.Delete(t.Context(), "k", WithFromKey())
					return (*pb.DeleteRangeResponse)(resp), err
				},
				&pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte{0}},
				&pb.DeleteRangeResponse{Header: header, Deleted: 3, PrevKvs: kvs},
			},
			"Compact": {
				pb.KV_Compact_FullMethodName, func() (proto.Message, error) {
					resp, err := c.Compact(t.Context(), 6, WithCompactPhysical())
					return (*pb.CompactionResponse)(resp), err
				},
				&pb.CompactionRequest{Revision: 6, Physical: true},
				&pb.CompactionResponse{Header: header},
			},
		}
		for name, tt := range tests {
			m.handle(tt.method, scripted.Answer(tt.reply))
			got, err := tt.do()
			if err != nil || !proto.Equal(got, tt.reply) {
				t.Errorf("%s: response %v, error %v, want %v", name, got, err, tt.reply)
			}
			if got := m.last(t, tt.method).Request; !proto.Equal(got, tt.request) {
				t.Errorf("%s: request %v, want %v", name, got, tt.request)
			}
		}
	})
}

func TestInvalidSortOptionIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		if _, err := c.Get(t.Context(), "k", WithSort(9, SortAscend)); err != rpctypes.ErrInvalidSortOption { //nolint:errorlint // identity
			t.Errorf("Get: %v", err)
		}
		if _, err := c.Do(t.Context(), OpGet("k", WithSort(SortByKey, 9))); err != rpctypes.ErrInvalidSortOption { //nolint:errorlint // identity
			t.Errorf("Do: %v", err)
		}
		if n := m.count(pb.KV_Range_FullMethodName); n != 0 {
			t.Errorf("sent %d times", n)
		}
	})
}

func TestMetadataOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t, func(cfg *Config) { cfg.Token = "tok" })
		got := func() metadata.MD { return m.last(t, pb.KV_Range_FullMethodName).Metadata() }
		check := func(name, key string, want ...string) {
			t.Helper()
			values := got().Get(key)
			if len(values) != len(want) {
				t.Errorf("%s: %s is %q, want %q", name, key, values, want)
				return
			}
			for i := range want {
				if values[i] != want[i] {
					t.Errorf("%s: %s is %q, want %q", name, key, values, want)
				}
			}
		}
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		check("plain", rpctypes.MetadataClientAPIVersionKey, "3.7")
		check("plain", rpctypes.TokenFieldNameGRPC, "tok")
		check("plain", rpctypes.MetadataRequireLeaderKey)

		own := metadata.NewOutgoingContext(t.Context(), metadata.Pairs("mine", "a", "mine", "b",
			rpctypes.MetadataClientAPIVersionKey, "9.9", rpctypes.TokenFieldNameGRPC, "other"))
		if _, err := c.Get(WithRequireLeader(WithRequireLeader(own)), "k"); err != nil {
			t.Fatal(err)
		}
		check("own", "mine", "a", "b")
		check("own", rpctypes.MetadataClientAPIVersionKey, "3.7")
		check("own", rpctypes.MetadataRequireLeaderKey, "true")
		if tokens := got().Get(rpctypes.TokenFieldNameGRPC); len(tokens) != 2 {
			t.Errorf("own: tokens %q, want the client's and the caller's", tokens)
		}
		// The caller's metadata is not changed.
		if md, _ := metadata.FromOutgoingContext(own); len(md.Get(rpctypes.MetadataRequireLeaderKey)) != 0 ||
			md.Get(rpctypes.MetadataClientAPIVersionKey)[0] != "9.9" {
			t.Errorf("the caller's metadata has become %v", md)
		}
	})
}

func TestStreamsHaveTheMetadataOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t, func(cfg *Config) { cfg.Token = "tok" })
		requests := make(chan *pb.WatchCreateRequest, 1)
		m.stream(pb.Watch_Watch_FullMethodName, watches(requests))
		m.stream(keepAlive, renewals(7))
		m.stream(rangeStream, streamOf(nil, lastChunk))
		m.stream(snapshot, snapshotOf(nil, 0, "", "sum"))
		own := metadata.AppendToOutgoingContext(t.Context(), "mine", "a")

		ctx, cancel := context.WithCancel(own)
		defer cancel()
		c.Watch(ctx, "k")
		if _, err := c.KeepAliveOnce(own, 9); err != nil {
			t.Error(err)
		}
		if ch, err := c.GetStream(own, "k"); err != nil || drop(readAll(ch)) != nil {
			t.Error(err)
		}
		if r, err := c.Snapshot(own); err != nil || r.Close() != nil {
			t.Error(err)
		}
		for _, method := range []string{pb.Watch_Watch_FullMethodName, keepAlive, rangeStream, snapshot} {
			md := m.last(t, method).Metadata()
			for key, want := range map[string]string{
				rpctypes.MetadataClientAPIVersionKey: "3.7", rpctypes.TokenFieldNameGRPC: "tok", "mine": "a",
			} {
				if got := md.Get(key); len(got) != 1 || got[0] != want {
					t.Errorf("%s: %s is %q, want %q", method, key, got, want)
				}
			}
		}
		// Without metadata of the caller's own, too.
		if _, err := c.KeepAliveOnce(t.Context(), 9); err != nil {
			t.Error(err)
		}
		stream, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: 1}); err != nil {
			t.Error(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Error(err)
		}
		for _, call := range m.servers[0].Calls(keepAlive) {
			if got := call.Metadata().Get(rpctypes.MetadataClientAPIVersionKey); len(got) != 1 {
				t.Errorf("a stream has the client versions %q", got)
			}
		}
	})
}

// What programs send by stubs of their own is their business and the server's.
func TestLimitOfRequestsIsThatOfKV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t, func(cfg *Config) { cfg.MaxCallSendMsgSize = 10 })
		large := strings.Repeat("v", 100)
		if _, err := c.Put(t.Context(), "k", large); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("KV: %v", err)
		}
		if _, err := c.Txn(t.Context()).Then(OpPut("k", large)).Commit(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("Txn: %v", err)
		}
		if _, err := pb.NewKVClient(c.ActiveConnection()).Put(t.Context(), &pb.PutRequest{Value: []byte(large)}); err != nil {
			t.Errorf("a stub on the connection: %v", err)
		}
	})
}

func TestServicesOnAStubOfTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		kv := NewKVFromKVClient(RetryKVClient(c), nil)
		m.handle(pb.KV_Range_FullMethodName, scripted.Answer(&pb.RangeResponse{Count: 4}))
		resp, err := kv.Get(t.Context(), "k")
		if err != nil || resp.Count != 4 {
			t.Errorf("%v, %v", resp, err)
		}
		m.handle(pb.KV_Range_FullMethodName, scripted.Fail(rpctypes.ErrGRPCCompacted))
		if _, err := kv.Get(t.Context(), "k"); err != rpctypes.ErrCompacted { //nolint:errorlint // identity
			t.Errorf("error %v", err)
		}
		// The client's limits go along.
		limited := m.client(t, func(cfg *Config) { cfg.MaxCallSendMsgSize = 10 })
		kv = NewKVFromKVClient(RetryKVClient(c), limited)
		if _, err := kv.Put(t.Context(), "a key that is too long", "v"); err == nil {
			t.Error("the limit on requests was not passed on")
		}
	})
}
