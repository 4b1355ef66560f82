package wire

import (
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Each method below writes the fields of one message, last to first.

func (w *writer) rangeRequest(m *pb.RangeRequest) {
	if !w.ordinary(m != nil && known(m)) {
		return
	}
	w.intField(13<<3|number, m.MaxCreateRevision)
	w.intField(12<<3|number, m.MinCreateRevision)
	w.intField(11<<3|number, m.MaxModRevision)
	w.intField(10<<3|number, m.MinModRevision)
	w.boolField(9<<3|number, m.CountOnly)
	w.boolField(8<<3|number, m.KeysOnly)
	w.boolField(7<<3|number, m.Serializable)
	w.intField(6<<3|number, int64(m.SortTarget))
	w.intField(5<<3|number, int64(m.SortOrder))
	w.intField(4<<3|number, m.Revision)
	w.intField(3<<3|number, m.Limit)
	w.bytesField(2<<3|length, m.RangeEnd)
	w.bytesField(1<<3|length, m.Key)
}

func (w *writer) putRequest(m *pb.PutRequest) {
	if !w.ordinary(m != nil && known(m)) {
		return
	}
	w.boolField(6<<3|number, m.IgnoreLease)
	w.boolField(5<<3|number, m.IgnoreValue)
	w.boolField(4<<3|number, m.PrevKv)
	w.intField(3<<3|number, m.Lease)
	w.bytesField(2<<3|length, m.Value)
	w.bytesField(1<<3|length, m.Key)
}

func (w *writer) deleteRangeRequest(m *pb.DeleteRangeRequest) {
	if !w.ordinary(m != nil && known(m)) {
		return
	}
	w.boolField(3<<3|number, m.PrevKv)
	w.bytesField(2<<3|length, m.RangeEnd)
	w.bytesField(1<<3|length, m.Key)
}

func (w *writer) txnRequest(m *pb.TxnRequest) {
	if !w.ordinary(m != nil && known(m)) {
		return
	}
	w.requestOps(3<<3|length, m.Failure)
	w.requestOps(2<<3|length, m.Success)
	for _, c := range slices.Backward(m.Compare) {
		before := w.len()
		w.compare(c)
		w.end(1<<3|length, before)
	}
}

func (w *writer) compare(m *pb.Compare) {
	if !w.ordinary(m != nil && known(m)) {
		return
	}
	switch u := m.TargetUnion.(type) { // last, as by the standard codec, whatever its number
	case nil:
	case *pb.Compare_Version:
		if w.ordinary(u != nil) {
			w.memberInt(4<<3|number, u.Version)
		}
	case *pb.Compare_CreateRevision:
		if w.ordinary(u != nil) {
			w.memberInt(5<<3|number, u.CreateRevision)
		}
	case *pb.Compare_ModRevision:
		if w.ordinary(u != nil) {
			w.memberInt(6<<3|number, u.ModRevision)
		}
	case *pb.Compare_Value:
		if w.ordinary(u != nil) {
			w.memberBytes(7<<3|length, u.Value)
		}
	case *pb.Compare_Lease:
		if w.ordinary(u != nil) {
			w.memberInt(8<<3|number, u.Lease)
		}
	}
	w.bytesField(64<<3|length, m.RangeEnd)
	w.bytesField(3<<3|length, m.Key)
	w.intField(2<<3|number, int64(m.Target))
	w.intField(1<<3|number, int64(m.Result))
}

func (w *writer) requestOps(tag uint64, ops []*pb.RequestOp) {
	for _, op := range slices.Backward(ops) {
		before := w.len()
		w.requestOp(op)
		w.end(tag, before)
	}
}

func (w *writer) requestOp(m *pb.RequestOp) {
	if !w.ordinary(m != nil && known(m)) {
		return
	}
	before := w.len()
	switch u := m.Request.(type) {
	case nil:
	case *pb.RequestOp_RequestRange:
		if w.ordinary(u != nil) {
			w.rangeRequest(u.RequestRange)
			w.end(1<<3|length, before)
		}
	case *pb.RequestOp_RequestPut:
		if w.ordinary(u != nil) {
			w.putRequest(u.RequestPut)
			w.end(2<<3|length, before)
		}
	case *pb.RequestOp_RequestDeleteRange:
		if w.ordinary(u != nil) {
			w.deleteRangeRequest(u.RequestDeleteRange)
			w.end(3<<3|length, before)
		}
	case *pb.RequestOp_RequestTxn:
		if w.ordinary(u != nil) {
			w.txnRequest(u.RequestTxn)
			w.end(4<<3|length, before)
		}
	}
}

func (w *writer) watchRequest(m *pb.WatchRequest) {
	if !w.ordinary(m != nil && known(m)) {
		return
	}
	switch u := m.RequestUnion.(type) {
	case nil:
	case *pb.WatchRequest_CreateRequest:
		if w.ordinary(u != nil) {
			w.watchCreateRequest(u.CreateRequest)
			w.end(1<<3|length, 0)
		}
	case *pb.WatchRequest_CancelRequest:
		if w.ordinary(u != nil && u.CancelRequest != nil && known(u.CancelRequest)) {
			w.intField(1<<3|number, u.CancelRequest.WatchId)
			w.end(2<<3|length, 0)
		}
	case *pb.WatchRequest_ProgressRequest:
		if w.ordinary(u != nil && u.ProgressRequest != nil && known(u.ProgressRequest)) {
			w.end(3<<3|length, 0)
		}
	}
}

func (w *writer) watchCreateRequest(m *pb.WatchCreateRequest) {
	if !w.ordinary(m != nil && known(m)) {
		return
	}
	w.boolField(8<<3|number, m.Fragment)
	w.intField(7<<3|number, m.WatchId)
	w.boolField(6<<3|number, m.PrevKv)
	if len(m.Filters) > 0 {
		before := w.len()
		for _, f := range slices.Backward(m.Filters) {
			w.varint(uint64(f))
		}
		w.end(5<<3|length, before)
	}
	w.boolField(4<<3|number, m.ProgressNotify)
	w.intField(3<<3|number, m.StartRevision)
	w.bytesField(2<<3|length, m.RangeEnd)
	w.bytesField(1<<3|length, m.Key)
}

func (w *writer) leaseKeepAliveRequest(m *pb.LeaseKeepAliveRequest) {
	if w.ordinary(m != nil && known(m)) {
		w.intField(1<<3|number, m.ID)
	}
}

// known reports whether a message has known fields only. The cost is a call, and a few ns, a message.
func known(m interface{ ProtoReflect() protoreflect.Message }) bool {
	return len(m.ProtoReflect().GetUnknown()) == 0
}
