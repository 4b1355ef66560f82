package namespace

import (
	"context"
	"slices"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/forward"
)

// NewKV returns a KV on the keys of kv that begin with the prefix, under their names without it. Compact is passed on:
// it concerns the whole cluster.
func NewKV(kv clientv3.KV, prefix string) clientv3.KV {
	return &kvSpace{KV: kv, space: newSpace(prefix)}
}

type kvSpace struct {
	clientv3.KV
	space space
}

func (kv *kvSpace) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	resp, err := kv.Do(ctx, clientv3.OpPut(key, val, opts...))
	return resp.Put(), err
}

func (kv *kvSpace) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	resp, err := kv.Do(ctx, clientv3.OpGet(key, opts...))
	return resp.Get(), err
}

func (kv *kvSpace) Delete(ctx context.Context, key string, opts ...clientv3.OpOption,
) (*clientv3.DeleteResponse, error) {
	resp, err := kv.Do(ctx, clientv3.OpDelete(key, opts...))
	return resp.Del(), err
}

func (kv *kvSpace) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	op, err := kv.space.op(op)
	if err != nil {
		return clientv3.OpResponse{}, err
	}
	resp, err := kv.KV.Do(ctx, op)
	if err != nil {
		return clientv3.OpResponse{}, err
	}
	return kv.space.opResponse(resp), nil
}

func (kv *kvSpace) GetStream(ctx context.Context, key string, opts ...clientv3.OpOption,
) (clientv3.GetStreamChan, error) {
	op, err := kv.space.op(clientv3.OpGet(key, opts...))
	if err != nil {
		return nil, err
	}
	stream, err := kv.KV.GetStream(ctx, string(op.KeyBytes()), placed(opts, op)...)
	if err != nil {
		return nil, err
	}
	return forward.Stream(ctx, stream, kv.space.rangeResponse), nil
}

// placed returns the options with the range of op in place of the one that they make.
func placed(opts []clientv3.OpOption, op clientv3.Op) []clientv3.OpOption {
	place := func(o *clientv3.Op) {
		o.WithKeyBytes(op.KeyBytes())
		o.WithRangeBytes(op.RangeBytes())
	}
	return append(slices.Clip(opts), place)
}

func (kv *kvSpace) Txn(ctx context.Context) clientv3.Txn {
	return &txn{space: kv.space, inner: kv.KV.Txn(ctx)}
}

// txn translates the parts of a transaction as they are given. Txn has no way to refuse them then, so Commit does.
type txn struct {
	space space
	inner clientv3.Txn
	err   error
}

func (t *txn) If(cs ...clientv3.Cmp) clientv3.Txn {
	cs, err := t.space.cmps(cs)
	t.refuse(err)
	t.inner = t.inner.If(cs...)
	return t
}

func (t *txn) Then(ops ...clientv3.Op) clientv3.Txn {
	ops, err := t.space.ops(ops)
	t.refuse(err)
	t.inner = t.inner.Then(ops...)
	return t
}

func (t *txn) Else(ops ...clientv3.Op) clientv3.Txn {
	ops, err := t.space.ops(ops)
	t.refuse(err)
	t.inner = t.inner.Else(ops...)
	return t
}

func (t *txn) refuse(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *txn) Commit() (*clientv3.TxnResponse, error) {
	if t.err != nil {
		return nil, t.err
	}
	resp, err := t.inner.Commit()
	if err != nil {
		return nil, err
	}
	return t.space.txnResponse(resp), nil
}
