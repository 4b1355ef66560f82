package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/integration/internal/servers"
)

// fill writes n keys below the prefix, with values of the size given.
func (e *env) fill(t *testing.T, n, size int) {
	t.Helper()
	const perTxn = 100
	value := strings.Repeat("v", size)
	for at := 0; at < n; at += perTxn {
		var ops []clientv3.Op
		for i := at; i < min(at+perTxn, n); i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s%05d", e.prefix, i), value))
		}
		if _, err := e.Txn(e.ctx).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// sameAsGet reads the range both ways and compares, all but who answered.
func (e *env) sameAsGet(t *testing.T, key string, opts ...clientv3.OpOption) {
	t.Helper()
	want := e.get(t, key, opts...)
	stream, err := e.GetStream(e.ctx, key, opts...)
	if err != nil {
		t.Error(err)
		return
	}
	got, err := clientv3.GetStreamToGetResponse(stream)
	if err != nil {
		t.Error(err)
		return
	}
	checkHeader(t, got.Header)
	got.Header.MemberId = want.Header.MemberId
	if !proto.Equal((*pb.RangeResponse)(got), (*pb.RangeResponse)(want)) {
		t.Errorf("stream: %d keys, count %d, more %t, %v; get: %d keys, count %d, more %t, %v",
			len(got.Kvs), got.Count, got.More, got.Header, len(want.Kvs), want.Count, want.More, want.Header)
	}
}

func TestGetStreamIsGetInChunks(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.fill(t, 700, 100)
		rev := e.get(t, "k").Header.Revision
		e.put(t, e.prefix+"00007", "changed")
		catchUp(t, e) // for the serializable reads
		for name, opts := range map[string][]clientv3.OpOption{
			"prefix":               {clientv3.WithPrefix()},
			"range":                {clientv3.WithRange(e.prefix + "00300")},
			"limit":                {clientv3.WithPrefix(), clientv3.WithLimit(543)},
			"limit below a chunk":  {clientv3.WithPrefix(), clientv3.WithLimit(3)},
			"limit of all":         {clientv3.WithPrefix(), clientv3.WithLimit(700)},
			"negative limit":       {clientv3.WithPrefix(), clientv3.WithLimit(-1)},
			"revision":             {clientv3.WithPrefix(), clientv3.WithRev(rev)},
			"keys only":            {clientv3.WithPrefix(), clientv3.WithKeysOnly()},
			"count only":           {clientv3.WithPrefix(), clientv3.WithCountOnly()},
			"serializable":         {clientv3.WithPrefix(), clientv3.WithSerializable(), clientv3.WithRev(rev)},
			"by key":               {clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend)},
			"end below key":        {clientv3.WithRange("a")},
			"nothing":              nil,
			"by key descending":    {clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)},
			"by revision, limited": {clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend), clientv3.WithLimit(7)},
			"bounded":              {clientv3.WithPrefix(), clientv3.WithMinModRev(rev + 1)},
		} {
			t.Run(name, func(t *testing.T) { e.sameAsGet(t, e.prefix, opts...) })
		}
		t.Run("one key", func(t *testing.T) { e.sameAsGet(t, e.prefix+"00007") })
	})
}

func TestGetStreamChunks(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.fill(t, 500, 1000)
		stream, err := e.GetStream(e.ctx, e.prefix, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		var chunks, keys int
		ended := false
		for chunk := range stream {
			if err := chunk.Err(); err != nil {
				t.Fatal(err)
			}
			if ended {
				t.Error("a chunk follows the one with the header")
			}
			chunks++
			keys += len(chunk.Kvs)
			ended = chunk.Header != nil
		}
		if chunks < 3 || keys != 500 || !ended {
			t.Errorf("%d keys in %d chunks, last header seen: %t", keys, chunks, ended)
		}
	})
}

// All chunks show the store as it was when the stream began.
func TestGetStreamIsOfOneRevision(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.fill(t, 500, 10)
		stream, err := e.GetStream(e.ctx, e.prefix, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		first := <-stream
		if first.Err() != nil {
			t.Fatal(first.Err())
		}
		if _, err := e.Delete(e.ctx, e.prefix, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		rest, err := clientv3.GetStreamToGetResponse(stream)
		if err != nil || len(first.Kvs)+len(rest.Kvs) != 500 {
			t.Errorf("%d and %d keys, %v; want 500 in all", len(first.Kvs), len(rest.Kvs), err)
		}
	})
}

func TestGetStreamErrors(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.put(t, e.prefix, "1")
		rev := e.put(t, e.prefix, "2")
		if _, err := e.Compact(e.ctx, rev); err != nil {
			t.Fatal(err)
		}
		cancelled, cancel := context.WithCancel(e.ctx)
		cancel()
		expired, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
		defer cancel()
		for _, tt := range []struct {
			name string
			ctx  context.Context
			key  string
			opts []clientv3.OpOption
			want error
		}{
			{"no key", e.ctx, "", nil, rpctypes.ErrEmptyKey},
			{"compacted", e.ctx, e.prefix, []clientv3.OpOption{clientv3.WithRev(1)}, rpctypes.ErrCompacted},
			{"future", e.ctx, e.prefix, []clientv3.OpOption{clientv3.WithRev(1 << 40)}, rpctypes.ErrFutureRev},
			{"sort", e.ctx, e.prefix, []clientv3.OpOption{clientv3.WithSort(9, 0)}, rpctypes.ErrInvalidSortOption},
			{"cancelled", cancelled, e.prefix, nil, context.Canceled},
			{"expired", expired, e.prefix, nil, context.DeadlineExceeded},
		} {
			if err := streamError(e.GetStream(tt.ctx, tt.key, tt.opts...)); err != tt.want {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		}
	})
}

// streamError reads a stream to its end, which must be an error's, whether it came at once or as the last chunk.
func streamError(stream clientv3.GetStreamChan, err error) error {
	if err != nil {
		return err
	}
	for chunk := range stream {
		if chunk.Err() != nil {
			if next, more := <-stream; more {
				return fmt.Errorf("after %w came %v", chunk.Err(), next)
			}
			return chunk.Err()
		}
	}
	return nil
}

// A reader that walks away ends its context, and nothing of the stream is left.
func TestGetStreamReaderWalksAway(t *testing.T) {
	e := onOne(t)
	e.fill(t, 2000, 1000)
	for range 20 {
		ctx, cancel := context.WithCancel(e.ctx)
		stream, err := e.GetStream(ctx, e.prefix, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		if first := <-stream; first.Err() != nil {
			t.Fatal(first.Err())
		}
		cancel()
		// The end must be told from completion, for a reader that is still there.
		if err := streamError(stream, nil); err != context.Canceled {
			t.Fatalf("a cancelled stream ends with %v", err)
		}
	}
	// One that is not read at all does not hold up Close.
	if _, err := e.GetStream(e.ctx, e.prefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- e.Close() }()
	select {
	case <-closed:
	case <-e.ctx.Done():
		t.Fatal("Close waits for the reader of a stream")
	}
	if err := streamError(e.GetStream(e.ctx, e.prefix)); !clientv3.IsConnCanceled(err) {
		t.Errorf("a stream of a closed client: %v", err)
	}
}

func TestGetStreamOverMessageLimit(t *testing.T) {
	e := onOne(t)
	e.put(t, e.prefix, strings.Repeat("v", 100_000))
	cfg := e.config(t)
	cfg.MaxCallRecvMsgSize = 50_000
	err := streamError(open(t, cfg).GetStream(e.ctx, e.prefix))
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "received message") {
		t.Errorf("a chunk over the limit: %v", err)
	}
	var etcdErr rpctypes.EtcdError
	if errors.As(err, &etcdErr) {
		t.Errorf("%v is not etcd's", err)
	}
}

// What a server cannot stream comes in pages.
func TestGetStreamFollowsTheServer(t *testing.T) {
	e := onOne(t)
	e.fill(t, 700, 100)
	count := newAttempts()
	cfg := e.config(t)
	count.watch(&cfg)
	cli := open(t, cfg)
	const reads = 3
	for range reads {
		stream, err := cli.GetStream(e.ctx, e.prefix, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		resp, err := clientv3.GetStreamToGetResponse(stream)
		if err != nil || len(resp.Kvs) != 700 || resp.Count != 700 {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	streams, pages := count.of(pb.KV_RangeStream_FullMethodName), count.of(pb.KV_Range_FullMethodName)
	if servers.Has(t, servers.RangeStream) {
		if streams != reads || pages != 0 {
			t.Errorf("%d streams and %d pages for %d reads", streams, pages, reads)
		}
	} else if streams > reads || pages < reads {
		t.Errorf("%d streams and %d pages for %d reads of a server without streams", streams, pages, reads)
	}
}
