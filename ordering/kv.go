package ordering

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/forward"
)

// OrderViolationFunc is called when resp, the response to the read op, shows an older state than a response before it:
// the store was at prevRev then. If it returns nil the read is repeated, at once at first and with short pauses later
// on, else the read fails with that error. It may be called by several goroutines at once.
//
// Where a member refuses to stream because it is behind, there is no response yet: resp is a get's without a header.
type OrderViolationFunc func(op clientv3.Op, resp clientv3.OpResponse, prevRev int64) error

// NewKV returns a KV on kv whose reads, once a response has shown a revision, never show an older one. That holds for
// Get, for transactions that only read, and for Do of them; a transaction that writes is never repeated. It holds for
// GetStream as well, whose chunks are of one revision that is known not to be older before the first one is handed
// over: a serializable stream costs one more read of a single key for that, and returns when its first chunk has come.
//
// The KV is safe for concurrent use. Each call is measured by what had been seen when it began.
func NewKV(kv clientv3.KV, orderViolationFunc OrderViolationFunc) clientv3.KV {
	return &kvOrdering{KV: kv, violation: orderViolationFunc}
}

type kvOrdering struct {
	clientv3.KV
	violation OrderViolationFunc
	seen      atomic.Int64 // the largest revision of a response
}

// see remembers the revision of a response.
func (kv *kvOrdering) see(header *pb.ResponseHeader) {
	rev := header.GetRevision()
	for seen := kv.seen.Load(); rev > seen; seen = kv.seen.Load() {
		if kv.seen.CompareAndSwap(seen, rev) {
			return
		}
	}
}

func (kv *kvOrdering) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption,
) (*clientv3.PutResponse, error) {
	resp, err := kv.KV.Put(ctx, key, val, opts...)
	if err == nil {
		kv.see(resp.Header)
	}
	return resp, err
}

func (kv *kvOrdering) Delete(ctx context.Context, key string, opts ...clientv3.OpOption,
) (*clientv3.DeleteResponse, error) {
	resp, err := kv.KV.Delete(ctx, key, opts...)
	if err == nil {
		kv.see(resp.Header)
	}
	return resp, err
}

func (kv *kvOrdering) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	resp, err := kv.Do(ctx, clientv3.OpGet(key, opts...))
	return resp.Get(), err
}

func (kv *kvOrdering) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	before := kv.seen.Load()
	for repeats := 0; ; repeats++ {
		if err := pause(ctx, repeats); err != nil {
			return clientv3.OpResponse{}, err
		}
		resp, err := kv.KV.Do(ctx, op)
		if err != nil {
			return clientv3.OpResponse{}, err
		}
		header := headerOf(resp)
		if header.GetRevision() >= before || !onlyReads(op) {
			kv.see(header)
			return resp, nil
		}
		if err := kv.violation(op, resp, before); err != nil {
			return clientv3.OpResponse{}, err
		}
	}
}

// How repeats of a read follow each other: at once, to find a member that is not behind, and later with pauses, to let
// one catch up.
const (
	promptRepeats = 20
	minPause      = time.Millisecond
	maxPause      = 100 * time.Millisecond
)

// pause waits before a repeat of a read.
func pause(ctx context.Context, repeats int) error {
	if repeats <= promptRepeats {
		return nil
	}
	timer := time.NewTimer(min(minPause<<min(repeats-promptRepeats-1, 10), maxPause))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// onlyReads reports whether an operation can be repeated, and can be answered by a member that is behind.
func onlyReads(op clientv3.Op) bool {
	if !op.IsTxn() {
		return op.IsGet()
	}
	_, thenOps, elseOps := op.Txn()
	writes := func(op clientv3.Op) bool { return !onlyReads(op) }
	return !slices.ContainsFunc(thenOps, writes) && !slices.ContainsFunc(elseOps, writes)
}

func headerOf(resp clientv3.OpResponse) *pb.ResponseHeader {
	switch {
	case resp.Get() != nil:
		return resp.Get().Header
	case resp.Put() != nil:
		return resp.Put().Header
	case resp.Del() != nil:
		return resp.Del().Header
	case resp.Txn() != nil:
		return resp.Txn().Header
	default:
		return nil
	}
}

func (kv *kvOrdering) GetStream(ctx context.Context, key string, opts ...clientv3.OpOption,
) (clientv3.GetStreamChan, error) {
	op := clientv3.OpGet(key, opts...)
	if op.IsSerializable() && op.Rev() == 0 && kv.seen.Load() > 0 {
		return kv.pinnedStream(ctx, op, opts)
	}
	// A linearizable stream is never behind, and one at a revision shows that revision wherever it is read.
	stream, err := kv.KV.GetStream(ctx, key, opts...)
	if err != nil {
		return nil, err
	}
	return forward.Stream(ctx, stream, kv.look), nil
}

// look remembers the revision of a stream's last chunk, the one that has a header.
func (kv *kvOrdering) look(chunk *pb.RangeResponse) *pb.RangeResponse {
	kv.see(chunk.GetHeader())
	return chunk
}

// pinnedStream streams what a serializable read shows at a revision that is not behind. Without one, the revision would
// be known from the last chunk only, when the others are with the reader.
func (kv *kvOrdering) pinnedStream(ctx context.Context, op clientv3.Op, opts []clientv3.OpOption,
) (clientv3.GetStreamChan, error) {
	key := string(op.KeyBytes())
	for repeats := 0; ; repeats++ {
		if err := pause(ctx, repeats); err != nil {
			return nil, err
		}
		probe, err := kv.Get(ctx, key, clientv3.WithSerializable(), clientv3.WithKeysOnly())
		if err != nil {
			return nil, err
		}
		rev := probe.Header.GetRevision()
		stream, err := kv.KV.GetStream(ctx, key, append(slices.Clip(opts), clientv3.WithRev(rev))...)
		if err != nil {
			return nil, err
		}
		select {
		case chunk, more := <-stream:
			switch err := chunk.Err(); {
			case !more:
				return stream, nil
			case errors.Is(err, rpctypes.ErrFutureRev):
				// It came to another member than the probe, one that is behind. Whether there is no better one left
				// shows at the next probe.
			case errors.Is(err, rpctypes.ErrCompacted):
				// The store was compacted since the probe, which is behind by now.
			default:
				return forward.Stream(ctx, stream, kv.look, chunk), nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (kv *kvOrdering) Txn(ctx context.Context) clientv3.Txn {
	return forward.Txn(kv.KV.Txn(ctx), func(cmps []clientv3.Cmp, thenOps, elseOps []clientv3.Op,
	) (*clientv3.TxnResponse, error) {
		resp, err := kv.Do(ctx, clientv3.OpTxn(cmps, thenOps, elseOps))
		return resp.Txn(), err
	})
}
