package coalesce

import (
	"context"

	"github.com/seed-d18e112a/clientv3"
)

// NewKV returns a KV that merges gets which are waiting at the same time into one request, and does all else as kv does
// it. See the package's documentation for what is merged and when. Nothing has to be closed.
//
// It belongs next to the client, below other decorators:
//
//	cli.KV = coalesce.NewKV(cli.KV)
//	cli.KV = namespace.NewKV(cli.KV, "my-prefix/")
func NewKV(kv clientv3.KV, opts ...Option) clientv3.KV {
	return &reader{KV: kv, merger: newMerger(kv, false, opts)}
}

type reader struct {
	clientv3.KV
	merger *merger
}

func (r *reader) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	resp, err := r.Do(ctx, clientv3.OpGet(key, opts...))
	return resp.Get(), err
}

func (r *reader) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	if !mergeable(op) {
		return r.KV.Do(ctx, op)
	}
	c := r.merger.newCall()
	c.op = op
	c.bytes = len(op.KeyBytes()) + len(op.RangeBytes()) + requestOverhead
	switch {
	case op.IsCountOnly():
	case op.RangeBytes() == nil:
		c.keys = 1
	default:
		c.keys = int(op.Limit())
	}
	return r.merger.do(ctx, c, op.IsSerializable())
}

// requestOverhead is about what the encoding of an operation takes besides key and value.
const requestOverhead = 32

// mergeable reports whether an operation is one that can share a request: a get of the current revision whose answer is
// small, and for which the server has not to go through many keys' values. One that is sure to be refused is not among
// them: it would have the others refused, too.
func mergeable(op clientv3.Op) bool {
	if !op.IsGet() || op.Rev() != 0 || len(op.KeyBytes()) == 0 || !op.IsSortOptionValid() {
		return false
	}
	if len(op.RangeBytes()) == 0 {
		return true
	}
	// With a filter or in another order the server reads the whole range, whatever the limit.
	filtered := op.MinModRev() != 0 || op.MaxModRev() != 0 || op.MinCreateRev() != 0 || op.MaxCreateRev() != 0
	return op.Limit() > 0 && op.Limit() <= MaxLimit && !filtered && !op.IsSortSet()
}

// MaxLimit is the largest limit of a range that is merged.
const MaxLimit = 100
