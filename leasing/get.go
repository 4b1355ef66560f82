package leasing

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
)

// cacheable reports whether a get is one that an entry can answer: of a single key as it is now.
func cacheable(op clientv3.Op) bool {
	return len(op.KeyBytes()) > 0 && len(op.RangeBytes()) == 0 && op.Rev() == 0 && op.IsSortOptionValid()
}

func (kv *leasingKV) get(ctx context.Context, op clientv3.Op) (*clientv3.GetResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if cacheable(op) {
		resp, wanted, lease := kv.cache.read(op)
		if resp != nil {
			return resp, nil
		}
		if wanted != nil {
			return kv.acquire(ctx, op, wanted, lease)
		}
	}
	return kv.fetch(ctx, op)
}

// fetch reads from the cluster.
func (kv *leasingKV) fetch(ctx context.Context, op clientv3.Op) (*clientv3.GetResponse, error) {
	resp, err := kv.KV.Do(ctx, op)
	return resp.Get(), err
}

// acquire reads a key and takes ownership of it, if nobody has it and it is attached to no lease of its own.
func (kv *leasingKV) acquire(ctx context.Context, op clientv3.Op, e *entry, lease clientv3.LeaseID,
) (*clientv3.GetResponse, error) {
	leasing := kv.names.leasing(e.key)
	resp, err := kv.KV.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(leasing), "=", 0),
			clientv3.Compare(clientv3.LeaseValue(e.key), "=", 0)).
		Then(clientv3.OpGet(e.key), clientv3.OpPut(leasing, "", clientv3.WithLease(lease))).
		Else(op, clientv3.OpGet(leasing)).
		Commit()
	if err != nil {
		// If the leasing key was written all the same, nobody is bothered: it is given up when it is asked for. That
		// writing is refused, or has failed, is no reason why reading should.
		kv.cache.abandon(e)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			kv.doubtLease()
		}
		if ctx.Err() != nil {
			return nil, err
		}
		return kv.fetch(ctx, op)
	}
	got := resp.Responses[0].GetResponseRange()
	got.Header = resp.Header
	if !resp.Succeeded {
		kv.cache.abandon(e)
		for _, other := range resp.Responses[1].GetResponseRange().GetKvs() {
			if other.Lease == int64(lease) {
				kv.releaseLater(e.key, other.CreateRevision) // ours, and forgotten: a response that was lost
			}
		}
		return (*clientv3.GetResponse)(got), nil
	}
	owned := resp.Header.GetRevision()
	known := &entry{key: e.key, header: resp.Header, rev: owned, kv: first(got.Kvs)}
	if !kv.cache.grant(e, owned, resp.Header, known.kv, func() context.CancelFunc { return kv.follow(e, owned+1) }) {
		kv.releaseLater(e.key, owned)
	}
	if surplus := kv.cache.surplus(); surplus != nil {
		kv.releaseLater(surplus.key, surplus.owned)
	}
	return known.response(op), nil
}

func first(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// follow watches a key that is owned, from a revision on, for writes that are made past the leasing keys. It returns the
// function that ends the watch.
func (kv *leasingKV) follow(e *entry, from int64) context.CancelFunc {
	ctx, cancel := context.WithCancel(kv.ctx)
	kv.spawn(func() {
		defer cancel()
		for resp := range kv.client.Watch(clientv3.WithRequireLeader(ctx), e.key, clientv3.WithRev(from)) {
			if resp.Err() != nil || !kv.observe(e, resp.Header, resp.Events) {
				break
			}
		}
		if ctx.Err() == nil {
			// Without a watch it is not known what the key is.
			kv.cache.abandon(e)
			kv.releaseLater(e.key, e.owned)
		}
	})
	return cancel
}

// observe takes over changes of a key. It reports false if the key is not to be cached any more.
func (kv *leasingKV) observe(e *entry, header *pb.ResponseHeader, events []*clientv3.Event) bool {
	for _, ev := range events {
		now := ev.Kv
		if ev.Type == clientv3.EventTypeDelete {
			now = nil
		}
		if !kv.cache.learn(e, header, ev.Kv.ModRevision, now) {
			kv.releaseLater(e.key, e.owned)
			return false
		}
	}
	return true
}
