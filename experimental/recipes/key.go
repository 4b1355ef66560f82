package recipe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	v3 "github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
)

var (
	// ErrKeyExists is what Barrier.Hold returns when somebody holds the barrier already.
	ErrKeyExists = errors.New("key already exists")
	// ErrWaitMismatch is never returned. It is here because it is in the official client.
	ErrWaitMismatch = errors.New("unexpected wait result")
	// ErrTooManyClients is what DoubleBarrier.Enter returns when there are as many as the barrier is for.
	ErrTooManyClients = errors.New("too many clients")
	// ErrNoWatcher is what WaitEvents and WaitPrefixEvents return when the watch ends and does not say why.
	ErrNoWatcher = errors.New("no watcher channel")
)

// RemoteKV is a key that a recipe has made, and what was last written to it. The zero value stands for none.
type RemoteKV struct {
	client  *v3.Client
	key     string
	lease   v3.LeaseID
	created int64 // the create revision

	mu  sync.Mutex // guards what follows
	rev int64
	val string
}

// EphemeralKV is a RemoteKV that is attached to the lease of a session, and goes with it.
type EphemeralKV struct{ RemoteKV }

// Key returns the key.
func (rk *RemoteKV) Key() string { return rk.key }

// Revision returns the revision in which the key was last written by this RemoteKV.
func (rk *RemoteKV) Revision() int64 {
	rk.mu.Lock()
	defer rk.mu.Unlock()
	return rk.rev
}

// Value returns what was last written by this RemoteKV.
func (rk *RemoteKV) Value() string {
	rk.mu.Lock()
	defer rk.mu.Unlock()
	return rk.val
}

// Delete deletes the key. That it is gone already is no error.
func (rk *RemoteKV) Delete() error {
	if rk.client == nil {
		return nil
	}
	_, err := rk.client.Delete(rk.client.Ctx(), rk.key)
	return err
}

// Put writes the key. Its lease stays.
func (rk *RemoteKV) Put(val string) error {
	if rk.client == nil {
		return errors.New("recipe: there is no key")
	}
	resp, err := rk.client.Put(rk.client.Ctx(), rk.key, val, v3.WithLease(rk.lease))
	if err != nil {
		return err
	}
	rk.mu.Lock()
	defer rk.mu.Unlock()
	rk.rev, rk.val = resp.Header.Revision, val
	return nil
}

// giveUp deletes the key after err. When the session has expired it goes with the lease, and the cluster may be out of
// reach.
func (kv *EphemeralKV) giveUp(err error) {
	if !errors.Is(err, concurrency.ErrSessionExpired) {
		_ = kv.Delete()
	}
}

// own returns the comparison that holds while the key is there as it was created.
func (rk *RemoteKV) own() v3.Cmp { return v3.Compare(v3.CreateRevision(rk.key), "=", rk.created) }

// is reports whether kv is the key as it was created.
func (rk *RemoteKV) is(kv *mvccpb.KeyValue) bool {
	return string(kv.Key) == rk.key && kv.CreateRevision == rk.created
}

// newKV writes a key, unless it is there, and reports whether it has.
func newKV(client *v3.Client, key, val string) (bool, error) {
	absent := v3.Compare(v3.Version(key), "=", 0)
	resp, err := client.Txn(client.Ctx()).If(absent).Then(v3.OpPut(key, val)).Commit()
	if err != nil {
		return false, err
	}
	return resp.Succeeded, nil
}

// uniqueKey returns a key under the prefix that is not there, or so it is to be hoped.
func uniqueKey(prefix string) string { return fmt.Sprintf("%s/%d", prefix, time.Now().UnixNano()) }

// newEphemeralKV makes a new key under the prefix that is attached to the session's lease. If it is not known whether
// the key was made, it is made once more, and is taken for the one of the first attempt if it is there with that lease.
// Without such an attempt it is another's, who had the same name in mind.
func newEphemeralKV(ctx context.Context, s *concurrency.Session, prefix string) (*EphemeralKV, error) {
	key, unsure := uniqueKey(prefix), false
	for attempt := 0; ; attempt++ {
		resp, err := s.Client().Txn(ctx).
			If(v3.Compare(v3.Version(key), "=", 0)).
			Then(v3.OpPut(key, "", v3.WithLease(s.Lease()))).
			Else(v3.OpGet(key)).
			Commit()
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil, fmt.Errorf("%w: %w", concurrency.ErrSessionExpired, err)
		}
		if err != nil {
			unsure = unsure || v3.MayHaveApplied(err)
			if err := again(ctx, err, attempt); err != nil {
				return nil, err
			}
			continue
		}
		kv := &EphemeralKV{RemoteKV{client: s.Client(), key: key, lease: s.Lease(), created: resp.Header.Revision}}
		if !resp.Succeeded {
			found := resp.Responses[0].GetResponseRange().Kvs[0]
			if !unsure || found.Lease != int64(s.Lease()) {
				key, unsure = uniqueKey(prefix), false
				continue
			}
			kv.created = found.CreateRevision
		}
		kv.rev = kv.created
		return kv, nil
	}
}
