// Package stub stands in for the services of a client in tests of decorators: what it is asked it keeps, and answers as
// the test says.
package stub

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
)

// KV is a clientv3.KV whose every call is an operation that Answer answers: transactions and streams too, a stream's
// chunks being of one key each. A nil Answer gives empty responses.
type KV struct {
	Answer func(clientv3.Op) (clientv3.OpResponse, error)

	mu        sync.Mutex
	ops       []clientv3.Op
	compacted []int64
}

// Ops returns the operations so far and forgets them.
func (kv *KV) Ops() []clientv3.Op {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	ops := kv.ops
	kv.ops = nil
	return ops
}

// Compacted returns the revisions of the compactions so far.
func (kv *KV) Compacted() []int64 {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	return kv.compacted
}

// Do answers an operation.
func (kv *KV) Do(_ context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	kv.mu.Lock()
	kv.ops = append(kv.ops, op)
	kv.mu.Unlock()
	switch {
	case kv.Answer != nil:
		return kv.Answer(op)
	case op.IsGet():
		return (&clientv3.GetResponse{}).OpResponse(), nil
	case op.IsPut():
		return (&clientv3.PutResponse{}).OpResponse(), nil
	case op.IsDelete():
		return (&clientv3.DeleteResponse{}).OpResponse(), nil
	default:
		return (&clientv3.TxnResponse{}).OpResponse(), nil
	}
}

// Put answers a put.
func (kv *KV) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	resp, err := kv.Do(ctx, clientv3.OpPut(key, val, opts...))
	return resp.Put(), err
}

// Get answers a get.
func (kv *KV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	resp, err := kv.Do(ctx, clientv3.OpGet(key, opts...))
	return resp.Get(), err
}

// GetStream answers a get by a stream. An error of Answer is that of the first chunk.
func (kv *KV) GetStream(ctx context.Context, key string, opts ...clientv3.OpOption) (clientv3.GetStreamChan, error) {
	resp, err := kv.Get(ctx, key, opts...)
	if err != nil {
		return Stream(clientv3.NewRangeStreamError(err)), nil
	}
	chunks := make([]clientv3.RangeStreamResponse, max(1, len(resp.Kvs)))
	for i := range chunks {
		chunks[i].RangeResponse = &pb.RangeResponse{}
		if i < len(resp.Kvs) {
			chunks[i].Kvs = resp.Kvs[i : i+1]
		}
	}
	last := chunks[len(chunks)-1]
	last.Header, last.More, last.Count = resp.Header, resp.More, resp.Count
	return Stream(chunks...), nil
}

// Stream returns a stream of the chunks.
func Stream(chunks ...clientv3.RangeStreamResponse) clientv3.GetStreamChan {
	ch := make(chan clientv3.RangeStreamResponse, len(chunks))
	for _, chunk := range chunks {
		ch <- chunk
	}
	close(ch)
	return ch
}

// Delete answers a deletion.
func (kv *KV) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	resp, err := kv.Do(ctx, clientv3.OpDelete(key, opts...))
	return resp.Del(), err
}

// Compact keeps the revision.
func (kv *KV) Compact(_ context.Context, rev int64, _ ...clientv3.CompactOption) (*clientv3.CompactResponse, error) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	kv.compacted = append(kv.compacted, rev)
	return &clientv3.CompactResponse{Header: &pb.ResponseHeader{Revision: rev}}, nil
}

// Txn begins a transaction, which Do answers.
func (kv *KV) Txn(ctx context.Context) clientv3.Txn { return &txn{kv: kv, ctx: ctx} }

type txn struct {
	kv               *KV
	ctx              context.Context //nolint:containedctx // a transaction's, by the interface
	cmps             []clientv3.Cmp
	thenOps, elseOps []clientv3.Op
}

func (t *txn) If(cmps ...clientv3.Cmp) clientv3.Txn {
	t.cmps = cmps
	return t
}

func (t *txn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.thenOps = ops
	return t
}

func (t *txn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.elseOps = ops
	return t
}

func (t *txn) Commit() (*clientv3.TxnResponse, error) {
	resp, err := t.kv.Do(t.ctx, clientv3.OpTxn(t.cmps, t.thenOps, t.elseOps))
	return resp.Txn(), err
}

// Watcher is a clientv3.Watcher whose watches deliver what the test sends them.
type Watcher struct {
	mu       sync.Mutex
	watches  []*Watch
	requests int
	closed   bool
}

// Watch is a watch of a Watcher. Its channel holds one response, as a real watch's does.
type Watch struct {
	Op clientv3.Op
	Ch chan clientv3.WatchResponse

	stop func() bool
}

// Watch begins a watch, which ends with its context or with Close.
func (w *Watcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	watch := &Watch{Op: clientv3.OpWatch(key, opts...), Ch: make(chan clientv3.WatchResponse, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watches = append(w.watches, watch)
	watch.stop = context.AfterFunc(ctx, func() { close(watch.Ch) })
	if w.closed && watch.stop() {
		close(watch.Ch)
	}
	return watch.Ch
}

// Watches returns the watches so far.
func (w *Watcher) Watches() []*Watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*Watch(nil), w.watches...)
}

// RequestProgress counts.
func (w *Watcher) RequestProgress(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests++
	return nil
}

// Requests returns how often progress was asked for.
func (w *Watcher) Requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests
}

// Close ends the watches with a last response, in place of one that was not read.
func (w *Watcher) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, watch := range w.watches {
		if !watch.stop() {
			continue // ended by its context, or before
		}
		select {
		case <-watch.Ch:
		default:
		}
		watch.Ch <- clientv3.WatchResponse{Canceled: true, CancelReason: "closed"}
		close(watch.Ch)
	}
	return nil
}
