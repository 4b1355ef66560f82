package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestName(t *testing.T) {
	if got := Codec().Name(); got != "" {
		t.Errorf("Name() = %q, want none, so that the content type is the one of the standard codec", got)
	}
}

// refuse is a standard codec that no message goes to.
type refuse struct{ encoding.CodecV2 }

var errRefused = errors.New("refused")

func (refuse) Marshal(any) (mem.BufferSlice, error)        { return nil, errRefused }
func (refuse) Unmarshal(data mem.BufferSlice, v any) error { return errRefused }

func TestOrdinaryMessagesNeedNoStandardCodec(t *testing.T) {
	defer func(c encoding.CodecV2) { standard = c }(standard)
	standard = refuse{}
	for _, m := range requests() {
		data, err := Codec().Marshal(m)
		if err != nil {
			t.Errorf("encode %T: %v", m, err)
		}
		data.Free()
	}
	for _, m := range responses() {
		if err := Codec().Unmarshal(cut(marshal(t, m), 1000), newLike(m)); err != nil {
			t.Errorf("decode %T: %v", m, err)
		}
	}
}

func TestRequestIsEncodedAsByStandardCodec(t *testing.T) {
	for _, m := range requests() {
		checkEncode(t, m)
	}
}

func TestResponseIsDecodedAsByStandardCodecHoweverItIsCut(t *testing.T) {
	for _, m := range responses() {
		data := marshal(t, m)
		for _, n := range []int{1, 2, 3, 7, 64, 1000, frameLen, len(data) + 1} {
			checkDecode(t, m, data, cut(data, n))
		}
		var gaps mem.BufferSlice
		for _, b := range cut(data, 100) {
			gaps = append(gaps, mem.SliceBuffer(nil), b, mem.SliceBuffer{})
		}
		checkDecode(t, m, data, gaps)
	}
}

func TestDecodeResetsMessage(t *testing.T) {
	m := rangeResponse(3, 10)
	want := rangeResponse(1, 20)
	want.Header = nil
	if err := Codec().Unmarshal(cut(marshal(t, want), 100), m); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(m, want) {
		t.Errorf("got %v, want %v", m, want)
	}
}

func TestOtherMessagesGoToStandardCodec(t *testing.T) {
	messages := append(requests(), responses()...)
	messages = append(messages,
		&pb.CompactionRequest{Revision: 5, Physical: true},
		&pb.StatusResponse{Header: header(), Version: "3.7.3"},
		&grpc_health_v1.HealthCheckRequest{Service: "s"},
	)
	for _, m := range messages {
		data, err := Codec().Marshal(m)
		if err != nil {
			t.Fatalf("encode %T: %v", m, err)
		}
		got := newLike(m)
		if err := Codec().Unmarshal(data, got); err != nil {
			t.Fatalf("decode %T: %v", m, err)
		}
		if !proto.Equal(got, m) {
			t.Errorf("%T came back as another: %v", m, got)
		}
		data.Free()
	}
	if _, err := Codec().Marshal("text"); err == nil {
		t.Error("a string is encoded")
	}
	if err := Codec().Unmarshal(nil, new(string)); err == nil {
		t.Error("a string is decoded")
	}
}

// oddRequests are messages that a caller ought not to make, or that have fields of a newer protocol.
func oddRequests() map[string]proto.Message {
	with := func(op *pb.RequestOp) proto.Message {
		return &pb.TxnRequest{Success: append(requestOps(), op), Failure: requestOps()}
	}
	compare := func(m *pb.Compare) proto.Message { return &pb.TxnRequest{Compare: []*pb.Compare{m}} }
	odd := map[string]proto.Message{
		"nil range":        (*pb.RangeRequest)(nil),
		"nil put":          (*pb.PutRequest)(nil),
		"nil delete":       (*pb.DeleteRangeRequest)(nil),
		"nil txn":          (*pb.TxnRequest)(nil),
		"nil watch":        (*pb.WatchRequest)(nil),
		"nil keep-alive":   (*pb.LeaseKeepAliveRequest)(nil),
		"nil element":      with(nil),
		"nil compare":      compare(nil),
		"nil range op":     with(&pb.RequestOp{Request: (*pb.RequestOp_RequestRange)(nil)}),
		"nil put op":       with(&pb.RequestOp{Request: (*pb.RequestOp_RequestPut)(nil)}),
		"nil delete op":    with(&pb.RequestOp{Request: (*pb.RequestOp_RequestDeleteRange)(nil)}),
		"nil txn op":       with(&pb.RequestOp{Request: (*pb.RequestOp_RequestTxn)(nil)}),
		"nil version":      compare(&pb.Compare{TargetUnion: (*pb.Compare_Version)(nil)}),
		"nil create":       compare(&pb.Compare{TargetUnion: (*pb.Compare_CreateRevision)(nil)}),
		"nil mod":          compare(&pb.Compare{TargetUnion: (*pb.Compare_ModRevision)(nil)}),
		"nil value":        compare(&pb.Compare{TargetUnion: (*pb.Compare_Value)(nil)}),
		"nil lease":        compare(&pb.Compare{TargetUnion: (*pb.Compare_Lease)(nil)}),
		"empty range op":   with(&pb.RequestOp{Request: &pb.RequestOp_RequestRange{}}),
		"empty put op":     with(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{}}),
		"empty delete op":  with(&pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{}}),
		"empty txn op":     with(&pb.RequestOp{Request: &pb.RequestOp_RequestTxn{}}),
		"nil create union": &pb.WatchRequest{RequestUnion: (*pb.WatchRequest_CreateRequest)(nil)},
		"nil cancel union": &pb.WatchRequest{RequestUnion: (*pb.WatchRequest_CancelRequest)(nil)},
		"nil progress":     &pb.WatchRequest{RequestUnion: (*pb.WatchRequest_ProgressRequest)(nil)},
		"empty create":     &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{}},
		"empty cancel":     &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{}},
		"empty progress":   &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{}},
	}
	for i, m := range requests() {
		for j, nested := range nestedMessages(m.ProtoReflect()) {
			nested.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
			odd[fmt.Sprintf("unknown field %d.%d", i, j)] = proto.Clone(m)
			nested.SetUnknown(nil)
		}
	}
	return odd
}

func TestOddRequestIsEncodedAsByStandardCodec(t *testing.T) {
	for name, m := range oddRequests() {
		t.Run(name, func(t *testing.T) { checkEncode(t, m) })
	}
}

// oddResponses are bytes that an etcd server ought not to send to be decoded as an m, or that have fields of a newer
// protocol.
func oddResponses(t testing.TB, m proto.Message) map[string][]byte {
	const start, end, fixed, invalid = 3, 4, 5, 6 // wire types, as number and length
	data := marshal(t, m)
	and := func(more ...byte) []byte { return slices.Concat(data, more) }
	ff8 := bytes.Repeat([]byte{0xff}, 8)
	odd := map[string][]byte{
		"twice":                 and(data...),
		"unknown field":         and(99&0x0f<<3|0x80|number, 99>>4, 1),
		"unknown group":         and(15<<3|start, 15<<3|end),
		"end of no group":       and(1<<3 | end),
		"endless group":         and(1<<3 | start),
		"field 0":               and(0<<3|number, 1),
		"wire type 6":           and(1<<3|invalid, 1),
		"fixed32":               and(2<<3|fixed, 1, 2, 3, 4),
		"long tag":              and(1<<3|length|0x80, 0x80, 0, 0),
		"varint of 11 bytes":    and(slices.Concat([]byte{4<<3 | number, 0xff, 0xff, 0xff}, ff8)...),
		"varint over 64 bits":   and(slices.Concat([]byte{4<<3 | number, 0xff}, ff8, []byte{2})...),
		"varint of 64 bits":     and(slices.Concat([]byte{4<<3 | number, 0xff}, ff8, []byte{1})...),
		"long zero":             and(3<<3|number, 0x80, 0x80, 0),
		"endless varint":        and(3<<3|number, 0x80),
		"length over 63 bits":   and(slices.Concat([]byte{1<<3 | length, 0xff}, ff8, []byte{1})...),
		"length over 31 bits":   and(2<<3|length, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"too long":              and(2<<3|length, 3, 0, 0),
		"header too short":      and(1<<3|length, 1, 0x08, 1),
		"header's header":       and(1<<3|length, 2, 0x0a, 0),
		"header in parts":       and(1<<3|length, 2, 0x18, 1, 1<<3|length, 2, 0x20, 1),
		"key too long":          and(2<<3|length, 3, 0x0a, 5, 1),
		"key twice, then empty": and(2<<3|length, 5, 0x0a, 1, 'k', 0x0a, 0),
		"keys in turn":          and(2<<3|length, 0, 0x18, 1, 2<<3|length, 0, 3<<3|length, 0, 0x18, 0),
		"text not UTF-8":        and(6<<3|length, 1, 0xff),
		"text twice":            and(6<<3|length, 1, 'a', 6<<3|length, 0),
		"event's key in parts":  and(11<<3|length, 9, 0x12, 3, 0x0a, 1, 'k', 0x12, 2, 0x20, 1),
		"old key in parts":      and(11<<3|length, 9, 0x1a, 3, 0x0a, 1, 'k', 0x1a, 2, 0x20, 1),
		"event of another type": and(slices.Concat([]byte{11<<3 | length, 11, 0x08, 0xff}, ff8, []byte{1})...),
		"response of two kinds": and(3<<3|length, 8, 0x0a, 2, 0x18, 1, 0x12, 2, 0x0a, 0),
		"response in parts":     and(3<<3|length, 8, 0x0a, 2, 0x18, 1, 0x0a, 2, 0x20, 5),
		"varint over the end":   and(3<<3|length, 4, 0x0a, 2, 0x18, 0x80, 1),
		"length over the end":   and(slices.Concat([]byte{3<<3 | length, 4, 0x0a, 2, 0x0a, 0xec}, ff8, []byte{1})...),
	}
	for n := range min(len(data), 300) {
		odd[fmt.Sprint("first bytes: ", n)] = data[:n]
	}
	for i, nested := range nestedMessages(m.ProtoReflect()) {
		nested.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
		odd[fmt.Sprint("unknown field in part ", i)] = marshal(t, m)
		nested.SetUnknown(nil)
	}
	return odd
}

func TestOddResponseIsDecodedAsByStandardCodec(t *testing.T) {
	for _, m := range []proto.Message{
		rangeResponse(2, 8),
		&pb.RangeStreamResponse{RangeResponse: rangeResponse(2, 8)},
		&pb.PutResponse{Header: header(), PrevKv: keyValue(1, 8)},
		&pb.DeleteRangeResponse{Header: header(), PrevKvs: keyValues(2, 8)},
		txnResponse(),
		watchResponse(4, 8),
		&pb.LeaseKeepAliveResponse{Header: header(), ID: 1, TTL: 60},
	} {
		for name, data := range oddResponses(t, m) {
			t.Run(fmt.Sprintf("%T/%s", m, name), func(t *testing.T) {
				checkDecode(t, m, data, cut(data, 5))
				checkDecode(t, m, data, cut(data, len(data)+1))
			})
		}
	}
}

func TestDeepTxnResponseIsDecodedAsByStandardCodec(t *testing.T) {
	var b []byte
	for depth := range 5002 { // two messages each; the standard codec takes 10,000
		if depth > 4997 || depth > maxDepth-3 && depth < maxDepth+3 {
			checkDecode(t, &pb.TxnResponse{}, b, cut(b, 1000))
		}
		b = append(protowire.AppendVarint([]byte{4<<3 | length}, uint64(len(b))), b...)
		b = append(protowire.AppendVarint([]byte{3<<3 | length}, uint64(len(b))), b...)
	}
}

func TestDecodedMessageKeepsNothingOfReceivedBuffers(t *testing.T) {
	for _, m := range responses() {
		for _, n := range []int{10, 1000, 1 << 20} {
			data := cut(marshal(t, m), n)
			got := newLike(m)
			if err := Codec().Unmarshal(data, got); err != nil {
				t.Fatal(err)
			}
			poison(data)
			if !proto.Equal(got, m) {
				t.Errorf("%T in buffers of %d bytes changes with them", m, n)
			}
		}
	}
}

func TestAppendDoesNotReachNeighbour(t *testing.T) {
	m := watchResponse(100, 256)
	got := new(pb.WatchResponse)
	if err := Codec().Unmarshal(cut(marshal(t, m), frameLen), got); err != nil {
		t.Fatal(err)
	}
	for _, e := range got.Events {
		for _, kv := range []*mvccpb.KeyValue{e.Kv, e.PrevKv} {
			if kv != nil {
				_ = append(kv.Key, "XXXXXXXXXXXXXXXX"...)
				_ = append(kv.Value, "XXXXXXXXXXXXXXXX"...)
			}
		}
	}
	if !proto.Equal(got, m) {
		t.Error("appending to a key or value changes another")
	}
}

// pool counts the buffers that are out.
type pool struct{ out map[*[]byte]bool }

func (p *pool) Get(n int) *[]byte {
	b := make([]byte, n)
	p.out[&b] = true
	return &b
}

func (p *pool) Put(b *[]byte) {
	if !p.out[b] {
		panic("not a buffer of the pool, or put twice")
	}
	delete(p.out, b)
	poison(mem.BufferSlice{mem.SliceBuffer(*b)})
}

func TestBufferOfRequestGoesBackToItsPool(t *testing.T) {
	for _, size := range []int{0, 100, firstBuffer / 2, firstBuffer, 10 * firstBuffer} {
		p := &pool{out: map[*[]byte]bool{}}
		m := &pb.TxnRequest{}
		for range 4 {
			m.Success = append(m.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: putRequest(size)}})
		}
		w := writer{pool: p}
		w.txnRequest(m)
		data := w.take()
		if got, want := data.Materialize(), marshal(t, m); !bytes.Equal(got, want) {
			t.Errorf("four values of %d bytes: encoded otherwise than by the standard codec", size)
		}
		if len(p.out) != 1 {
			t.Errorf("four values of %d bytes: message lies in %d buffers of the pool, want 1", size, len(p.out))
		}
		data.Free()
		if len(p.out) != 0 {
			t.Errorf("four values of %d bytes: %d buffers are still out", size, len(p.out))
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	codec := Codec()
	request, response := txnRequest(), watchResponse(20, 64)
	wantRequest, received := marshal(t, request), cut(marshal(t, response), 1000)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 5 {
				data, err := codec.Marshal(request)
				if err != nil || !bytes.Equal(data.Materialize(), wantRequest) {
					t.Errorf("encode: %v, or other bytes", err)
					return
				}
				data.Free()
				got := new(pb.WatchResponse)
				if err := codec.Unmarshal(received, got); err != nil || !proto.Equal(got, response) {
					t.Errorf("decode: %v, or another message", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// checkEncode fails the test if the codec encodes m otherwise than the standard codec: other bytes, or only one of the
// two refuses.
func checkEncode(t *testing.T, m proto.Message) {
	t.Helper()
	encode := func(c encoding.CodecV2) ([]byte, error) {
		data, err := c.Marshal(m)
		if err != nil {
			return nil, err
		}
		defer data.Free()
		return data.Materialize(), nil
	}
	want, wantErr := encode(standard)
	got, err := encode(Codec())
	if (err != nil) != (wantErr != nil) || !bytes.Equal(got, want) {
		t.Errorf("%T encoded: %.500x, %v\nby the standard codec: %.500x, %v", m, got, err, want, wantErr)
	}
}

// checkDecode fails the test if the codec decodes the received data otherwise than proto.Unmarshal, as a message of the
// type of m: another message, or only one of the two refuses. The data is poisoned.
func checkDecode(t *testing.T, m proto.Message, data []byte, received mem.BufferSlice) {
	t.Helper()
	want, got := newLike(m), newLike(m)
	wantErr := proto.Unmarshal(data, want)
	err := Codec().Unmarshal(received, got)
	poison(received)
	switch {
	case (err != nil) != (wantErr != nil):
		t.Errorf("%T of %d bytes in %d buffers: %v, by proto.Unmarshal: %v", m, len(data), len(received), err, wantErr)
	case err != nil:
	case !proto.Equal(got, want):
		t.Errorf("%T of %d bytes in %d buffers:\n%.500v\nby proto.Unmarshal:\n%.500v", m, len(data), len(received), got, want)
	case !reflect.DeepEqual(got, want): // Equal, above, has set all that is set at first use
		t.Errorf("%T of %d bytes in %d buffers: nil and empty differ", m, len(data), len(received))
	}
}

// poison overwrites received data, as happens when the buffers are used again.
func poison(received mem.BufferSlice) {
	for _, b := range received {
		p := b.ReadOnlyData()
		for i := range p {
			p[i] = 0xa5
		}
	}
}

func TestVarints(t *testing.T) {
	for shift := range 64 {
		for _, v := range []uint64{1 << shift, 1<<shift - 1, math.MaxUint64 << shift, 0x5555555555555555 >> shift} {
			b := protowire.AppendVarint(nil, v)
			for _, tail := range []string{"", "\xff", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", "\x01abcdefghij"} {
				if got, n := uvarint(append(b, tail...)); got != v || n != len(b) {
					t.Errorf("%#x before %q: %#x, %d bytes", v, tail, got, n)
				}
			}
		}
	}
	for _, odd := range []string{"", "\x80", "\x80\x80\x80\x80\x80\x80\x80\x80", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if _, n := uvarint([]byte(odd)); n >= 0 {
			t.Errorf("%q: read as %d bytes", odd, n)
		}
	}
}
