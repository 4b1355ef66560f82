package concurrency

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	v3 "github.com/seed-d18e112a/clientv3"
)

// tenure is what a Mutex holds its lock by, and an Election its leadership: a claim that waits or has won. The zero
// value has none.
type tenure struct {
	mu     sync.Mutex
	claim  *claim
	held   bool  // the claim has won
	over   bool  // there was a claim
	last   int64 // the revision of the last one, 0 if it had none
	header *pb.ResponseHeader
}

// noKey is a key that is never there. Comparisons must have one.
const noKey = "\x00"

// get returns the claim, or nil, and whether it has won.
func (t *tenure) get() (c *claim, held bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.claim, t.held
}

// pend takes note of a claim that is in the queue. One that shares the key of the claim that has won stays behind it.
func (t *tenure) pend(c *claim) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.shares(c) {
		t.claim, t.held = c, false
	}
}

// shares reports whether c has the key that there is a claim to already.
func (t *tenure) shares(c *claim) bool {
	return t.claim != nil && t.claim != c && t.claim.ctx.Err() == nil && t.claim.revision() == c.revision()
}

// settle takes note of how a claim has come out, and returns err. Of two claims to one key that have won the older one
// stays, since its context may be in use.
func (t *tenure) settle(c *claim, header *pb.ResponseHeader, err error) error {
	if err != nil {
		t.drop(c)
		c.session.abandon(c)
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header = header
	older, held := t.claim, t.held
	if held && t.shares(c) {
		c.session.handOver(c, older)
		return nil
	}
	t.claim, t.held = c, true
	if held && older != c {
		c.session.leave(older) // its key is gone, or c would have found it
		older.end(older.errs.lost)
	}
	return nil
}

// drop forgets the claim.
func (t *tenure) drop(c *claim) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.claim == c {
		t.claim, t.held, t.last = nil, false, c.revision()
	}
}

// isOver reports whether there was a claim that is over.
func (t *tenure) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// lastRev returns the revision of the last claim that is over, or 0 if there was none that had one.
func (t *tenure) lastRev() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// rev returns the create revision of the key while the claim has won, or 0.
func (t *tenure) rev() int64 {
	if c, held := t.get(); held {
		return c.revision()
	}
	return 0
}

// owned is a comparison that holds while the claim has won and its key is there.
func (t *tenure) owned() v3.Cmp {
	if c, held := t.get(); held {
		return c.owned()
	}
	return v3.Compare(v3.CreateRevision(noKey), "=", -1) // no key was created in a negative revision
}

// context returns the context of the claim, if it has won, and sees to it that it ends as soon as the key does.
func (t *tenure) context(errs *claimErrors) context.Context {
	c, held := t.get()
	if !held {
		ctx, end := context.WithCancelCause(context.Background())
		end(errs.released)
		return ctx
	}
	c.guard()
	return c.ctx
}

// txn begins a transaction that depends on the claim.
func (t *tenure) txn(ctx context.Context, client *v3.Client, errs *claimErrors) v3.Txn {
	txn := &guardedTxn{Txn: client.Txn(ctx), ctx: ctx, client: client, errs: errs}
	if c, held := t.get(); held {
		txn.claim = c
	}
	return txn
}

// lastHeader returns the header of the last call that had a success.
func (t *tenure) lastHeader() *pb.ResponseHeader {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.header
}

func (t *tenure) setHeader(header *pb.ResponseHeader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header = header
}

// guardedTxn is a transaction that depends on a claim. It is the inner one of two: the outer one has the claim's
// comparison only, so that whether the claim held and which branch was taken are two things.
type guardedTxn struct {
	v3.Txn // keeps the order of If, Then and Else

	ctx    context.Context // the transaction's, as that of every Txn
	client *v3.Client
	claim  *claim // nil: there was none
	errs   *claimErrors

	mu        sync.Mutex // guards what follows
	cmps      []v3.Cmp
	then      []v3.Op
	otherwise []v3.Op
}

func (t *guardedTxn) If(cs ...v3.Cmp) v3.Txn {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Txn.If(cs...)
	t.cmps = cs
	return t
}

func (t *guardedTxn) Then(ops ...v3.Op) v3.Txn {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Txn.Then(ops...)
	t.then = ops
	return t
}

func (t *guardedTxn) Else(ops ...v3.Op) v3.Txn {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Txn.Else(ops...)
	t.otherwise = ops
	return t
}

func (t *guardedTxn) Commit() (*v3.TxnResponse, error) {
	if t.claim == nil {
		return nil, t.errs.released
	}
	if t.claim.ctx.Err() != nil {
		return nil, context.Cause(t.claim.ctx)
	}
	t.mu.Lock()
	inner := v3.OpTxn(t.cmps, t.then, t.otherwise)
	t.mu.Unlock()
	resp, err := t.client.Txn(t.ctx).If(t.claim.owned()).Then(inner).Commit()
	if err != nil {
		return nil, err
	}
	if !resp.Succeeded {
		t.claim.keyGone()
		return nil, context.Cause(t.claim.ctx)
	}
	result := resp.Responses[0].GetResponseTxn()
	result.Header = resp.Header // that of an inner transaction has the revision only
	return (*v3.TxnResponse)(result), nil
}
