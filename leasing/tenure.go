package leasing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
)

// tenure is a session and what is known of its lease. Everything that is owned stands on it, and goes with it.
type tenure struct {
	session *concurrency.Session
	lease   clientv3.LeaseID   // the session's
	cancel  context.CancelFunc // of the session's context
	ttl     time.Duration
	until   time.Time // when the lease may end, as of the first renewal
	rev     int64     // before anything was owned
}

// closeTimeout bounds the revoking of a lease. One that is not revoked runs out.
const closeTimeout = 5 * time.Second

// newTenure makes a session, on whose lease keys can be owned from then on.
func (kv *leasingKV) newTenure() (*tenure, error) {
	// The session outlives the KV's context, so that its lease can be revoked when that has ended. Until it is there
	// it does not.
	ctx, cancel := context.WithCancel(kv.client.Ctx())
	stop := context.AfterFunc(kv.ctx, cancel)
	defer stop()
	session, err := concurrency.NewSession(kv.client, append([]concurrency.SessionOption{concurrency.WithContext(ctx)},
		kv.opts...)...)
	if err != nil {
		cancel()
		return nil, err
	}
	t := &tenure{session: session, lease: session.Lease(), cancel: cancel}
	if err := t.prepare(kv); err != nil {
		t.close()
		return nil, err
	}
	kv.cache.begin(t.lease, t.until)
	return t, nil
}

func (t *tenure) prepare(kv *leasingKV) error {
	var err error
	if t.until, t.ttl, err = kv.renew(kv.ctx, t.lease); err != nil {
		return err
	}
	resp, err := kv.KV.Get(kv.ctx, kv.names.prefix, clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	t.rev = resp.Header.GetRevision()
	return nil
}

// close ends the session and revokes its lease.
func (t *tenure) close() {
	timer := time.AfterFunc(closeTimeout, t.cancel)
	defer timer.Stop()
	_ = t.session.Close() // a lease that cannot be revoked runs out
	t.cancel()
}

// renew renews a lease and returns until when it lives at least. That is reckoned from when the renewal was sent: the
// server counts from when it arrives, which is later. A tenth is taken off for clocks of different speed.
func (kv *leasingKV) renew(ctx context.Context, lease clientv3.LeaseID) (until time.Time, ttl time.Duration, err error) {
	sent := time.Now()
	resp, err := kv.client.KeepAliveOnce(ctx, lease)
	if err != nil {
		return time.Time{}, 0, err
	}
	ttl = time.Duration(resp.TTL) * time.Second
	return sent.Add(ttl - ttl/10), ttl, nil
}

// run keeps a tenure, and makes another when it is lost, until the KV is closed.
func (kv *leasingKV) run(t *tenure) {
	for {
		err := kv.serve(t)
		kv.cache.end()
		t.close()
		if kv.ctx.Err() != nil {
			return
		}
		kv.client.GetLogger().Warn("leasing: session lost, nothing is cached until there is another one",
			zap.String("prefix", kv.names.prefix), zap.Error(err))
		t = nil
		for wait := minRetry; t == nil; wait = min(2*wait, maxRetry) {
			if t, err = kv.newTenure(); err == nil {
				break
			}
			if pause(kv.ctx, wait) != nil {
				return
			}
		}
	}
}

var errSessionEnded = errors.New("leasing: the session has ended")

// serve watches the leasing keys, and keeps the lease, until something is wrong with either.
func (kv *leasingKV) serve(t *tenure) error {
	ctx, cancel := context.WithCancelCause(kv.ctx)
	renewing := make(chan struct{})
	go func() {
		defer close(renewing)
		cancel(kv.keepRenewed(ctx, t))
	}()
	defer func() {
		cancel(nil)
		<-renewing
	}()
	// A member that is cut off from its peers hears of no request to give up a key. Without requiring a leader the watch
	// would stay with it, while the lease is renewed through another one, and writers would wait without end.
	watch := kv.client.Watch(clientv3.WithRequireLeader(ctx), kv.names.prefix,
		clientv3.WithPrefix(), clientv3.WithRev(t.rev+1))
	for {
		select {
		case resp, open := <-watch:
			if !open {
				return context.Cause(ctx)
			}
			if err := resp.Err(); err != nil {
				return fmt.Errorf("leasing: watch of leasing keys: %w", err)
			}
			for _, ev := range resp.Events {
				kv.heed(t, ev)
			}
		case <-t.session.Done():
			return errSessionEnded
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// heed does what a change of a leasing key asks for.
func (kv *leasingKV) heed(t *tenure, ev *clientv3.Event) {
	key := kv.names.key(ev.Kv.Key)
	switch {
	case ev.Type == clientv3.EventTypeDelete:
		if kv.cache.lose(key, ev.Kv.ModRevision) {
			kv.doubtLease() // it was not us
		}
	case string(ev.Kv.Value) == revokeValue:
		// First nothing is answered from memory any more, then others may write. The key may be ours without our
		// knowing it, when the response to our acquiring it was lost.
		if kv.cache.lose(key, ev.Kv.ModRevision) || ev.Kv.Lease == int64(t.lease) {
			kv.releaseLater(key, ev.Kv.CreateRevision)
		}
	}
}

// doubtLease has the lease renewed at once, to see whether it is gone.
func (kv *leasingKV) doubtLease() {
	select {
	case kv.doubt <- struct{}{}:
	default:
	}
}

// keepRenewed renews the lease until it is gone or ctx ends. The session does so too, but does not tell from when on a
// renewal counts.
func (kv *leasingKV) keepRenewed(ctx context.Context, t *tenure) error {
	wait := t.ttl / 3
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-kv.doubt:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		renewCtx, cancel := context.WithTimeout(ctx, t.ttl/3)
		until, ttl, err := kv.renew(renewCtx, t.lease)
		cancel()
		switch {
		case err == nil:
			kv.cache.extend(until)
			wait = ttl / 3
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return err
		default:
			wait = t.ttl / 20 // what is cached is not used from until on, so there is no harm in going on
		}
	}
}
