package kubernetes

import (
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

// serve returns a client of a scripted server. What is not scripted is answered with empty responses.
func serve(t *testing.T) (Interface, *scripted.Server) {
	t.Helper()
	network := scripted.NewNetwork()
	server := network.Serve(t, "member:2379")
	cfg := clientv3.Config{Endpoints: []string{"http://member:2379"}}
	cfg.DialOptions = append(cfg.DialOptions, network.DialOption())
	cli, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	return cli.Kubernetes, server
}

func TestRequests(t *testing.T) {
	ctx := t.Context()
	for name, tt := range map[string]struct {
		call func(Interface) error
		want proto.Message
	}{
		"get": {
			func(k Interface) error { _, err := k.Get(ctx, "a", GetOptions{Revision: 7}); return err },
			&pb.RangeRequest{Key: []byte("a"), Revision: 7, Limit: 1},
		},
		"list": {
			func(k Interface) error { _, err := k.List(ctx, "a/", ListOptions{}); return err },
			&pb.RangeRequest{Key: []byte("a/"), RangeEnd: []byte("a0")},
		},
		"list a page": {
			func(k Interface) error {
				_, err := k.List(ctx, "a/", ListOptions{Revision: 7, Limit: 9, Continue: "a/b"})
				return err
			},
			&pb.RangeRequest{Key: []byte("a/b"), RangeEnd: []byte("a0"), Revision: 7, Limit: 9},
		},
		"list all": {
			func(k Interface) error { _, err := k.List(ctx, "", ListOptions{}); return err },
			&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}},
		},
		"count": {
			func(k Interface) error { _, err := k.Count(ctx, "a/", CountOptions{}); return err },
			&pb.RangeRequest{Key: []byte("a/"), RangeEnd: []byte("a0"), CountOnly: true},
		},
		"count all": {
			func(k Interface) error { _, err := k.Count(ctx, "", CountOptions{}); return err },
			&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true},
		},
		"put": {
			func(k Interface) error {
				_, err := k.OptimisticPut(ctx, "a", []byte("v"), 7, PutOptions{LeaseID: 5})
				return err
			},
			&pb.TxnRequest{
				Compare: unchangedSince("a", 7),
				Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
					RequestPut: &pb.PutRequest{Key: []byte("a"), Value: []byte("v"), Lease: 5},
				}}},
			},
		},
		"delete, or get": {
			func(k Interface) error {
				_, err := k.OptimisticDelete(ctx, "a", 7, DeleteOptions{GetOnFailure: true})
				return err
			},
			&pb.TxnRequest{
				Compare: unchangedSince("a", 7),
				Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{
					RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("a")},
				}}},
				Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{
					RequestRange: &pb.RangeRequest{Key: []byte("a")},
				}}},
			},
		},
	} {
		k, server := serve(t)
		if err := tt.call(k); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		calls := append(server.Calls(pb.KV_Range_FullMethodName), server.Calls(pb.KV_Txn_FullMethodName)...)
		if len(calls) != 1 || !proto.Equal(calls[0].Request, tt.want) {
			t.Errorf("%s: %d calls, %v", name, len(calls), calls[0].Request)
		}
	}
}

func unchangedSince(key string, rev int64) []*pb.Compare {
	return []*pb.Compare{{
		Key: []byte(key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev},
	}}
}

func TestListDoesNotContinueElsewhere(t *testing.T) {
	k, server := serve(t)
	for _, from := range []string{"a", "b/c", "/a/"} {
		if _, err := k.List(t.Context(), "a/", ListOptions{Continue: from}); err == nil {
			t.Errorf("continuing from %q", from)
		}
	}
	if n := server.Count(pb.KV_Range_FullMethodName); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestChangedKeyIsReturnedIfAskedFor(t *testing.T) {
	k, server := serve(t)
	changed := &mvccpb.KeyValue{Key: []byte("a"), ModRevision: 8}
	for _, tt := range []struct {
		kvs  []*mvccpb.KeyValue
		get  bool
		want *mvccpb.KeyValue
	}{
		{[]*mvccpb.KeyValue{changed}, true, changed},
		{nil, true, nil},
		{nil, false, nil},
	} {
		resp := &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: 9}}
		if tt.get {
			resp.Responses = []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponseRange{
				ResponseRange: &pb.RangeResponse{Kvs: tt.kvs},
			}}}
		}
		server.Handle(pb.KV_Txn_FullMethodName, scripted.Answer(resp))
		put, err := k.OptimisticPut(t.Context(), "a", nil, 7, PutOptions{GetOnFailure: tt.get})
		if err != nil || put.Succeeded || put.Revision != 9 || !proto.Equal(put.KV, tt.want) {
			t.Errorf("put: %+v, %v; want %v", put, err, tt.want)
		}
		del, err := k.OptimisticDelete(t.Context(), "a", 7, DeleteOptions{GetOnFailure: tt.get})
		if err != nil || del.Succeeded || del.Revision != 9 || !proto.Equal(del.KV, tt.want) {
			t.Errorf("delete: %+v, %v; want %v", del, err, tt.want)
		}
	}
}

func TestErrorsKeepTheirCause(t *testing.T) {
	k, server := serve(t)
	server.HandleAll(scripted.Fail(rpctypes.ErrGRPCCompacted))
	ctx := t.Context()
	_, get := k.Get(ctx, "a", GetOptions{})
	_, list := k.List(ctx, "a", ListOptions{})
	_, count := k.Count(ctx, "a", CountOptions{})
	_, put := k.OptimisticPut(ctx, "a", nil, 1, PutOptions{})
	_, del := k.OptimisticDelete(ctx, "a", 1, DeleteOptions{})
	for name, err := range map[string]error{"get": get, "list": list, "count": count, "put": put, "delete": del} {
		if !errors.Is(err, rpctypes.ErrCompacted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(clientv3.Config{}); !errors.Is(err, clientv3.ErrNoAvailableEndpoints) {
		t.Errorf("without endpoints: %v", err)
	}
}
