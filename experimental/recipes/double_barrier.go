package recipe

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"

	v3 "github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
)

// DoubleBarrier lets a number of processes begin together, when all have called Enter, and end together, when all have
// called Leave. One that dies counts as having left. It may be used again: those who enter while others still leave are
// not confused with them.
type DoubleBarrier struct {
	session *concurrency.Session
	key     string
	count   int

	mu    sync.Mutex   // held during Enter and Leave
	own   *EphemeralKV // while the process is in
	ready int64        // the revision in which it was said that all are in; those who came later wait for the next time
}

// NewDoubleBarrier returns the barrier with the key for count processes, of which the session's is one. It does nothing
// yet.
func NewDoubleBarrier(s *concurrency.Session, key string, count int) *DoubleBarrier {
	return &DoubleBarrier{session: s, key: key, count: count}
}

// Enter waits until count processes have called it. It returns ErrTooManyClients if there are as many without this one,
// and concurrency.ErrSessionExpired if the session ends meanwhile.
func (b *DoubleBarrier) Enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, cancel := bind(b.session)
	defer cancel()
	resp, err := b.session.Client().Get(ctx, b.prefix(), v3.WithPrefix(), v3.WithCountOnly())
	if err != nil {
		return err
	}
	if resp.Count >= int64(b.count) {
		return ErrTooManyClients
	}
	own, err := newEphemeralKV(ctx, b.session, b.key+"/waiters")
	if err != nil {
		return err
	}
	ready, err := b.enter(ctx, own)
	if err != nil {
		own.giveUp(err)
		return err
	}
	b.own, b.ready = own, ready
	return nil
}

// enter waits, with the process's own key in place. It returns the revision in which it was said that all are in.
func (b *DoubleBarrier) enter(ctx context.Context, own *EphemeralKV) (ready int64, err error) {
	client := b.session.Client()
	err = until(ctx, client, func(ctx context.Context) (int64, []change, error) {
		resp, err := client.Txn(ctx).
			If(own.own()).
			Then(v3.OpGet(b.readyKey()), v3.OpGet(b.prefix(), v3.WithPrefix(), v3.WithKeysOnly())).
			Commit()
		if err != nil {
			return 0, nil, err
		}
		if !resp.Succeeded {
			return 0, nil, concurrency.ErrSessionExpired
		}
		if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			ready = kvs[0].ModRevision
		}
		if ready > own.created {
			return 0, nil, nil
		}
		// A word of before is for others, who are still to leave.
		there := cameIn(resp.Responses[1].GetResponseRange().Kvs, ready, math.MaxInt64)
		switch i := slices.IndexFunc(there, own.is); {
		case i >= b.count: // others have come at the same time, and first
			return 0, nil, ErrTooManyClients
		case i == b.count-1: // this one was waited for
			resp, err := client.Put(ctx, b.readyKey(), "")
			if err != nil {
				return 0, nil, err
			}
			ready = resp.Header.Revision
			return 0, nil, nil
		}
		return resp.Header.Revision, []change{putOf(b.readyKey()), deletionOf(own.key)}, nil
	})
	return ready, err
}

// Leave waits until all processes that have entered have called it, or are gone. It does nothing if this one has not
// entered.
func (b *DoubleBarrier) Leave() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.own == nil {
		return nil
	}
	if err := b.leave(b.own, b.ready); err != nil {
		return err
	}
	b.own = nil
	return nil
}

// leave waits for the others, and deletes the process's own key when it is its turn.
func (b *DoubleBarrier) leave(own *EphemeralKV, ready int64) error {
	client := b.session.Client()
	ctx := client.Ctx() // the end of the session does not hold it up
	return until(ctx, client, func(ctx context.Context) (int64, []change, error) {
		resp, err := client.Get(ctx, b.prefix(), v3.WithPrefix(), v3.WithKeysOnly())
		if err != nil {
			return 0, nil, err
		}
		there := cameIn(resp.Kvs, 0, ready)
		if len(there) == 0 {
			return 0, nil, nil
		}
		oldest, youngest := there[0], there[len(there)-1]
		if !own.is(oldest) {
			// The oldest one stays to the end, the others go at once.
			if slices.ContainsFunc(there, own.is) {
				if err := own.Delete(); err != nil {
					return 0, nil, err
				}
			}
			return resp.Header.Revision, []change{deletionOf(string(oldest.Key))}, nil
		}
		if len(there) > 1 {
			return resp.Header.Revision, []change{deletionOf(string(youngest.Key))}, nil
		}
		_, err = client.Txn(ctx).
			If(v3.Compare(v3.ModRevision(b.readyKey()), "=", ready)).
			Then(v3.OpDelete(b.readyKey()), v3.OpDelete(own.key)).
			Else(v3.OpDelete(own.key)).
			Commit()
		return 0, nil, err
	})
}

func (b *DoubleBarrier) readyKey() string { return b.key + "/ready" }

func (b *DoubleBarrier) prefix() string { return b.key + "/waiters/" }

// cameIn returns the keys that were created between two revisions, the oldest one first.
func cameIn(kvs []*mvccpb.KeyValue, after, before int64) []*mvccpb.KeyValue {
	kvs = slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool {
		return kv.CreateRevision <= after || kv.CreateRevision >= before
	})
	slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	return kvs
}
