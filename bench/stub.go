package main

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// stubClient is the stub generated for gRPC, on a connection with gRPC's defaults, and no client at all.
type stubClient struct {
	conn  *grpc.ClientConn
	kv    pb.KVClient
	watch pb.WatchClient
}

func newStub(endpoint string) (*stubClient, error) {
	conn, err := grpc.NewClient(strings.TrimPrefix(endpoint, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	return &stubClient{conn, pb.NewKVClient(conn), pb.NewWatchClient(conn)}, nil
}

func (c *stubClient) Get(ctx context.Context, key string) (int, error) {
	resp, err := c.kv.Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		return 0, err
	}
	return len(resp.Kvs), nil
}

func (c *stubClient) Put(ctx context.Context, key, value string) error {
	_, err := c.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	return err
}

// prefixEnd is the end of the range of keys with the prefix, whose last byte is not 0xff.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}

func (c *stubClient) Range(ctx context.Context, prefix string) (int, error) {
	resp, err := c.kv.Range(ctx, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix)})
	if err != nil {
		return 0, err
	}
	return len(resp.Kvs), nil
}

func (c *stubClient) Txn(ctx context.Context, keys [3]string, value string) error {
	put := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)},
		}}
	}
	resp, err := c.kv.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{
			{
				Key: []byte(keys[0]), Result: pb.Compare_GREATER, Target: pb.Compare_VERSION,
				TargetUnion: &pb.Compare_Version{Version: -1},
			},
			{
				Key: []byte(keys[1]), Result: pb.Compare_NOT_EQUAL, Target: pb.Compare_VALUE,
				TargetUnion: &pb.Compare_Value{Value: []byte("other")},
			},
			{
				Key: []byte(keys[2]), Result: pb.Compare_LESS, Target: pb.Compare_CREATE,
				TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 1 << 60},
			},
		},
		Success: []*pb.RequestOp{
			put(keys[0]), put(keys[1]),
			{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(keys[2])}}},
		},
	})
	if err != nil {
		return err
	}
	return checkTxn(resp.Succeeded, len(resp.Responses))
}

func (c *stubClient) Stream(ctx context.Context, prefix string) (int64, error) {
	stream, err := c.kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix)})
	if err != nil {
		return 0, err
	}
	var size int64
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
		for _, kv := range chunk.GetRangeResponse().GetKvs() {
			size += int64(len(kv.Key) + len(kv.Value))
		}
	}
}

func (c *stubClient) Watch(ctx context.Context, prefix string, rev int64) (watch, error) {
	stream, err := c.watch.Watch(ctx)
	if err != nil {
		return nil, err
	}
	create := &pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix), StartRevision: rev}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
	if err != nil {
		return nil, err
	}
	return func() (int, error) {
		resp, err := stream.Recv()
		if err != nil {
			return 0, err
		}
		return len(resp.Events), nil
	}, nil
}

func (c *stubClient) Close() error { return c.conn.Close() }
