//go:build !race

// With the race detector sync.Pool drops things at random, so allocations say nothing.

package coalesce

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
)

// prepared is a KV for one request at a time that answers with what it has, and allocates next to nothing.
type prepared struct {
	clientv3.KV
	get       *clientv3.GetResponse
	put       *clientv3.PutResponse
	gets      []*pb.ResponseOp
	puts      []*pb.ResponseOp
	header    *pb.ResponseHeader
	ops, txns atomic.Int64
}

func newPrepared() *prepared {
	p := &prepared{get: &clientv3.GetResponse{}, put: &clientv3.PutResponse{}, header: &pb.ResponseHeader{Revision: 1}}
	for range DefaultMaxOps {
		get, put := &pb.RangeResponse{Header: &pb.ResponseHeader{}}, &pb.PutResponse{Header: &pb.ResponseHeader{}}
		p.gets = append(p.gets, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: get}})
		p.puts = append(p.puts, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: put}})
	}
	return p
}

func (p *prepared) Do(_ context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	runtime.Gosched() // others call meanwhile
	if op.IsPut() {
		return p.put.OpResponse(), nil
	}
	return p.get.OpResponse(), nil
}

func (p *prepared) Txn(context.Context) clientv3.Txn { return &preparedTxn{p: p} }

type preparedTxn struct {
	clientv3.Txn
	p   *prepared
	ops []clientv3.Op
}

func (t *preparedTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.ops = ops
	return t
}

func (t *preparedTxn) Commit() (*clientv3.TxnResponse, error) {
	t.p.ops.Add(int64(len(t.ops)))
	t.p.txns.Add(1)
	runtime.Gosched()
	answers := t.p.gets
	if t.ops[0].IsPut() {
		answers = t.p.puts
	}
	return &clientv3.TxnResponse{Header: t.p.header, Responses: answers[:len(t.ops)]}, nil
}

func TestALoneCallAllocatesNothingMore(t *testing.T) {
	p, ctx := newPrepared(), context.Background()
	kv, w := NewKV(p), NewWriter(p)
	for name, calls := range map[string][2]func() error{
		"Get": {
			func() error { _, err := kv.Get(ctx, "key"); return err },
			func() error { _, err := p.Do(ctx, clientv3.OpGet("key")); return err },
		},
		"Put": {
			func() error { _, err := w.Put(ctx, "key", "value"); return err },
			func() error { _, err := p.Do(ctx, clientv3.OpPut("key", "value")); return err },
		},
	} {
		got, plain := allocations(t, calls[0]), allocations(t, calls[1])
		if got > plain {
			t.Errorf("%s: %.0f allocations, %.0f without the decorator", name, got, plain)
		}
	}
}

// allocations returns the median of several rounds: the garbage collector empties pools now and then.
func allocations(t *testing.T, call func() error) float64 {
	t.Helper()
	rounds := make([]float64, 9)
	for i := range rounds {
		rounds[i] = testing.AllocsPerRun(100, func() {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		})
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2]
}

func TestAMergedCallAllocatesLittle(t *testing.T) {
	const callers, each = 256, 100
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, prepare := range map[string]func(p *prepared) (call func(caller int) error, bare float64){
		"Get": func(p *prepared) (func(int) error, float64) {
			kv := NewKV(p, WithInFlight(1))
			return func(int) error { _, err := kv.Get(ctx, "key"); return err },
				allocations(t, func() error { _ = clientv3.OpGet("key"); return nil })
		},
		"Put": func(p *prepared) (func(int) error, float64) {
			w := NewWriter(p, WithInFlight(1))
			keys := make([]string, callers)
			for i := range keys {
				keys[i] = "key" + string(rune(i))
			}
			return func(caller int) error { _, err := w.Put(ctx, keys[caller], "value"); return err },
				allocations(t, func() error { _ = clientv3.OpPut("key", "value"); return nil })
		},
	} {
		p := newPrepared()
		call, bare := prepare(p)
		run := func() {
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					for range each {
						if err := call(i); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
		}
		run() // fills pools
		var before, after runtime.MemStats
		p.ops.Store(0)
		p.txns.Store(0)
		runtime.ReadMemStats(&before)
		run()
		runtime.ReadMemStats(&after)
		perCall := float64(after.Mallocs-before.Mallocs) / (callers * each)
		perTxn := float64(p.ops.Load()) / float64(p.txns.Load())
		t.Logf("%s: %.2f allocations per call, of its operation alone %.0f; %.0f calls in a request", name, perCall, bare, perTxn)
		if !(perTxn >= 8) {
			t.Errorf("%s: %.1f calls in a request: too few to tell", name, perTxn)
		}
		if perCall > bare+1 {
			t.Errorf("%s: %.2f allocations per call, of its operation alone %.0f", name, perCall, bare)
		}
	}
}
