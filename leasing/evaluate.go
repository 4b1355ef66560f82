package leasing

import (
	"bytes"
	"cmp"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/seed-d18e112a/clientv3"
)

// evaluate carries out a transaction in memory, as the cluster would, if that takes nothing but keys that can be
// answered from memory. Else it returns nil.
func (c *cache) evaluate(cmps []clientv3.Cmp, thenOps, elseOps []clientv3.Op) *clientv3.TxnResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := evaluation{cache: c}
	resp, ok := v.txn(cmps, thenOps, elseOps)
	if !ok || v.latest == nil {
		return nil
	}
	resp.Header = v.latest.response(clientv3.Op{}).Header
	return (*clientv3.TxnResponse)(resp)
}

// evaluation is of one transaction, with the cache's lock held: all entries are what the keys are at one moment.
type evaluation struct {
	cache  *cache
	latest *entry // with the greatest revision of those used
}

func (v *evaluation) use(key []byte) *entry {
	e := v.cache.usable(string(key))
	if e != nil && (v.latest == nil || e.rev > v.latest.rev) {
		v.latest = e
	}
	return e
}

func (v *evaluation) txn(cmps []clientv3.Cmp, thenOps, elseOps []clientv3.Op) (*pb.TxnResponse, bool) {
	resp := &pb.TxnResponse{Succeeded: true}
	for i := range cmps {
		holds, ok := v.holds(cmps[i].GetCompare())
		if !ok {
			return nil, false
		}
		resp.Succeeded = resp.Succeeded && holds
	}
	ops := thenOps
	if !resp.Succeeded {
		ops = elseOps
	}
	for _, op := range ops {
		result, ok := v.op(op)
		if !ok {
			return nil, false
		}
		resp.Responses = append(resp.Responses, result)
	}
	return resp, true
}

func (v *evaluation) op(op clientv3.Op) (*pb.ResponseOp, bool) {
	if op.IsTxn() {
		resp, ok := v.txn(op.Txn())
		if !ok {
			return nil, false
		}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}, true
	}
	if !op.IsGet() || !cacheable(op) {
		return nil, false
	}
	e := v.use(op.KeyBytes())
	if e == nil {
		return nil, false
	}
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{
		ResponseRange: (*pb.RangeResponse)(e.response(op)),
	}}, true
}

// holds evaluates a comparison as the server does. A key that does not exist has no value to compare, and is otherwise
// compared as one whose properties are all 0.
func (v *evaluation) holds(c *pb.Compare) (holds, ok bool) {
	if len(c.RangeEnd) > 0 || len(c.Key) == 0 {
		return false, false
	}
	e := v.use(c.Key)
	if e == nil {
		return false, false
	}
	kv := e.kv
	if kv == nil {
		if c.Target == pb.Compare_VALUE {
			return false, true
		}
		kv = &mvccpb.KeyValue{}
	}
	var order int
	switch c.Target {
	case pb.Compare_VALUE:
		order = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_VERSION:
		order = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_CREATE:
		order = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		order = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_LEASE:
		order = cmp.Compare(kv.Lease, c.GetLease())
	default:
		return false, false
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0, true
	case pb.Compare_NOT_EQUAL:
		return order != 0, true
	case pb.Compare_GREATER:
		return order > 0, true
	case pb.Compare_LESS:
		return order < 0, true
	default:
		return false, false
	}
}
