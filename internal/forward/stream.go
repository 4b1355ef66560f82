// Package forward hands on the streams of a KV for decorators that change or look at what passes through them.
package forward

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
)

// Stream returns a stream with the chunks of in, each as change makes it. Change must not modify the chunk it is given,
// which may be shared, and may return it as it is; it is called by one goroutine. The error that ends in ends the
// result too. The goroutine ends with the stream, or with ctx, under which in must have been opened: so whoever stops
// reading frees everything by ending ctx.
func Stream(ctx context.Context, in clientv3.GetStreamChan, change func(*pb.RangeResponse) *pb.RangeResponse,
) clientv3.GetStreamChan {
	out := make(chan clientv3.RangeStreamResponse, 1)
	go func() {
		defer close(out)
		if err := copyChunks(ctx, in, out, change); err != nil {
			// A reader that has walked away is not waited for: the error takes the place of the chunk that was not
			// read. One that is still there must find it, or a stream cut short would look complete.
			select {
			case <-out:
			default:
			}
			out <- clientv3.NewRangeStreamError(err) // there is room: nobody else sends
		}
	}()
	return out
}

func copyChunks(ctx context.Context, in clientv3.GetStreamChan, out chan<- clientv3.RangeStreamResponse,
	change func(*pb.RangeResponse) *pb.RangeResponse,
) error {
	for {
		var (
			chunk clientv3.RangeStreamResponse
			more  bool
		)
		select {
		case chunk, more = <-in:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !more {
			return nil
		}
		if err := chunk.Err(); err != nil {
			return err
		}
		select {
		case out <- clientv3.RangeStreamResponse{RangeResponse: change(chunk.RangeResponse)}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
