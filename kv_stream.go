package clientv3

import (
	"context"
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// GetStreamChan is the channel of a GetStream.
type GetStreamChan <-chan RangeStreamResponse

// RangeStreamResponse is a chunk of a GetStream: a part of the keys, or the error that ends the stream early.
type RangeStreamResponse struct {
	*pb.RangeResponse
	err error
}

// Err returns the error that ended the stream, or nil.
func (r *RangeStreamResponse) Err() error { return r.err }

// NewRangeStreamError returns the chunk that ends a stream early with the error: for decorators and for stand-ins of a
// KV, which make streams of their own.
func NewRangeStreamError(err error) RangeStreamResponse { return RangeStreamResponse{err: err} }

// GetStreamToGetResponse reads a stream to its end and returns what a Get would have. A stream that ended early gives
// its error and nothing else.
func GetStreamToGetResponse(stream GetStreamChan) (*GetResponse, error) {
	whole := &pb.RangeResponse{}
	for chunk := range stream {
		if err := chunk.Err(); err != nil {
			return nil, err
		}
		appendChunk(whole, chunk.RangeResponse)
	}
	return (*GetResponse)(whole), nil
}

// appendChunk adds a chunk to the response put together so far; header, more and count are those of the last one.
func appendChunk(whole, chunk *pb.RangeResponse) {
	whole.Kvs = append(whole.Kvs, chunk.GetKvs()...)
	if chunk.GetHeader() != nil {
		whole.Header = chunk.Header
	}
	whole.More = whole.More || chunk.GetMore()
	whole.Count = max(whole.Count, chunk.GetCount())
}

func (kv *kv) GetStream(ctx context.Context, key string, opts ...OpOption) (GetStreamChan, error) {
	op := OpGet(key, opts...)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	out := &chunks{ctx: ctx, ch: make(chan RangeStreamResponse, 1)}
	read := func() {
		defer cancel(nil)
		out.close(kv.stream(ctx, op, out.send))
	}
	if kv.client == nil {
		go read() // ends with ctx
		return out.ch, nil
	}
	stop := context.AfterFunc(kv.client.ctx, func() { cancel(kv.client.ctx.Err()) })
	if !kv.client.spawn(func() { defer stop(); read() }) {
		cancel(nil)
		stop()
		return nil, grpc.ErrClientConnClosing //nolint:staticcheck // what gRPC itself returns then
	}
	return out.ch, nil
}

// chunks is the sending side of a GetStreamChan. One goroutine uses it.
type chunks struct {
	ctx context.Context //nolint:containedctx // the stream's, which it has made
	ch  chan RangeStreamResponse
}

// send hands over a chunk, and waits until there is room for it.
func (c *chunks) send(chunk *pb.RangeResponse) error {
	select {
	case c.ch <- RangeStreamResponse{RangeResponse: chunk}:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// close ends the stream, with err if it is not nil. A reader that is still there must find the error, or a stream cut
// short would look complete. One that has walked away is not waited for, once it has ended the context: then the error
// takes the place of the chunk that was not read.
func (c *chunks) close(err error) {
	if err != nil {
		end := RangeStreamResponse{err: err}
		select {
		case c.ch <- end:
		case <-c.ctx.Done():
			select {
			case <-c.ch:
			default:
			}
			c.ch <- end // there is room: nobody else sends
		}
	}
	close(c.ch)
}

// stream reads the range of op and sends it chunk by chunk: as the server streams it, or by pages where it does not.
func (kv *kv) stream(ctx context.Context, op Op, send func(*pb.RangeResponse) error) error {
	started := false
	err := kv.nativeStream(ctx, op, func(chunk *pb.RangeResponse) error {
		started = true
		return send(chunk)
	})
	if status.Code(err) == codes.Unimplemented && !started && kv.client != nil {
		// The server is too old, or does not stream such a range. On a stub of the caller's that is for the caller to know.
		err = kv.pages(ctx, op, send)
	}
	awaitDeadline(ctx, err)
	return ContextError(ctx, err)
}

// nativeStream reads by RangeStream. Until the first chunk has come the call is retried as any read. After it a
// failure is final: the chunks say nothing of the revision they are of, so that the rest cannot be asked for.
func (kv *kv) nativeStream(ctx context.Context, op Op, send func(*pb.RangeResponse) error) error {
	var (
		stream pb.KV_RangeStreamClient
		first  *pb.RangeStreamResponse
	)
	open := func(ctx context.Context) (err error) {
		if stream, err = kv.remote.RangeStream(ctx, op.toRangeRequest(), kv.callOpts...); err != nil {
			return err
		}
		first, err = stream.Recv()
		return err
	}
	err := kv.client.retryStream(ctx, pb.KV_RangeStream_FullMethodName, !op.serializable, open)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // there is always a chunk, the last one
	}
	if err != nil {
		return err
	}
	return forward(stream, first, send)
}

// forward sends on the chunks of a stream from the first one to the last.
func forward(stream pb.KV_RangeStreamClient, chunk *pb.RangeStreamResponse, send func(*pb.RangeResponse) error) error {
	for {
		resp := chunk.GetRangeResponse()
		if resp == nil {
			resp = &pb.RangeResponse{}
		}
		complete := resp.Header != nil
		if err := send(resp); err != nil {
			return err
		}
		var err error
		if chunk, err = stream.Recv(); err != nil {
			if !errors.Is(err, io.EOF) {
				return err
			}
			if !complete {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
	}
}

// How large pages are. The number of keys is adapted so that a page has about pageBytes.
const (
	firstPageKeys = 100
	maxPageKeys   = 1 << 16
	pageBytes     = 1 << 20
)

// pages reads by plain ranges of a limited number of keys, all at the revision of the first.
func (kv *kv) pages(ctx context.Context, op Op, send func(*pb.RangeResponse) error) error {
	if !op.canPage() {
		resp, err := kv.get(ctx, op)
		if err != nil {
			return err
		}
		return send((*pb.RangeResponse)(resp))
	}
	var (
		total    = op.limit
		size     = int64(firstPageKeys)
		sent     int64
		header   *pb.ResponseHeader
		count    int64
		firstRev = op.rev
	)
	for {
		op.limit = size
		if total > 0 {
			op.limit = min(size, total-sent)
		}
		page, err := kv.get(ctx, op)
		if errors.Is(err, rpctypes.ErrFutureRev) && header != nil && op.serializable {
			// The first page came from a member that is ahead of this one. A linearizable read makes it catch up.
			op.serializable = false
			continue
		}
		if err != nil {
			return err
		}
		if header == nil {
			header, count = page.Header, page.Count
			if firstRev <= 0 {
				op.rev = header.GetRevision()
			}
		}
		sent += int64(len(page.Kvs))
		last := !page.More || len(page.Kvs) == 0 || (total > 0 && sent >= total)
		chunk := &pb.RangeResponse{Kvs: page.Kvs}
		if last {
			chunk.Header, chunk.More, chunk.Count = header, page.More, count
		}
		if err := send(chunk); err != nil || last {
			return err
		}
		op.key = append(append([]byte(nil), page.Kvs[len(page.Kvs)-1].Key...), 0)
		size = nextPageKeys(size, page.Kvs)
	}
}

// canPage reports whether the operation's result can be read in parts that follow one another: keys in their natural
// order, and none left out by the server, which counts those too when it applies the limit.
func (op Op) canPage() bool {
	natural := op.sort == nil || (op.sort.Target == SortByKey && op.sort.Order != SortDescend)
	filtered := op.minModRev != 0 || op.maxModRev != 0 || op.minCreateRev != 0 || op.maxCreateRev != 0
	return natural && !filtered && !op.countOnly && len(op.end) > 0 && op.limit >= 0
}

// nextPageKeys adapts the number of keys of a page to the size of the last one.
func nextPageKeys(size int64, kvs []*mvccpb.KeyValue) int64 {
	bytes := 0
	for _, kv := range kvs {
		bytes += len(kv.Key) + len(kv.Value)
	}
	switch {
	case bytes < pageBytes/2:
		return min(size*2, maxPageKeys)
	case bytes > pageBytes*2:
		return max(size/2, 1)
	}
	return size
}
