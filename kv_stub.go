package clientv3

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// kvStub is the stub of a client's own KV. The generated one makes a list of options for each call; here it is made once.
type kvStub struct {
	pb.KVClient // the generated one, for streams
	conn        *connection
	opts        []grpc.CallOption
}

func newKVStub(c *Client, opts ...grpc.CallOption) *kvStub {
	return &kvStub{KVClient: RetryKVClient(c), conn: c.conn, opts: append(opts, grpc.StaticMethod())}
}

func (s *kvStub) Range(ctx context.Context, req *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	return invoke(ctx, s, pb.KV_Range_FullMethodName, req, new(pb.RangeResponse))
}

func (s *kvStub) Put(ctx context.Context, req *pb.PutRequest, _ ...grpc.CallOption) (*pb.PutResponse, error) {
	return invoke(ctx, s, pb.KV_Put_FullMethodName, req, new(pb.PutResponse))
}

func (s *kvStub) DeleteRange(ctx context.Context, req *pb.DeleteRangeRequest, _ ...grpc.CallOption,
) (*pb.DeleteRangeResponse, error) {
	return invoke(ctx, s, pb.KV_DeleteRange_FullMethodName, req, new(pb.DeleteRangeResponse))
}

func (s *kvStub) Txn(ctx context.Context, req *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	return invoke(ctx, s, pb.KV_Txn_FullMethodName, req, new(pb.TxnResponse))
}

func (s *kvStub) Compact(ctx context.Context, req *pb.CompactionRequest, _ ...grpc.CallOption,
) (*pb.CompactionResponse, error) {
	return invoke(ctx, s, pb.KV_Compact_FullMethodName, req, new(pb.CompactionResponse))
}

func invoke[Response any](ctx context.Context, s *kvStub, method string, req any, resp *Response) (*Response, error) {
	if err := s.conn.Invoke(ctx, method, req, resp, s.opts...); err != nil {
		return nil, err
	}
	return resp, nil
}
