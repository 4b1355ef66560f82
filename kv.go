package clientv3

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// Responses of key operations. They are the wire's messages under another name: fields and their meaning are those of
// the etcdserverpb messages.
type (
	CompactResponse pb.CompactionResponse
	PutResponse     pb.PutResponse
	GetResponse     pb.RangeResponse
	DeleteResponse  pb.DeleteRangeResponse
	TxnResponse     pb.TxnResponse
)

// KV reads and writes keys. Its methods are safe for concurrent use, and return when the server has answered, the
// context has ended, or the call cannot succeed.
//
// A read is repeated on other endpoints, as long as its context lives, when an endpoint fails. A write is repeated only
// if the failure proves that it was not applied; MayHaveApplied tells, of the error of a failed write, whether it may
// have been.
//
// Errors: a context error is returned as it is (err == context.DeadlineExceeded), an error of etcd as the value in
// package rpctypes (err == rpctypes.ErrCompacted); of any other error status.FromError gives the gRPC status.
type KV interface {
	// Put writes a key. Options: WithLease, WithPrevKV, WithIgnoreValue, WithIgnoreLease. An empty key is refused by
	// the server with rpctypes.ErrEmptyKey.
	Put(ctx context.Context, key, val string, opts ...OpOption) (*PutResponse, error)

	// Get reads a key, or with WithPrefix, WithRange or WithFromKey a range of keys, in one response. By default it is
	// a linearizable read of the current revision. A key that does not exist is no error: the response has no Kvs.
	Get(ctx context.Context, key string, opts ...OpOption) (*GetResponse, error)

	// GetStream reads what Get reads, but hands it over in chunks as they arrive, so that a large range needs little
	// memory. Keys come in ascending order, all of one revision. Header, More and Count are in the last chunk only.
	//
	// The channel is closed after the last chunk, or after one whose Err is not nil. A reader that stops early must
	// end ctx, which frees everything that belongs to the stream; it must not wait for the channel's end then.
	// Servers before 3.7 have no streams: the keys are then read page by page, at the revision of the first page.
	GetStream(ctx context.Context, key string, opts ...OpOption) (GetStreamChan, error)

	// Delete deletes a key, or with WithPrefix, WithRange or WithFromKey a range of keys. Option: WithPrevKV.
	Delete(ctx context.Context, key string, opts ...OpOption) (*DeleteResponse, error)

	// Compact discards the history before the revision. Later reads and watches of discarded revisions fail with
	// rpctypes.ErrCompacted.
	Compact(ctx context.Context, rev int64, opts ...CompactOption) (*CompactResponse, error)

	// Do carries out an operation made with OpGet, OpPut, OpDelete or OpTxn.
	Do(ctx context.Context, op Op) (OpResponse, error)

	// Txn begins a transaction.
	Txn(ctx context.Context) Txn
}

// OpResponse is the response of Do: one of four kinds, as the operation was.
type OpResponse struct {
	put *PutResponse
	get *GetResponse
	del *DeleteResponse
	txn *TxnResponse
}

// Put returns the response of a put, or nil.
func (op OpResponse) Put() *PutResponse { return op.put }

// Get returns the response of a get, or nil.
func (op OpResponse) Get() *GetResponse { return op.get }

// Del returns the response of a deletion, or nil.
func (op OpResponse) Del() *DeleteResponse { return op.del }

// Txn returns the response of a transaction, or nil.
func (op OpResponse) Txn() *TxnResponse { return op.txn }

// OpResponse returns the response as the one of a Do, for decorators.
func (resp *PutResponse) OpResponse() OpResponse { return OpResponse{put: resp} }

// OpResponse returns the response as the one of a Do, for decorators.
func (resp *GetResponse) OpResponse() OpResponse { return OpResponse{get: resp} }

// OpResponse returns the response as the one of a Do, for decorators.
func (resp *DeleteResponse) OpResponse() OpResponse { return OpResponse{del: resp} }

// OpResponse returns the response as the one of a Do, for decorators.
func (resp *TxnResponse) OpResponse() OpResponse { return OpResponse{txn: resp} }

type kv struct {
	client   *Client // nil for a KV on a stub of the caller's
	remote   pb.KVClient
	callOpts []grpc.CallOption
}

// NewKV returns the KV of a client, as the one in its field KV at first: for code that wraps that field and wants the
// bare one too.
func NewKV(c *Client) KV {
	limit := c.sendLimit() // the connection has the other call options
	return &kv{client: c, remote: newKVStub(c, limit), callOpts: []grpc.CallOption{limit}}
}

// NewKVFromKVClient returns a KV on the given stub, which need not belong to a connection: etcd itself runs clients in
// process so. Calls are made once, without retries, unless the stub is one that retries, as RetryKVClient's; GetStream
// does not go on by pages where the stub cannot stream. The client's limits on message sizes are passed to the stub; c
// may be nil.
func NewKVFromKVClient(remote pb.KVClient, c *Client) KV {
	return &kv{remote: remote, callOpts: c.callOptions()}
}

func (kv *kv) Put(ctx context.Context, key, val string, opts ...OpOption) (*PutResponse, error) {
	resp, err := kv.remote.Put(ctx, OpPut(key, val, opts...).toPutRequest(), kv.callOpts...)
	return (*PutResponse)(resp), ContextError(ctx, err)
}

func (kv *kv) Get(ctx context.Context, key string, opts ...OpOption) (*GetResponse, error) {
	return kv.get(ctx, OpGet(key, opts...))
}

func (kv *kv) get(ctx context.Context, op Op) (*GetResponse, error) {
	if !op.IsSortOptionValid() {
		return nil, rpctypes.ErrInvalidSortOption
	}
	resp, err := kv.remote.Range(ctx, op.toRangeRequest(), kv.callOpts...)
	return (*GetResponse)(resp), ContextError(ctx, err)
}

func (kv *kv) Delete(ctx context.Context, key string, opts ...OpOption) (*DeleteResponse, error) {
	resp, err := kv.remote.DeleteRange(ctx, OpDelete(key, opts...).toDeleteRequest(), kv.callOpts...)
	return (*DeleteResponse)(resp), ContextError(ctx, err)
}

func (kv *kv) Compact(ctx context.Context, rev int64, opts ...CompactOption) (*CompactResponse, error) {
	resp, err := kv.remote.Compact(ctx, OpCompact(rev, opts...).toRequest(), kv.callOpts...)
	return (*CompactResponse)(resp), ContextError(ctx, err)
}

func (kv *kv) Txn(ctx context.Context) Txn {
	return &txn{kv: kv, ctx: ctx}
}

func (kv *kv) Do(ctx context.Context, op Op) (OpResponse, error) {
	switch op.t {
	case tRange:
		resp, err := kv.get(ctx, op)
		return responseOf(resp, err)
	case tPut:
		resp, err := kv.remote.Put(ctx, op.toPutRequest(), kv.callOpts...)
		return responseOf((*PutResponse)(resp), ContextError(ctx, err))
	case tDeleteRange:
		resp, err := kv.remote.DeleteRange(ctx, op.toDeleteRequest(), kv.callOpts...)
		return responseOf((*DeleteResponse)(resp), ContextError(ctx, err))
	case tTxn:
		resp, err := kv.remote.Txn(ctx, op.toTxnRequest(), kv.callOpts...)
		return responseOf((*TxnResponse)(resp), ContextError(ctx, err))
	default:
		panic("Unknown op")
	}
}

func responseOf(resp interface{ OpResponse() OpResponse }, err error) (OpResponse, error) {
	if err != nil {
		return OpResponse{}, err
	}
	return resp.OpResponse(), nil
}
