package wire

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func FuzzDecodeRangeResponse(f *testing.F)          { fuzzDecode(f, rangeResponse(2, 20)) }
func FuzzDecodePutResponse(f *testing.F)            { fuzzDecode(f, &pb.PutResponse{PrevKv: keyValue(1, 8)}) }
func FuzzDecodeTxnResponse(f *testing.F)            { fuzzDecode(f, txnResponse()) }
func FuzzDecodeWatchResponse(f *testing.F)          { fuzzDecode(f, watchResponse(4, 20)) }
func FuzzDecodeLeaseKeepAliveResponse(f *testing.F) { fuzzDecode(f, &pb.LeaseKeepAliveResponse{}) }
func FuzzDecodeRangeStreamResponse(f *testing.F) {
	fuzzDecode(f, &pb.RangeStreamResponse{RangeResponse: rangeResponse(2, 20)})
}
func FuzzDecodeDeleteRangeResponse(f *testing.F) {
	fuzzDecode(f, &pb.DeleteRangeResponse{PrevKvs: keyValues(3, 8)})
}

func FuzzEncodeRangeRequest(f *testing.F) { fuzzEncode(f, rangeRequest()) }
func FuzzEncodePutRequest(f *testing.F)   { fuzzEncode(f, putRequest(20)) }
func FuzzEncodeDeleteRangeRequest(f *testing.F) {
	fuzzEncode(f, &pb.DeleteRangeRequest{Key: []byte("k")})
}
func FuzzEncodeTxnRequest(f *testing.F)            { fuzzEncode(f, txnRequest()) }
func FuzzEncodeWatchRequest(f *testing.F)          { fuzzEncode(f, watchRequests()...) }
func FuzzEncodeLeaseKeepAliveRequest(f *testing.F) { fuzzEncode(f, &pb.LeaseKeepAliveRequest{ID: 1}) }

// fuzzDecode decodes data, given many times over and cut at random, as a message of the type of m, and compares the
// result with that of proto.Unmarshal.
func fuzzDecode(f *testing.F, m proto.Message) {
	f.Add(marshal(f, m), uint64(0), uint8(1))
	for _, data := range oddResponses(f, m) {
		if len(data) < 2000 {
			f.Add(data, uint64(1), uint8(1))
		}
	}
	for _, m := range responses() {
		if data := marshal(f, m); len(data) < 2000 {
			f.Add(data, uint64(2), uint8(2))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, times uint8) {
		data = bytes.Repeat(data, int(times))
		checkDecode(t, m, data, shatter(data, rand.New(rand.NewPCG(seed, 0))))
	})
}

// shatter copies data into buffers of random lengths, a few bytes most of them.
func shatter(data []byte, rnd *rand.Rand) mem.BufferSlice {
	var s mem.BufferSlice
	for len(data) > 0 {
		n := min(rnd.IntN(1<<rnd.IntN(12)), len(data))
		s = append(s, mem.SliceBuffer(bytes.Clone(data[:n])))
		data = data[n:]
	}
	return s
}

// fuzzEncode encodes a message of the type of the seeds, out of which random parts are taken, and compares the result
// with that of the standard codec.
func fuzzEncode(f *testing.F, seeds ...proto.Message) {
	for i, m := range seeds {
		for _, nested := range nestedMessages(m.ProtoReflect()) {
			nested.SetUnknown([]byte{0x78, 1})
			f.Add(marshal(f, m), uint64(0))
			nested.SetUnknown(nil)
		}
		for seed := range uint64(5) {
			f.Add(marshal(f, m), seed+uint64(i))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		m := newLike(seeds[0])
		if proto.Unmarshal(data, m) != nil {
			return
		}
		if seed > 0 {
			damage(reflect.ValueOf(m), rand.New(rand.NewPCG(seed, 0)))
		}
		checkEncode(t, m)
	})
}

// damage sets some pointers in a message to nil, those in oneofs too.
func damage(v reflect.Value, rnd *rand.Rand) {
	hit := v.CanSet() && rnd.IntN(20) == 0
	kind := v.Kind()
	switch {
	case kind == reflect.Pointer && hit:
		v.SetZero()
	case kind == reflect.Interface && hit && !v.IsNil():
		v.Set(reflect.Zero(v.Elem().Type()))
	case kind == reflect.Pointer || kind == reflect.Interface:
		if !v.IsNil() {
			damage(v.Elem(), rnd)
		}
	case kind == reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				damage(v.Field(i), rnd)
			}
		}
	case kind == reflect.Slice:
		for i := range v.Len() {
			damage(v.Index(i), rnd)
		}
	}
}
