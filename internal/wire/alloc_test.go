package wire

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// decodeAllocs returns how many allocations it takes to decode a message, with its own.
func decodeAllocs[M any](t *testing.T, c encoding.CodecV2, m *M) float64 {
	data := cut(marshal(t, any(m).(proto.Message)), frameLen)
	return testing.AllocsPerRun(10, func() {
		if err := c.Unmarshal(data, new(M)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAllocationsOfLongRange(t *testing.T) {
	if n := decodeAllocs(t, Codec(), rangeResponse(10_000, 256)); n > 250 {
		t.Errorf("decoding 10,000 keys of 256 bytes takes %v allocations, want at most 250", n)
	}
}

func TestAllocationsOfEvents(t *testing.T) {
	m := watchResponse(100, 256)
	if n := decodeAllocs(t, Codec(), m); n > 15 {
		t.Errorf("decoding 100 events of 256 bytes takes %v allocations, want at most 15", n)
	}
}

func TestNoResponseTakesMoreAllocationsThanWithStandardCodec(t *testing.T) {
	check := func(name string, wire, standard float64) {
		if wire > standard {
			t.Errorf("%s: %v allocations, with the standard codec %v", name, wire, standard)
		}
	}
	both := func(m *pb.RangeResponse) (float64, float64) {
		return decodeAllocs(t, Codec(), m), decodeAllocs(t, standard, m)
	}
	for _, count := range []int{0, 1, 2, 10} {
		for _, n := range []int{0, 8, 256, 4000, 5000, 100_000} {
			wire, standard := both(rangeResponse(count, n))
			check(fmt.Sprintf("range of %d keys of %d bytes", count, n), wire, standard)
		}
	}
	put := &pb.PutResponse{Header: header(), PrevKv: keyValue(1, 100)}
	check("put", decodeAllocs(t, Codec(), put), decodeAllocs(t, standard, put))
	txn := txnResponse()
	check("txn", decodeAllocs(t, Codec(), txn), decodeAllocs(t, standard, txn))
	watch := watchResponse(1, 100)
	check("one event", decodeAllocs(t, Codec(), watch), decodeAllocs(t, standard, watch))
	alive := &pb.LeaseKeepAliveResponse{Header: header(), ID: 1, TTL: 60}
	check("keep-alive", decodeAllocs(t, Codec(), alive), decodeAllocs(t, standard, alive))
}

func TestAllocationsOfRequest(t *testing.T) {
	for _, m := range requests() {
		// The least of a few rounds: pools lose what they hold to the garbage collector, and under the race detector at
		// random. Without, it is 1, and 3 for what is sent on streams (takeExact).
		n := math.Inf(1)
		for range 5 {
			n = min(n, testing.AllocsPerRun(100, func() {
				data, err := Codec().Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				data.Free()
			}))
		}
		if n > 3 {
			t.Errorf("encoding %T takes %v allocations, want at most 3", m, n)
		}
	}
}

// TestSmallResponseTakesLittleMemory guards the sizes of slabs and chunks: those of a small message are small.
func TestSmallResponseTakesLittleMemory(t *testing.T) {
	m := rangeResponse(1, 100)
	data := cut(marshal(t, m), frameLen)
	const runs = 1000
	got := make([]pb.RangeResponse, runs)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range got {
		if err := Codec().Unmarshal(data, &got[i]); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 512 {
		t.Errorf("decoding a key of 100 bytes takes %d bytes, want at most 512", n)
	}
}

func TestKeptPartOfResponseKeepsLittleAlive(t *testing.T) {
	const limit = 80 << 10
	const slack = 16 << 10 // for what tests and runtime allocate meanwhile
	keyValue := func(kv *mvccpb.KeyValue) any { return kv }
	for _, test := range []struct {
		name      string
		total     int   // of values, in bytes
		valueLens []int // in turn
		keep      func(kv *mvccpb.KeyValue) any
		limit     uint64
	}{
		{"key-value of 256 bytes", 100 << 20, []int{256}, keyValue, limit},
		{"key of it", 10 << 20, []int{256}, func(kv *mvccpb.KeyValue) any { return kv.Key }, limit},
		{"value of it", 10 << 20, []int{256}, func(kv *mvccpb.KeyValue) any { return kv.Value }, limit},
		{"key-value without value", 64 << 10, []int{4, 0, 0, 0, 0, 0}, keyValue, limit},
		{"key-value of 3000 bytes", 10 << 20, []int{3000}, keyValue, limit},
		{"key-value of 4 KiB", 10 << 20, []int{4096}, keyValue, 4<<10 + slack},
		{"key-value of 4 KiB among many", 10 << 20, append([]int{4096}, slices.Repeat([]int{256}, 140)...), keyValue, 4<<10 + slack},
		{"key-value of 20 KiB", 10 << 20, []int{20 << 10}, keyValue, 20<<10 + slack},
		{"small among large", 20 << 20, []int{16, 8192, 100, 3000, 1 << 20}, keyValue, limit},
		{"key-value of 1 MiB", 20 << 20, []int{1 << 20}, keyValue, 1<<20 + slack},
		{"key of it", 20 << 20, []int{1 << 20}, func(kv *mvccpb.KeyValue) any { return kv.Key }, slack},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := manyKeyValues(t, test.total, test.valueLens)
			before := heap()
			m := new(pb.RangeResponse)
			if err := Codec().Unmarshal(data, m); err != nil {
				t.Fatal(err)
			}
			count := len(m.Kvs)
			i := count / 2 / len(test.valueLens) * len(test.valueLens)
			kept := test.keep(m.Kvs[i])
			if all := heap() - before; all < uint64(test.total) {
				t.Fatalf("response of %d bytes takes %d: this test measures nothing", test.total, all)
			}
			runtime.KeepAlive(m)
			after := heap()
			runtime.KeepAlive(kept)
			runtime.KeepAlive(data)
			if after > before+test.limit {
				t.Errorf("of %d key-values, one kept keeps %d bytes alive, want at most %d", count, after-before, test.limit)
			}
		})
	}
}

// manyKeyValues is a RangeResponse with values of given lengths in turn, of total bytes.
func manyKeyValues(t *testing.T, total int, valueLens []int) mem.BufferSlice {
	turn, sum := new(pb.RangeResponse), 0
	for i, n := range valueLens {
		turn.Kvs = append(turn.Kvs, keyValue(i, n))
		sum += n
	}
	return cut(bytes.Repeat(marshal(t, turn), total/sum+1), frameLen)
}

// heap returns how many bytes are reachable.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what a pool holds goes in the second
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
