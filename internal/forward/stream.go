// Package forward is what decorators of a KV share: it hands on streams, which they change or look at, and collects
// transactions, which they carry out.
package forward

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
)

// Stream returns a stream with the chunks of in, each as change makes it. Change must not modify the chunk it is given,
// which may be shared, and may return it as it is; it is called by one goroutine. The error that ends in ends the
// result too. Taken are chunks that were received from in before, and come first.
//
// The goroutine ends with the stream, or with ctx, under which in must have been opened: so whoever stops reading frees
// everything by ending ctx.
func Stream(ctx context.Context, in clientv3.GetStreamChan, change func(*pb.RangeResponse) *pb.RangeResponse,
	taken ...clientv3.RangeStreamResponse,
) clientv3.GetStreamChan {
	f := &forwarding{ctx: ctx, in: in, out: make(chan clientv3.RangeStreamResponse, 1), change: change}
	go f.run(taken)
	return f.out
}

type forwarding struct {
	ctx    context.Context //nolint:containedctx // the stream's
	in     clientv3.GetStreamChan
	out    chan clientv3.RangeStreamResponse
	change func(*pb.RangeResponse) *pb.RangeResponse
}

func (f *forwarding) run(taken []clientv3.RangeStreamResponse) {
	defer close(f.out)
	err := f.all(taken)
	if err == nil {
		return
	}
	// A reader that has walked away is not waited for: the error takes the place of the chunk that was not read. One
	// that is still there must find it, or a stream cut short would look complete.
	select {
	case <-f.out:
	default:
	}
	f.out <- clientv3.NewRangeStreamError(err) // there is room: nobody else sends
}

// all forwards the chunks until the stream has ended.
func (f *forwarding) all(taken []clientv3.RangeStreamResponse) error {
	for _, chunk := range taken {
		if err := f.one(chunk); err != nil {
			return err
		}
	}
	for {
		select {
		case chunk, more := <-f.in:
			if !more {
				return nil
			}
			if err := f.one(chunk); err != nil {
				return err
			}
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
	}
}

func (f *forwarding) one(chunk clientv3.RangeStreamResponse) error {
	if err := chunk.Err(); err != nil {
		return err
	}
	select {
	case f.out <- clientv3.RangeStreamResponse{RangeResponse: f.change(chunk.RangeResponse)}:
		return nil
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
}
