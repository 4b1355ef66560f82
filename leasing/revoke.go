package leasing

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"golang.org/x/sync/errgroup"

	"github.com/seed-d18e112a/clientv3"
)

// maxRevoking bounds how many keys are asked for at the same time.
const maxRevoking = 16

// revoke makes the owners of leasing keys give them up, and returns when they have; or when it looks as if they have, or
// something has changed, since the caller tries again anyway.
func (kv *leasingKV) revoke(ctx context.Context, held []*mvccpb.KeyValue) error {
	own := int64(kv.cache.leaseID())
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxRevoking)
	for _, leasing := range held {
		group.Go(func() error {
			if own != 0 && leasing.Lease == own {
				key := kv.names.key(leasing.Key)
				kv.cache.lose(key, leasing.ModRevision+1)
				return kv.release(ctx, key, leasing.CreateRevision)
			}
			return kv.ask(ctx, leasing)
		})
	}
	return group.Wait()
}

// ask asks the owner of a leasing key to give it up, and returns when it is gone: deleted by its owner, or with its
// owner's lease.
func (kv *leasingKV) ask(ctx context.Context, leasing *mvccpb.KeyValue) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key := string(leasing.Key)
	// The watch is there before the owner is asked: from then on it sees everything, and at once. One from a revision
	// in the past would be served by the server's next round of catching up, up to 100 ms later.
	watch := kv.client.Watch(clientv3.WithRequireLeader(ctx), key)
	op := clientv3.OpGet(key)
	if string(leasing.Value) != revokeValue {
		op = clientv3.OpPut(key, revokeValue, clientv3.WithIgnoreLease())
	}
	resp, err := kv.KV.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", leasing.ModRevision)).
		Then(op).
		Commit()
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return nil // it has changed: gone, or asked for by somebody else
	}
	for resp := range watch {
		if resp.Err() != nil {
			break
		}
		for _, ev := range resp.Events {
			if ev.Type == clientv3.EventTypeDelete {
				return nil
			}
		}
	}
	return pause(ctx, minRetry) // look again
}

// release gives up the ownership of a key, if it is the one that began in the revision.
func (kv *leasingKV) release(ctx context.Context, key string, owned int64) error {
	leasing := kv.names.leasing(key)
	_, err := kv.KV.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(leasing), "=", owned)).
		Then(clientv3.OpDelete(leasing)).
		Commit()
	return err
}

// Attempts that have to succeed in the end follow each other after a wait that doubles.
const (
	minRetry = 20 * time.Millisecond
	maxRetry = 2 * time.Second
)

// releaseLater gives up the ownership of a key in the background, however often it takes, as long as the lease that it
// is attached to is the present one.
func (kv *leasingKV) releaseLater(key string, owned int64) {
	lease := kv.cache.leaseID()
	if lease == clientv3.NoLease {
		return // it goes with the lease
	}
	kv.spawn(func() {
		for wait := minRetry; kv.cache.leaseID() == lease; wait = min(2*wait, maxRetry) {
			if kv.release(kv.ctx, key, owned) == nil || pause(kv.ctx, wait) != nil {
				return
			}
		}
	})
}

// pause waits, or returns the error of the context if that ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
