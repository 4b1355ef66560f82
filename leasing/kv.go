package leasing

import (
	"context"
	"errors"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/internal/forward"
)

// NewKV returns a KV that caches the keys it reads, and a function that ends it. The prefix is that of the leasing keys;
// all who are to see each other's writes at once must use the same one, and no other keys may begin with it. The options
// are those of the session whose lease the leasing keys are attached to; when it is lost, another one is made. NewKV
// waits for the first.
//
// The function gives up all keys, revokes the lease and waits for the KV's goroutines. It must be called. The KV can be
// used from then on, but caches nothing.
func NewKV(cl *clientv3.Client, pfx string, opts ...concurrency.SessionOption) (clientv3.KV, func(), error) {
	if pfx == "" {
		return nil, nil, errors.New("leasing: the prefix of leasing keys is empty")
	}
	kv := &leasingKV{KV: cl.KV, client: cl, names: newNames(pfx), opts: opts}
	kv.doubt = make(chan struct{}, 1)
	kv.cache.init()
	kv.ctx, kv.cancel = context.WithCancel(cl.Ctx())
	first, err := kv.newTenure()
	if err != nil {
		kv.cancel()
		return nil, nil, err
	}
	kv.spawn(func() { kv.run(first) })
	return kv, kv.close, nil
}

// leasingKV is made of the cache (cache.go), the session that it stands on (tenure.go), reads (get.go), writes
// (write.go) and what makes others give up their keys (revoke.go).
type leasingKV struct {
	clientv3.KV // of the cluster
	client      *clientv3.Client
	names       names
	opts        []concurrency.SessionOption

	ctx    context.Context //nolint:containedctx // the KV's lifetime
	cancel context.CancelFunc

	cache cache
	doubt chan struct{} // holds one: the lease may be gone, which a renewal tells

	spawning   sync.Mutex // guards closed
	closed     bool
	background sync.WaitGroup // the goroutines of spawn
}

// spawn runs f in a goroutine that close waits for, so f must end with the KV's context. It does nothing once the KV is
// closed.
func (kv *leasingKV) spawn(f func()) {
	kv.spawning.Lock()
	defer kv.spawning.Unlock()
	if !kv.closed {
		kv.background.Go(f)
	}
}

func (kv *leasingKV) close() {
	kv.spawning.Lock()
	kv.closed = true
	kv.spawning.Unlock()
	kv.cancel()
	kv.background.Wait()
}

func (kv *leasingKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return kv.get(ctx, clientv3.OpGet(key, opts...))
}

func (kv *leasingKV) GetStream(ctx context.Context, key string, opts ...clientv3.OpOption,
) (clientv3.GetStreamChan, error) {
	op := clientv3.OpGet(key, opts...)
	if !cacheable(op) {
		return kv.KV.GetStream(ctx, key, opts...)
	}
	// A single key is one chunk.
	resp, err := kv.get(ctx, op)
	if err != nil {
		return nil, err
	}
	stream := make(chan clientv3.RangeStreamResponse, 1)
	stream <- clientv3.RangeStreamResponse{RangeResponse: (*pb.RangeResponse)(resp)}
	close(stream)
	return stream, nil
}

func (kv *leasingKV) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption,
) (*clientv3.PutResponse, error) {
	resp, err := kv.Do(ctx, clientv3.OpPut(key, val, opts...))
	return resp.Put(), err
}

func (kv *leasingKV) Delete(ctx context.Context, key string, opts ...clientv3.OpOption,
) (*clientv3.DeleteResponse, error) {
	resp, err := kv.Do(ctx, clientv3.OpDelete(key, opts...))
	return resp.Del(), err
}

func (kv *leasingKV) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	switch {
	case op.IsGet():
		resp, err := kv.get(ctx, op)
		if err != nil {
			return clientv3.OpResponse{}, err
		}
		return resp.OpResponse(), nil
	case op.IsTxn():
		cmps, thenOps, elseOps := op.Txn()
		resp, err := kv.txn(ctx, cmps, thenOps, elseOps)
		if err != nil {
			return clientv3.OpResponse{}, err
		}
		return resp.OpResponse(), nil
	case op.IsPut(), op.IsDelete():
		resp, err := kv.write(ctx, nil, []clientv3.Op{op}, nil)
		if err != nil {
			return clientv3.OpResponse{}, err
		}
		return only(resp), nil
	default:
		return kv.KV.Do(ctx, op)
	}
}

// only returns the response of a transaction's one write as that of the write alone, with the whole header.
func only(resp *clientv3.TxnResponse) clientv3.OpResponse {
	if put := resp.Responses[0].GetResponsePut(); put != nil {
		put.Header = resp.Header
		return (*clientv3.PutResponse)(put).OpResponse()
	}
	del := resp.Responses[0].GetResponseDeleteRange()
	del.Header = resp.Header
	return (*clientv3.DeleteResponse)(del).OpResponse()
}

func (kv *leasingKV) txn(ctx context.Context, cmps []clientv3.Cmp, thenOps, elseOps []clientv3.Op,
) (*clientv3.TxnResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if resp := kv.cache.evaluate(cmps, thenOps, elseOps); resp != nil {
		return resp, nil
	}
	if op := clientv3.OpTxn(cmps, thenOps, elseOps); onlyReads(op) {
		resp, err := kv.KV.Do(ctx, op)
		return resp.Txn(), err
	}
	return kv.write(ctx, cmps, thenOps, elseOps)
}

func (kv *leasingKV) Txn(ctx context.Context) clientv3.Txn {
	return forward.Txn(kv.KV.Txn(ctx), func(cmps []clientv3.Cmp, thenOps, elseOps []clientv3.Op,
	) (*clientv3.TxnResponse, error) {
		return kv.txn(ctx, cmps, thenOps, elseOps)
	})
}
