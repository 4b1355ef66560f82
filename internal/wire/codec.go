// Package wire is the protobuf codec of a client's hot messages: the requests it sends and the responses it receives
// for Range, RangeStream, Put, DeleteRange, Txn, Watch and LeaseKeepAlive.
//
// Requests are written straight into one pooled buffer. Responses are read from the buffers in which they were
// received, however a message is cut into them, and what they carry is copied once, into memory that the caller owns:
// key-values lie in slabs, their bytes in shared chunks, so that a long range costs two allocations per hundred keys (see
// slab.go for what a kept key-value keeps alive).
//
// The package knows only the ordinary form of these messages: known fields, each message field once. Whatever differs
// (an unknown field, a field given twice, a nil element, malformed input, a message of another type or in the other
// direction) is left, whole, to the standard codec of gRPC. So nothing is lost, what the standard codec refuses is
// refused with its error, and the two can differ only in an ordinary message, which the fuzz tests compare.
package wire

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// standard is gRPC's own protobuf codec, which proto's init has registered.
var standard = encoding.GetCodecV2(proto.Name)

// The tag of a field is its number, shifted by three, and one of these wire types. The numbers are those of
// etcdserverpb/rpc.proto and mvccpb/kv.proto.
const (
	number = 0 // a varint: integer, enum, bool
	length = 2 // a varint and as many bytes: bytes, string, message
)

// Codec returns the codec, to be put on a client's connection by grpc.ForceCodecV2. Its bytes are those of the standard
// codec, so the other side need not know; and its name is empty, which makes gRPC send the content type that stands for
// the standard codec, "application/grpc", and spares each call to put "application/grpc+proto" together. It is stateless
// and safe for concurrent use.
func Codec() encoding.CodecV2 { return codec{} }

type codec struct{}

func (codec) Name() string { return "" }

// buffers are those of requests. A pool of gRPC's clears a buffer whole when it hands it out, and in gRPC's default pool
// the next size above 32 KiB is 1 MiB: so for a transaction of 40 KiB clearing took longer than encoding.
var buffers = mem.NewTieredBufferPool(firstBuffer, 8<<10, 16<<10, 32<<10, 64<<10, 128<<10, 256<<10, 512<<10, 1<<20)

// Marshal encodes a message. The buffer it returns is the caller's to free.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	w := writer{pool: buffers}
	stream := false
	switch m := v.(type) {
	case *pb.RangeRequest:
		w.rangeRequest(m)
	case *pb.PutRequest:
		w.putRequest(m)
	case *pb.DeleteRangeRequest:
		w.deleteRangeRequest(m)
	case *pb.TxnRequest:
		w.txnRequest(m)
	case *pb.WatchRequest:
		w.watchRequest(m)
		stream = true
	case *pb.LeaseKeepAliveRequest:
		w.leaseKeepAliveRequest(m)
		stream = true
	default:
		return standard.Marshal(v)
	}
	if w.odd {
		return standard.Marshal(v)
	}
	if stream {
		return w.takeExact(), nil
	}
	return w.take(), nil
}

// Unmarshal resets a message and decodes into it. It keeps nothing of data.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	r := newReader(data)
	switch m := v.(type) {
	case *pb.RangeResponse:
		m.Reset()
		r.rangeResponse(m)
	case *pb.RangeStreamResponse:
		m.Reset()
		r.rangeStreamResponse(m)
	case *pb.PutResponse:
		m.Reset()
		r.putResponse(m)
	case *pb.DeleteRangeResponse:
		m.Reset()
		r.deleteRangeResponse(m)
	case *pb.TxnResponse:
		m.Reset()
		r.txnResponse(m, maxDepth)
	case *pb.WatchResponse:
		m.Reset()
		r.watchResponse(m)
	case *pb.LeaseKeepAliveResponse:
		m.Reset()
		r.leaseKeepAliveResponse(m)
	default:
		return standard.Unmarshal(data, v)
	}
	if r.odd {
		return standard.Unmarshal(data, v)
	}
	return nil
}
