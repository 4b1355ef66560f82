package namespace

import (
	"bytes"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
)

// space is a namespace: it translates keys from its own names to the cluster's and back.
type space struct {
	prefix []byte
	end    []byte // of the range of all keys with the prefix; "\x00" if that has none
}

func newSpace(prefix string) space {
	return space{prefix: []byte(prefix), end: []byte(clientv3.GetPrefixRangeEnd(prefix))}
}

// key returns the cluster's name of a key.
func (s space) key(key []byte) []byte { return slices.Concat(s.prefix, key) }

// rangeEnd returns the cluster's name of the end of a range. No end, written "\x00", is the end of the namespace.
func (s space) rangeEnd(end []byte) []byte {
	switch {
	case len(end) == 0: // a single key
		return nil
	case len(end) == 1 && end[0] == 0:
		return s.end
	default:
		return s.key(end)
	}
}

// own returns the namespace's name of a key. The bytes are shared.
func (s space) own(key []byte) []byte {
	key, _ = bytes.CutPrefix(key, s.prefix)
	return key
}

// op translates an operation. The one it is given keeps its keys.
func (s space) op(op clientv3.Op) (clientv3.Op, error) {
	if op.IsTxn() {
		cmps, thenOps, elseOps := op.Txn()
		cmps, err := s.cmps(cmps)
		if err != nil {
			return op, err
		}
		if thenOps, err = s.ops(thenOps); err != nil {
			return op, err
		}
		if elseOps, err = s.ops(elseOps); err != nil {
			return op, err
		}
		return clientv3.OpTxn(cmps, thenOps, elseOps), nil
	}
	if len(op.KeyBytes()) == 0 {
		return op, rpctypes.ErrEmptyKey
	}
	key, end := s.key(op.KeyBytes()), s.rangeEnd(op.RangeBytes())
	op.WithKeyBytes(key)
	op.WithRangeBytes(end)
	return op, nil
}

func (s space) ops(ops []clientv3.Op) ([]clientv3.Op, error) {
	translated := make([]clientv3.Op, len(ops))
	for i, op := range ops {
		var err error
		if translated[i], err = s.op(op); err != nil {
			return nil, err
		}
	}
	return translated, nil
}

// cmps translates comparisons. An empty key is allowed as the beginning of a range, which WithPrefix makes of it.
func (s space) cmps(cmps []clientv3.Cmp) ([]clientv3.Cmp, error) {
	translated := make([]clientv3.Cmp, len(cmps))
	for i := range cmps {
		c := cmps[i].Clone()
		message := c.GetCompare()
		if len(message.Key) == 0 && len(message.RangeEnd) == 0 {
			return nil, rpctypes.ErrEmptyKey
		}
		message.Key, message.RangeEnd = s.begin(message.Key), s.rangeEnd(message.RangeEnd)
		translated[i] = c
	}
	return translated, nil
}

// begin returns the cluster's name of the first key of a range, or of a watch, where the empty key stands for the
// first one there is. That keeps the key that is the prefix itself out of the namespace.
func (s space) begin(key []byte) []byte {
	if len(key) == 0 {
		key = []byte{0}
	}
	return s.key(key)
}

func (s space) opResponse(resp clientv3.OpResponse) clientv3.OpResponse {
	switch {
	case resp.Get() != nil:
		return s.getResponse(resp.Get()).OpResponse()
	case resp.Put() != nil:
		return s.putResponse(resp.Put()).OpResponse()
	case resp.Del() != nil:
		return s.deleteResponse(resp.Del()).OpResponse()
	case resp.Txn() != nil:
		return s.txnResponse(resp.Txn()).OpResponse()
	default:
		return resp
	}
}

func (s space) getResponse(r *clientv3.GetResponse) *clientv3.GetResponse {
	return (*clientv3.GetResponse)(s.rangeResponse((*pb.RangeResponse)(r)))
}

func (s space) rangeResponse(r *pb.RangeResponse) *pb.RangeResponse {
	if r == nil {
		return nil
	}
	return &pb.RangeResponse{Header: r.Header, Kvs: s.kvs(r.Kvs), More: r.More, Count: r.Count}
}

func (s space) putResponse(r *clientv3.PutResponse) *clientv3.PutResponse {
	if r == nil {
		return nil
	}
	return &clientv3.PutResponse{Header: r.Header, PrevKv: s.kv(r.PrevKv)}
}

func (s space) deleteResponse(r *clientv3.DeleteResponse) *clientv3.DeleteResponse {
	if r == nil {
		return nil
	}
	return &clientv3.DeleteResponse{Header: r.Header, Deleted: r.Deleted, PrevKvs: s.kvs(r.PrevKvs)}
}

func (s space) txnResponse(r *clientv3.TxnResponse) *clientv3.TxnResponse {
	if r == nil {
		return nil
	}
	responses := make([]*pb.ResponseOp, len(r.Responses))
	for i, op := range r.Responses {
		responses[i] = s.responseOp(op)
	}
	return &clientv3.TxnResponse{Header: r.Header, Succeeded: r.Succeeded, Responses: responses}
}

func (s space) responseOp(op *pb.ResponseOp) *pb.ResponseOp {
	switch r := op.GetResponse().(type) {
	case *pb.ResponseOp_ResponseRange:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: s.rangeResponse(r.ResponseRange)}}
	case *pb.ResponseOp_ResponsePut:
		put := s.putResponse((*clientv3.PutResponse)(r.ResponsePut))
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: (*pb.PutResponse)(put)}}
	case *pb.ResponseOp_ResponseDeleteRange:
		del := s.deleteResponse((*clientv3.DeleteResponse)(r.ResponseDeleteRange))
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{
			ResponseDeleteRange: (*pb.DeleteRangeResponse)(del),
		}}
	case *pb.ResponseOp_ResponseTxn:
		txn := s.txnResponse((*clientv3.TxnResponse)(r.ResponseTxn))
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: (*pb.TxnResponse)(txn)}}
	default:
		return op
	}
}

// slabSize bounds how many key-value pairs are allocated together, and so how much a caller keeps alive who keeps one.
const slabSize = 64

func (s space) kvs(kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	if kvs == nil {
		return nil
	}
	translated := make([]*mvccpb.KeyValue, 0, len(kvs))
	for chunk := range slices.Chunk(kvs, slabSize) {
		slab := make([]mvccpb.KeyValue, len(chunk))
		for i, kv := range chunk {
			s.fill(&slab[i], kv)
			translated = append(translated, &slab[i])
		}
	}
	return translated
}

func (s space) kv(kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	if kv == nil {
		return nil
	}
	translated := &mvccpb.KeyValue{}
	s.fill(translated, kv)
	return translated
}

func (s space) fill(dst, src *mvccpb.KeyValue) {
	dst.Key = s.own(src.GetKey())
	dst.Value = src.GetValue()
	dst.CreateRevision = src.GetCreateRevision()
	dst.ModRevision = src.GetModRevision()
	dst.Version = src.GetVersion()
	dst.Lease = src.GetLease()
}

func (s space) events(events []*clientv3.Event) []*clientv3.Event {
	if events == nil {
		return nil
	}
	translated := make([]*clientv3.Event, len(events))
	for i, e := range events {
		translated[i] = &clientv3.Event{Type: e.GetType(), Kv: s.kv(e.GetKv()), PrevKv: s.kv(e.GetPrevKv())}
	}
	return translated
}
