package coalesce

import (
	"context"

	"github.com/seed-d18e112a/clientv3"
)

// Writer merges puts and deletions which are waiting at the same time into one transaction. It is safe for concurrent
// use; nothing has to be closed. Make one with NewWriter.
type Writer struct{ merger *merger }

// NewWriter returns a Writer on kv.
func NewWriter(kv clientv3.KV, opts ...Option) *Writer {
	return &Writer{merger: newMerger(kv, true, opts)}
}

// Put writes a key, as KV.Put does and with the same options.
func (w *Writer) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	resp, err := w.do(ctx, key, clientv3.OpPut(key, val, opts...))
	return resp.Put(), err
}

// Delete deletes a key or a range of keys, as KV.Delete does and with the same options.
func (w *Writer) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	resp, err := w.do(ctx, key, clientv3.OpDelete(key, opts...))
	return resp.Del(), err
}

func (w *Writer) do(ctx context.Context, key string, op clientv3.Op) (clientv3.OpResponse, error) {
	if len(op.KeyBytes()) == 0 {
		return w.merger.kv.Do(ctx, op) // sure to be refused
	}
	c := w.merger.newCall()
	c.op, c.key = op, key
	c.alone = len(op.RangeBytes()) > 0
	c.bytes = len(key) + len(op.ValueBytes()) + requestOverhead
	return w.merger.do(ctx, c, false)
}
