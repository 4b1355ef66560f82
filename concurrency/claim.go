package concurrency

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	v3 "github.com/seed-d18e112a/clientv3"
)

// claim is one Lock's or Campaign's claim to the first place under a prefix, by its session's key there. Claims of one
// session to one prefix share the key; places tells who answers for it.
//
// Every deletion is of the key as it was created in the claim's revision, so that none of a claim that is over ever
// meets a key that was created later.
type claim struct {
	session     *Session
	prefix, key string
	errs        *claimErrors

	// ctx ends when the key is known to be gone, deleted by whomever, or the session lost; the cause tells which.
	ctx context.Context // the key's lifetime
	end context.CancelCauseFunc

	// Guarded by session.mu.
	rev       int64 // the key's create revision; 0 while there is none, or it is not known
	made      bool  // the session is to delete the key: one of its claims has created it, or may have
	unsure    bool  // a request that creates the key may still be on its way, though it was given up
	releasing bool  // release was called
	guarded   bool  // guard was called
}

// claimErrors are the errors of claims, which locks and elections name differently.
type claimErrors struct {
	lost     error // the key was deleted, but not by its owner
	released error // there is no key, or its owner gave it up
}

// revision returns the key's create revision, or 0 while there is no key.
func (c *claim) revision() int64 {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return c.rev
}

// owned is the comparison that holds while the key is the claim's.
func (c *claim) owned() v3.Cmp {
	return v3.Compare(v3.CreateRevision(c.key), "=", c.revision())
}

// bind returns a context that ends with ctx and with the claim.
func (c *claim) bind(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// acquire writes the key and waits until it is the first of its prefix. It calls queued as soon as the key is
// there. The header is that of the response which showed the key in first place.
func (c *claim) acquire(ctx context.Context, val string, queued func()) (*pb.ResponseHeader, error) {
	bound, cancel := c.bind(ctx)
	defer cancel()
	header, first, err := c.enqueue(bound, val)
	if err == nil {
		queued()
		if !first {
			header, err = c.wait(bound)
		}
	}
	return header, c.outcome(ctx, err)
}

// tryAcquire writes the key if it is the first of its prefix then, and else leaves everything as it is.
func (c *claim) tryAcquire(ctx context.Context) (*pb.ResponseHeader, error) {
	bound, cancel := c.bind(ctx)
	defer cancel()
	free := v3.Compare(v3.CreateRevision(c.prefix).WithPrefix(), "=", 0)
	resp, err := c.request(bound, free, c.put(""), nil)
	if err != nil {
		return nil, c.outcome(ctx, err)
	}
	if !c.admit(resp) {
		return nil, ErrLocked
	}
	return resp.Header, c.outcome(ctx, nil)
}

// outcome turns the outcome of an attempt at the first place into what the caller gets. That the session is lost, or
// the key, counts before anything else, a success too: the response may have been on its way for longer than the lease
// lived.
func (c *claim) outcome(ctx context.Context, err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("%w: %w", ErrSessionExpired, err)
	}
	if lost := c.session.failure(); lost != nil {
		return lost
	}
	switch {
	case c.ctx.Err() == nil:
	case context.Cause(c.ctx) == c.errs.released: //nolint:errorlint // set as it is
		return c.errs.released
	case context.Cause(c.ctx) == c.errs.lost, //nolint:errorlint // set as it is
		errors.Is(context.Cause(c.ctx), ErrSessionExpired):
		return ErrSessionExpired // what the official client says of a waiter whose key is gone
	default:
		return fmt.Errorf("%w: %w", ErrSessionExpired, context.Cause(c.ctx))
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (c *claim) put(val string) v3.Op {
	return v3.OpPut(c.key, val, v3.WithLease(c.session.id))
}

// enqueue writes the key unless it is there, and in that case sees to its value. It reports whether the key is the
// first of its prefix. While the cluster cannot do it, it is tried again: it does no harm to have done it twice.
func (c *claim) enqueue(ctx context.Context, val string) (*pb.ResponseHeader, bool, error) {
	absent := v3.Compare(v3.CreateRevision(c.key), "=", 0)
	same := v3.Compare(v3.Value(c.key), "=", val)
	update := []v3.Op{v3.OpTxn([]v3.Cmp{same}, nil, []v3.Op{c.put(val)})}
	for attempt := 0; ; attempt++ {
		resp, err := c.request(ctx, absent, c.put(val), update)
		if err == nil {
			return resp.Header, c.admit(resp), nil
		}
		if !transient(err) {
			return nil, false, err
		}
		if err := pause(ctx, attempt); err != nil {
			return nil, false, err
		}
	}
}

// request makes the transaction that creates the key on a condition. Its last two responses are the session's key and
// the first one of the prefix.
func (c *claim) request(ctx context.Context, cond v3.Cmp, put v3.Op, otherwise []v3.Op) (*v3.TxnResponse, error) {
	own := v3.OpGet(c.key, v3.WithKeysOnly())
	first := v3.OpGet(c.prefix, append(v3.WithFirstCreate(), v3.WithKeysOnly())...)
	resp, err := c.session.client.Txn(ctx).
		If(cond).
		Then(put, own, first).
		Else(append(otherwise, own, first)...).
		Commit()
	switch {
	case err == nil:
	case v3.MayHaveApplied(err):
		c.session.mu.Lock()
		c.unsure = true
		c.session.mu.Unlock()
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		c.session.expire(err)
	}
	return resp, err
}

// admit takes over from a response of request what it says of the key, and reports whether it is the first one.
func (c *claim) admit(resp *v3.TxnResponse) bool {
	n := len(resp.Responses)
	own, first := resp.Responses[n-2].GetResponseRange().Kvs, resp.Responses[n-1].GetResponseRange().Kvs
	isFirst := len(own) == 1 && len(first) == 1 && string(first[0].Key) == c.key
	if len(own) == 0 {
		return false
	}
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	c.rev = own[0].CreateRevision
	// A key that was there may have been made by a request of this claim whose answer was lost.
	c.made = c.made || resp.Succeeded || c.unsure
	return isFirst
}

// wait returns when no key of the prefix is older. It waits for one key only, the next older one, so that the end of a
// lock wakes one waiter; and it follows its own key, without which there is nothing to wait for.
func (c *claim) wait(ctx context.Context) (*pb.ResponseHeader, error) {
	following := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		<-following
	}()
	go func() {
		defer close(following)
		c.follow(ctx, c.revision()+1)
	}()
	for attempt := 0; ; attempt++ {
		header, older, err := c.predecessor(ctx)
		if err == nil && older == "" {
			return header, nil
		}
		if err == nil {
			err = awaitDelete(ctx, c.session.client, older, header.Revision+1)
		}
		switch {
		case err == nil:
			attempt = -1
		case ctx.Err() != nil || !recoverable(err):
			return nil, err
		default:
			if err := pause(ctx, attempt); err != nil {
				return nil, err
			}
		}
	}
}

// predecessor returns the key before the claim's own in the queue, or "" if that is the first. That the own key is
// still there is seen in the same instant; if it is not, the claim ends.
func (c *claim) predecessor(ctx context.Context) (*pb.ResponseHeader, string, error) {
	older := append(v3.WithLastCreate(), v3.WithMaxCreateRev(c.revision()-1), v3.WithKeysOnly())
	resp, err := c.session.client.Txn(ctx).If(c.owned()).Then(v3.OpGet(c.prefix, older...)).Commit()
	if err != nil {
		return nil, "", err
	}
	if !resp.Succeeded {
		c.keyGone()
		return nil, "", c.errs.lost
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		return resp.Header, string(kvs[0].Key), nil
	}
	return resp.Header, "", nil
}

// keyGone ends the claim because its key is not there.
func (c *claim) keyGone() {
	c.session.mu.Lock()
	releasing := c.releasing
	c.session.mu.Unlock()
	if releasing {
		c.end(c.errs.released)
		return
	}
	c.end(c.errs.lost)
}

// follow watches the key from the revision on and ends the claim when it is deleted, or cannot be watched any more. It
// returns then, and when ctx ends.
func (c *claim) follow(ctx context.Context, rev int64) {
	ctx, cancel := c.bind(ctx)
	defer cancel()
	client := c.session.client
	for attempt := 0; ; attempt++ {
		err := awaitDelete(ctx, client, c.key, rev)
		switch {
		case err == nil:
			c.keyGone()
			return
		case ctx.Err() != nil:
			return
		case client.Ctx().Err() != nil:
			c.end(fmt.Errorf("%w: %w", c.errs.lost, client.Ctx().Err()))
			return
		case !recoverable(err):
			c.end(fmt.Errorf("%w: its key cannot be watched: %w", c.errs.lost, err))
			return
		}
		if pause(ctx, attempt) != nil {
			return
		}
		// The watch may have ended because its revision is compacted, and the key's end with it.
		resp, err := client.Txn(ctx).If(c.owned()).Commit()
		if err != nil {
			continue
		}
		if !resp.Succeeded {
			c.keyGone()
			return
		}
		rev, attempt = resp.Header.Revision+1, -1
	}
}

// guard makes the claim's context end when the key is deleted, or its lease runs out. Without a guard it does so only
// when something that is done with the claim shows it.
func (c *claim) guard() {
	c.session.mu.Lock()
	guarded, rev := c.guarded, c.rev
	c.guarded = true
	c.session.mu.Unlock()
	if guarded {
		return
	}
	c.session.spawn(func() { c.follow(c.ctx, rev+1) })
	stop := context.AfterFunc(c.session.ctx, func() { c.session.spawn(c.followLease) })
	context.AfterFunc(c.ctx, func() { stop() })
}

// followLease follows the lease of a session that does not renew it any more, and ends the claim when the lease is
// gone, or cannot be seen alive any more: cut off from the cluster, the watch of the key would not tell.
func (c *claim) followLease() {
	deadline, known := c.session.leaseDeadline()
	for c.ctx.Err() == nil {
		asked := time.Now()
		if !known {
			deadline = asked.Add(firstLeaseCheck)
		}
		ctx, cancel := context.WithDeadline(c.ctx, deadline)
		resp, err := c.session.client.TimeToLive(ctx, c.session.id)
		cancel()
		switch {
		case err == nil && resp.TTL < 0:
			c.session.expire(rpctypes.ErrLeaseNotFound)
		case err == nil:
			// The seconds left are rounded down, so this may be less than is known already.
			if left := asked.Add(time.Duration(resp.TTL) * time.Second); !known || left.After(deadline) {
				deadline, known = left, true
			}
		case known && !time.Now().Before(deadline):
			c.end(fmt.Errorf("%w: %w", ErrSessionExpired, errNotRenewed))
		}
		// Ask three times in the time that is left, as a renewal would.
		_ = sleep(c.ctx, max(time.Until(deadline)/3, minLeaseCheck))
	}
}

const (
	minLeaseCheck   = 100 * time.Millisecond // how often a lease that is about to end is looked at
	firstLeaseCheck = 3 * time.Second        // how long the first answer of a lease may take that nothing is known of
)

// release deletes the key. It is harmless to call it again when it has failed.
func (c *claim) release(ctx context.Context) (*pb.ResponseHeader, error) {
	c.session.mu.Lock()
	c.releasing = true
	c.session.mu.Unlock()
	resp, err := c.session.client.Txn(ctx).If(c.owned()).Then(v3.OpDelete(c.key)).Commit()
	if err != nil {
		return nil, err
	}
	c.session.leave(c)
	c.end(c.errs.released)
	return resp.Header, nil
}
