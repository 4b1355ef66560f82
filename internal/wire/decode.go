package wire

import (
	"bytes"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// maxDepth is how deep transactions may be nested. (The standard codec takes a hundred times as much.)
const maxDepth = 100

// Each method below reads the fields of one message, which is empty before. A field that it does not know, or of
// another wire type, or a message field that is there already, makes the message one for the standard codec.

func (r *reader) rangeResponse(m *pb.RangeResponse) {
	for r.more() {
		switch tag := r.byte(); tag {
		case 1<<3 | length:
			m.Header = r.header(m.Header)
		case 2<<3 | length:
			m.Kvs = r.appendKeyValues(m.Kvs, tag)
		case 3<<3 | number:
			m.More = r.varint() != 0
		case 4<<3 | number:
			m.Count = int64(r.varint())
		default:
			r.odd = true
		}
	}
}

func (r *reader) rangeStreamResponse(m *pb.RangeStreamResponse) {
	for r.more() {
		if r.byte() != 1<<3|length || m.RangeResponse != nil {
			r.odd = true
			return
		}
		m.RangeResponse = new(pb.RangeResponse)
		after := r.enter()
		r.rangeResponse(m.RangeResponse)
		r.leave(after)
	}
}

func (r *reader) putResponse(m *pb.PutResponse) {
	for r.more() {
		switch r.byte() {
		case 1<<3 | length:
			m.Header = r.header(m.Header)
		case 2<<3 | length:
			m.PrevKv = r.prevKeyValue(m.PrevKv)
		default:
			r.odd = true
		}
	}
}

func (r *reader) deleteRangeResponse(m *pb.DeleteRangeResponse) {
	for r.more() {
		switch tag := r.byte(); tag {
		case 1<<3 | length:
			m.Header = r.header(m.Header)
		case 2<<3 | number:
			m.Deleted = int64(r.varint())
		case 3<<3 | length:
			m.PrevKvs = r.appendKeyValues(m.PrevKvs, tag)
		default:
			r.odd = true
		}
	}
}

func (r *reader) txnResponse(m *pb.TxnResponse, depth int) {
	for r.more() {
		switch r.byte() {
		case 1<<3 | length:
			m.Header = r.header(m.Header)
		case 2<<3 | number:
			m.Succeeded = r.varint() != 0
		case 3<<3 | length:
			m.Responses = append(m.Responses, r.responseOp(depth))
		default:
			r.odd = true
		}
	}
}

func (r *reader) responseOp(depth int) *pb.ResponseOp {
	op := new(pb.ResponseOp)
	end := r.enter()
	for r.more() {
		tag := r.byte()
		if op.Response != nil || depth == 0 {
			r.odd = true
			return op
		}
		after := r.enter()
		switch tag {
		case 1<<3 | length:
			m := new(pb.RangeResponse)
			op.Response = &pb.ResponseOp_ResponseRange{ResponseRange: m}
			r.rangeResponse(m)
		case 2<<3 | length:
			m := new(pb.PutResponse)
			op.Response = &pb.ResponseOp_ResponsePut{ResponsePut: m}
			r.putResponse(m)
		case 3<<3 | length:
			m := new(pb.DeleteRangeResponse)
			op.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: m}
			r.deleteRangeResponse(m)
		case 4<<3 | length:
			m := new(pb.TxnResponse)
			op.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: m}
			r.txnResponse(m, depth-1)
		default:
			r.odd = true
		}
		r.leave(after)
	}
	r.leave(end)
	return op
}

func (r *reader) watchResponse(m *pb.WatchResponse) {
	for r.more() {
		switch tag := r.byte(); tag {
		case 1<<3 | length:
			m.Header = r.header(m.Header)
		case 2<<3 | number:
			m.WatchId = int64(r.varint())
		case 3<<3 | number:
			m.Created = r.varint() != 0
		case 4<<3 | number:
			m.Canceled = r.varint() != 0
		case 5<<3 | number:
			m.CompactRevision = int64(r.varint())
		case 6<<3 | length:
			m.CancelReason = r.text()
		case 7<<3 | number:
			m.Fragment = r.varint() != 0
		case 11<<3 | length:
			m.Events = r.appendEvents(m.Events, tag)
		default:
			r.odd = true
		}
	}
}

func (r *reader) leaseKeepAliveResponse(m *pb.LeaseKeepAliveResponse) {
	for r.more() {
		switch r.byte() {
		case 1<<3 | length:
			m.Header = r.header(m.Header)
		case 2<<3 | number:
			m.ID = int64(r.varint())
		case 3<<3 | number:
			m.TTL = int64(r.varint())
		default:
			r.odd = true
		}
	}
}

func (r *reader) text() string {
	b := r.view(r.length())
	if !utf8.Valid(b) {
		r.odd = true
	}
	return string(b)
}

// header reads a header. old is the one that has been read before, or nil.
func (r *reader) header(old *pb.ResponseHeader) *pb.ResponseHeader {
	h := new(pb.ResponseHeader)
	b := r.view(r.length())
	if old != nil || !parseHeader(b, h) {
		r.odd = true
	}
	return h
}

// prevKeyValue reads a single key-value. old is the one that has been read before, or nil.
func (r *reader) prevKeyValue(old *mvccpb.KeyValue) *mvccpb.KeyValue {
	kv := new(mvccpb.KeyValue)
	b := r.bytes(r.length())
	if old != nil || !parseKeyValue(b, kv) {
		r.odd = true
	}
	return kv
}

// Each function below reads the fields of a message that is in one piece, into an empty one. They return false if it is
// one for the standard codec.

func parseHeader(b []byte, h *pb.ResponseHeader) bool {
	for len(b) > 0 {
		tag, num, rest := field(b)
		switch tag {
		case 1<<3 | number:
			h.ClusterId = num
		case 2<<3 | number:
			h.MemberId = num
		case 3<<3 | number:
			h.Revision = int64(num)
		case 4<<3 | number:
			h.RaftTerm = num
		default:
			return false
		}
		b = rest
	}
	return true
}

// parseKeyValue makes key and value slices of b.
func parseKeyValue(b []byte, kv *mvccpb.KeyValue) bool {
	for len(b) > 0 {
		tag, num, rest := field(b)
		ok := true
		switch tag {
		case 1<<3 | length:
			kv.Key, rest, ok = data(rest, num)
		case 2<<3 | number:
			kv.CreateRevision = int64(num)
		case 3<<3 | number:
			kv.ModRevision = int64(num)
		case 4<<3 | number:
			kv.Version = int64(num)
		case 5<<3 | length:
			kv.Value, rest, ok = data(rest, num)
		case 6<<3 | number:
			kv.Lease = int64(num)
		default:
			return false
		}
		if b = rest; !ok {
			return false
		}
	}
	if len(kv.Value) >= aloneLen {
		kv.Key = bytes.Clone(kv.Key) // who keeps the key is not to keep the value
	}
	return true
}

// parseEvent takes the previous key-value from prevs, and makes their keys and values slices of b.
func parseEvent(b []byte, e *event, prevs *slab[mvccpb.KeyValue], left int) bool {
	for len(b) > 0 {
		tag, num, rest := field(b)
		if tag == 1<<3|number {
			e.Type, b = mvccpb.Event_EventType(num), rest
			continue
		}
		kv, rest, ok := data(rest, num)
		switch {
		case tag == 2<<3|length && e.Kv == nil:
			e.Kv = &e.kv
			ok = ok && parseKeyValue(kv, e.Kv)
		case tag == 3<<3|length && e.PrevKv == nil:
			e.PrevKv = prevs.next(left)
			ok = ok && parseKeyValue(kv, e.PrevKv)
		default:
			return false
		}
		if b = rest; !ok {
			return false
		}
	}
	return true
}
