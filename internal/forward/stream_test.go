package forward

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
)

func chunk(count int64) clientv3.RangeStreamResponse {
	return clientv3.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Count: count}}
}

func stream(chunks ...clientv3.RangeStreamResponse) clientv3.GetStreamChan {
	ch := make(chan clientv3.RangeStreamResponse, len(chunks))
	for _, c := range chunks {
		ch <- c
	}
	close(ch)
	return ch
}

func addTen(r *pb.RangeResponse) *pb.RangeResponse { return &pb.RangeResponse{Count: r.Count + 10} }

func TestChunksAreChangedInOrder(t *testing.T) {
	out := Stream(t.Context(), stream(chunk(2), chunk(3)), addTen, chunk(1))
	want := int64(11)
	for c := range out {
		if c.Err() != nil || c.Count != want {
			t.Fatalf("chunk %d, %v; want %d", c.Count, c.Err(), want)
		}
		want++
	}
	if want != 14 {
		t.Errorf("the stream ended before chunk %d", want)
	}
}

func TestErrorEndsTheStream(t *testing.T) {
	cause := errors.New("cut")
	_, err := clientv3.GetStreamToGetResponse(
		Stream(t.Context(), stream(chunk(1), clientv3.NewRangeStreamError(cause)), addTen))
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
}

// The reader takes nothing until the context has ended. Whatever the stream held then, it must not look complete.
func TestStreamOfAnEndedContextIsNotComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, in := range map[string]clientv3.GetStreamChan{
			"all chunks there": stream(chunk(1), chunk(2), chunk(3)),
			"silent":           make(chan clientv3.RangeStreamResponse),
		} {
			ctx, cancel := context.WithCancel(t.Context())
			out := Stream(ctx, in, addTen)
			synctest.Wait() // blocked: one chunk in out, one in hand
			cancel()
			synctest.Wait()
			if _, err := clientv3.GetStreamToGetResponse(out); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: error %v, want %v", name, err, context.Canceled)
			}
		}
	})
}
