package wire

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The messages that the tests are about, as an etcd client sends and receives them.

func header() *pb.ResponseHeader {
	return &pb.ResponseHeader{
		ClusterId: 14841639068965178418, MemberId: 10276657743932975437, Revision: 1 << 30, RaftTerm: 7,
	}
}

func keyValue(i, valueLen int) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key:            fmt.Appendf(nil, "/registry/pods/%06d", i),
		Value:          bytes.Repeat([]byte{byte(i), byte(i >> 8), 'v', '\n'}, valueLen/4),
		CreateRevision: 1000 + int64(i),
		ModRevision:    100000 + int64(i),
		Version:        int64(i%7) + 1,
	}
}

func keyValues(count, valueLen int) []*mvccpb.KeyValue {
	var kvs []*mvccpb.KeyValue
	for i := range count {
		kvs = append(kvs, keyValue(i, valueLen))
	}
	return kvs
}

func rangeResponse(count, valueLen int) *pb.RangeResponse {
	return &pb.RangeResponse{Header: header(), Kvs: keyValues(count, valueLen), Count: int64(count)}
}

func watchResponse(count, valueLen int) *pb.WatchResponse {
	m := &pb.WatchResponse{Header: header(), WatchId: 12}
	for i, kv := range keyValues(count, valueLen) {
		m.Events = append(m.Events, &mvccpb.Event{Kv: kv})
		switch i % 4 {
		case 1:
			m.Events[i].PrevKv = keyValue(i, 16)
		case 2:
			m.Events[i].Type = mvccpb.Event_DELETE
			m.Events[i].Kv = &mvccpb.KeyValue{Key: kv.Key, ModRevision: kv.ModRevision}
		}
	}
	return m
}

func responseOps() []*pb.ResponseOp {
	return []*pb.ResponseOp{
		{Response: &pb.ResponseOp_ResponseRange{ResponseRange: rangeResponse(3, 20)}},
		{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: header(), PrevKv: keyValue(1, 8)}}},
		{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{
			Header: header(), Deleted: 2, PrevKvs: keyValues(2, 8),
		}}},
	}
}

func txnResponse() *pb.TxnResponse {
	nested := &pb.TxnResponse{Header: header(), Responses: responseOps()}
	return &pb.TxnResponse{
		Header:    header(),
		Succeeded: true,
		Responses: append(responseOps(), &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: nested}}),
	}
}

func rangeRequest() *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: []byte("/registry/pods/"), RangeEnd: []byte("/registry/pods0"), Limit: 500, Revision: 1 << 40,
		SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_VALUE,
		Serializable: true, KeysOnly: true, CountOnly: true,
		MinModRevision: 1, MaxModRevision: 1 << 20, MinCreateRevision: 300, MaxCreateRevision: -1,
	}
}

func putRequest(valueLen int) *pb.PutRequest {
	return &pb.PutRequest{
		Key: []byte("/registry/pods/a"), Value: bytes.Repeat([]byte("v"), valueLen), Lease: 7587878,
		PrevKv: true, IgnoreValue: true, IgnoreLease: true,
	}
}

func requestOps() []*pb.RequestOp {
	deleteRange := &pb.DeleteRangeRequest{Key: []byte("k"), PrevKv: true}
	return []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestRange{RequestRange: rangeRequest()}},
		{Request: &pb.RequestOp_RequestPut{RequestPut: putRequest(300)}},
		{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: deleteRange}},
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{}}},
		{},
	}
}

func txnRequest() *pb.TxnRequest {
	compare := func(target pb.Compare_CompareTarget, m *pb.Compare) *pb.Compare {
		m.Result, m.Target, m.Key, m.RangeEnd = pb.Compare_NOT_EQUAL, target, []byte("key"), []byte{0}
		return m
	}
	nested := &pb.TxnRequest{Success: requestOps(), Failure: requestOps()[1:2]}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{
			compare(pb.Compare_VERSION, &pb.Compare{TargetUnion: &pb.Compare_Version{}}),
			compare(pb.Compare_CREATE, &pb.Compare{TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 300}}),
			compare(pb.Compare_MOD, &pb.Compare{TargetUnion: &pb.Compare_ModRevision{ModRevision: -300}}),
			compare(pb.Compare_VALUE, &pb.Compare{TargetUnion: &pb.Compare_Value{Value: []byte("value")}}),
			compare(pb.Compare_VALUE, &pb.Compare{TargetUnion: &pb.Compare_Value{}}),
			compare(pb.Compare_LEASE, &pb.Compare{TargetUnion: &pb.Compare_Lease{Lease: 1}}),
			{},
		},
		Success: append(requestOps(), &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: nested}}),
		Failure: requestOps(),
	}
}

func watchRequests() []proto.Message {
	return []proto.Message{
		&pb.WatchRequest{},
		&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte("/"), RangeEnd: []byte("0"), StartRevision: 999, ProgressNotify: true, PrevKv: true,
			Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE, pb.WatchCreateRequest_NOPUT, -1, 200},
			WatchId: 77, Fragment: true,
		}}},
		&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
			CancelRequest: &pb.WatchCancelRequest{WatchId: 130},
		}},
		&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
			ProgressRequest: &pb.WatchProgressRequest{},
		}},
	}
}

// requests are messages that the codec encodes itself.
func requests() []proto.Message {
	// Its first byte to be written is none: the value is there, but empty.
	emptyValue := &pb.TxnRequest{Compare: []*pb.Compare{{TargetUnion: &pb.Compare_Value{}}}}
	return append(watchRequests(),
		rangeRequest(), &pb.RangeRequest{}, putRequest(100), putRequest(firstBuffer), putRequest(3<<20), &pb.PutRequest{},
		&pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte{0}, PrevKv: true}, &pb.DeleteRangeRequest{},
		txnRequest(), &pb.TxnRequest{}, emptyValue, &pb.LeaseKeepAliveRequest{ID: 1 << 62}, &pb.LeaseKeepAliveRequest{},
	)
}

// responses are messages that the codec decodes itself.
func responses() []proto.Message {
	mixed := rangeResponse(200, 100)
	for i, n := range []int{0, aloneLen - 1, aloneLen, 0, 5000, chunkLen, 1, 0, 2*chunkLen + 1} {
		mixed.Kvs[i*20].Value = bytes.Repeat([]byte{byte(i)}, n)
	}
	mixed.Kvs[30].Key = bytes.Repeat([]byte("k"), 3000)
	mixed.Kvs[40].Key = bytes.Repeat([]byte("k"), 5000)
	mixed.Kvs[80].Key = bytes.Repeat([]byte("k"), 200)
	full := rangeResponse(800, 256) // runs that are full, and then others
	full.Kvs[150].Value = bytes.Repeat([]byte("v"), aloneLen)
	full.Kvs[151].Value = bytes.Repeat([]byte("v"), 2*chunkLen)
	full.Kvs[400].Value = bytes.Repeat([]byte("v"), aloneLen)
	full.Kvs[600].Value = nil
	return []proto.Message{
		rangeResponse(0, 0), rangeResponse(1, 8), rangeResponse(500, 256), mixed, full, &pb.RangeResponse{},
		&pb.RangeResponse{More: true, Kvs: []*mvccpb.KeyValue{{}, {Lease: 1}, {Value: []byte("only")}}},
		&pb.RangeStreamResponse{RangeResponse: rangeResponse(100, 20)}, &pb.RangeStreamResponse{},
		&pb.PutResponse{Header: header(), PrevKv: keyValue(0, 10)}, &pb.PutResponse{Header: header()},
		&pb.DeleteRangeResponse{Header: header(), Deleted: 100, PrevKvs: keyValues(100, 32)},
		txnResponse(), &pb.TxnResponse{},
		watchResponse(1, 30), watchResponse(150, 256), watchResponse(500, 256),
		&pb.WatchResponse{Header: header(), WatchId: -1, Created: true, Canceled: true, CompactRevision: 400,
			CancelReason: "etcdserver: mvcc: reqüired revision has been compacted", Fragment: true},
		&pb.LeaseKeepAliveResponse{Header: header(), ID: 1 << 62, TTL: 60},
	}
}

// marshal is what the other side sends.
func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cut copies a message into buffers of n bytes.
func cut(data []byte, n int) mem.BufferSlice {
	var s mem.BufferSlice
	for len(data) > 0 {
		n := min(n, len(data))
		s = append(s, mem.SliceBuffer(bytes.Clone(data[:n])))
		data = data[n:]
	}
	return s
}

// newLike returns an empty message of the type of m.
func newLike[M proto.Message](m M) M { return m.ProtoReflect().New().Interface().(M) }

// nestedMessages returns a message and all messages in it.
func nestedMessages(m protoreflect.Message) []protoreflect.Message {
	all := []protoreflect.Message{m}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				all = append(all, nestedMessages(v.List().Get(i).Message())...)
			}
		default:
			all = append(all, nestedMessages(v.Message())...)
		}
		return true
	})
	return all
}
