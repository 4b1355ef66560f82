package wire

import (
	"runtime"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"
)

// eachCodec runs a benchmark with this codec and with the standard one, in a heap as large as that of a small program:
// in an empty one the garbage collector would run for each long response, and be what is measured.
func eachCodec(b *testing.B, bench func(b *testing.B, c encoding.CodecV2)) {
	heap := make([]byte, 64<<20)
	defer runtime.KeepAlive(heap)
	b.Run("wire", func(b *testing.B) { bench(b, Codec()) })
	b.Run("standard", func(b *testing.B) { bench(b, standard) })
}

func benchmarkDecode[M any](b *testing.B, m *M) {
	data := cut(marshal(b, any(m).(proto.Message)), frameLen)
	eachCodec(b, func(b *testing.B, c encoding.CodecV2) {
		b.ReportAllocs()
		b.SetBytes(int64(data.Len()))
		for b.Loop() {
			if err := c.Unmarshal(data, new(M)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchmarkEncode(b *testing.B, m proto.Message) {
	eachCodec(b, func(b *testing.B, c encoding.CodecV2) {
		b.ReportAllocs()
		for b.Loop() {
			data, err := c.Marshal(m)
			if err != nil {
				b.Fatal(err)
			}
			data.Free()
		}
	})
}

func BenchmarkDecodeRange10k(b *testing.B)  { benchmarkDecode(b, rangeResponse(10_000, 256)) }
func BenchmarkDecodeRange1(b *testing.B)    { benchmarkDecode(b, rangeResponse(1, 256)) }
func BenchmarkDecodeRange5KiB(b *testing.B) { benchmarkDecode(b, rangeResponse(1000, 5<<10)) }
func BenchmarkDecodeWatch100(b *testing.B)  { benchmarkDecode(b, watchResponse(100, 256)) }
func BenchmarkDecodeTxn(b *testing.B)       { benchmarkDecode(b, txnResponse()) }

func BenchmarkEncodeRange(b *testing.B)  { benchmarkEncode(b, rangeRequest()) }
func BenchmarkEncodePut(b *testing.B)    { benchmarkEncode(b, putRequest(256)) }
func BenchmarkEncodePut1MB(b *testing.B) { benchmarkEncode(b, putRequest(1_000_000)) }
func BenchmarkEncodeTxn(b *testing.B)    { benchmarkEncode(b, txnRequest()) }
func BenchmarkEncodeTxn40KiB(b *testing.B) {
	m := &pb.TxnRequest{}
	for range 128 {
		m.Success = append(m.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: putRequest(256)}})
	}
	benchmarkEncode(b, m)
}
