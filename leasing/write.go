package leasing

import (
	"context"
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
)

// write carries out a transaction under the condition that nobody else owns what it may write, once that is so.
func (kv *leasingKV) write(ctx context.Context, cmps []clientv3.Cmp, thenOps, elseOps []clientv3.Op,
) (*clientv3.TxnResponse, error) {
	w := &guardedTxn{kv: kv, cmps: cmps, thenOps: thenOps, elseOps: elseOps}
	w.writes.add(thenOps)
	if len(cmps) > 0 {
		w.writes.add(elseOps)
	}
	for {
		resp, held, err := w.try(ctx)
		if err != nil {
			return nil, err
		}
		if resp != nil {
			return resp, nil
		}
		if err := kv.revoke(ctx, held); err != nil {
			return nil, err
		}
	}
}

// guardedTxn is a transaction that is tried until its guards hold.
type guardedTxn struct {
	kv               *leasingKV
	cmps             []clientv3.Cmp
	thenOps, elseOps []clientv3.Op
	writes           writes
	blind            bool // own keys are given up, and not read again after they were written
}

// try carries out the transaction if its guards hold. Else it returns the leasing keys that are in the way, if any, for
// another try when they are gone.
func (w *guardedTxn) try(ctx context.Context) (*clientv3.TxnResponse, []*mvccpb.KeyValue, error) {
	kv := w.kv
	own := kv.cache.beginWrite(w.writes.keys)
	guards, looks := w.guards(own)
	body := w.body()
	refreshed := w.refreshed(own)
	for _, key := range refreshed {
		body = append(body, clientv3.OpGet(key))
	}
	resp, err := kv.KV.Txn(ctx).If(guards...).Then(body...).Else(looks...).Commit()
	if errors.Is(err, rpctypes.ErrTooManyOps) && len(refreshed) > 0 {
		w.endWrite(own, func(*entry) bool { return true })
		w.blind = true
		return nil, nil, nil
	}
	if err != nil {
		// A write that may yet be made is under the condition that the ownership is this one. So that ends.
		w.endWrite(own, func(*entry) bool { return !clientv3.MayHaveApplied(err) })
		return nil, nil, err
	}
	if !resp.Succeeded {
		held := w.held(own, resp)
		return nil, held, nil
	}
	results := resp.Responses[:len(body)-len(refreshed)]
	now := make(map[string]*mvccpb.KeyValue, len(refreshed))
	for i, key := range refreshed {
		now[key] = first(resp.Responses[len(results)+i].GetResponseRange().GetKvs())
	}
	w.endWrite(own, func(e *entry) bool {
		current, known := now[e.key]
		return known && kv.cache.learnLocked(e, resp.Header, resp.Header.GetRevision(), current)
	})
	return w.unwrap(resp.Header, results), nil, nil
}

// guards returns the comparisons that nobody else owns what is written, and the gets of the leasing keys that may be in
// the way, in the order of keys and spans.
func (w *guardedTxn) guards(own map[string]*entry) (guards []clientv3.Cmp, looks []clientv3.Op) {
	names := w.kv.names
	for _, key := range w.writes.keys {
		owned := int64(0)
		if e := own[key]; e != nil {
			owned = e.owned
		}
		leasing := names.leasing(key)
		guards = append(guards, clientv3.Compare(clientv3.CreateRevision(leasing), "=", owned))
		looks = append(looks, clientv3.OpGet(leasing))
	}
	for _, s := range w.writes.spans {
		begin, end := names.leasing(s.begin), names.leasingEnd(s.end)
		guards = append(guards, clientv3.Compare(clientv3.CreateRevision(begin), "=", 0).WithRange(end))
		looks = append(looks, clientv3.OpGet(begin, clientv3.WithRange(end)))
	}
	return guards, looks
}

// body returns the operations to carry out if the guards hold. A transaction without comparisons needs no nesting.
func (w *guardedTxn) body() []clientv3.Op {
	if len(w.cmps) == 0 {
		return slices.Clone(w.thenOps)
	}
	return []clientv3.Op{clientv3.OpTxn(w.cmps, w.thenOps, w.elseOps)}
}

// refreshed returns the own keys to read again after they were written.
func (w *guardedTxn) refreshed(own map[string]*entry) []string {
	if w.blind {
		return nil
	}
	keys := make([]string, 0, len(own))
	for _, key := range w.writes.keys {
		if own[key] != nil {
			keys = append(keys, key)
		}
	}
	return keys
}

// unwrap returns the response as the transaction without guards has it.
func (w *guardedTxn) unwrap(header *pb.ResponseHeader, results []*pb.ResponseOp) *clientv3.TxnResponse {
	if len(w.cmps) == 0 {
		return &clientv3.TxnResponse{Header: header, Succeeded: true, Responses: results}
	}
	inner := results[0].GetResponseTxn()
	return &clientv3.TxnResponse{Header: header, Succeeded: inner.GetSucceeded(), Responses: inner.GetResponses()}
}

// held returns the leasing keys that were in the way, and takes out entries that turn out not to be owned.
func (w *guardedTxn) held(own map[string]*entry, resp *clientv3.TxnResponse) (held []*mvccpb.KeyValue) {
	lost := make(map[string]bool)
	for i, key := range w.writes.keys {
		leasing := first(resp.Responses[i].GetResponseRange().GetKvs())
		e := own[key]
		if e != nil {
			lost[key] = leasing.GetCreateRevision() != e.owned
		}
		if leasing != nil && (e == nil || lost[key]) {
			held = append(held, leasing)
		}
	}
	for _, span := range resp.Responses[len(w.writes.keys):] {
		held = append(held, span.GetResponseRange().GetKvs()...)
	}
	w.endWrite(own, func(e *entry) bool { return !lost[e.key] })
	return held
}

// endWrite ends the write for the entries, and gives up those that are not to be kept.
func (w *guardedTxn) endWrite(own map[string]*entry, keep func(*entry) bool) {
	c := &w.kv.cache
	var released []*entry
	c.mu.Lock()
	for _, e := range own {
		e.writers--
		if !keep(e) {
			c.remove(e)
			released = append(released, e)
		}
	}
	c.mu.Unlock()
	for _, e := range released {
		w.kv.releaseLater(e.key, e.owned)
	}
}
