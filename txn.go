package clientv3

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Txn is a transaction: if all comparisons of If hold, the operations of Then are carried out, else those of Else, in
// one step and one revision. Each of the three may be given once, in this order, and may be left out; an order that is
// not this one panics. No key may be written twice in a branch (rpctypes.ErrDuplicateKey).
//
//	resp, err := cli.Txn(ctx).
//		If(clientv3.Compare(clientv3.Version("key"), "=", 0)).
//		Then(clientv3.OpPut("key", "value")).
//		Else(clientv3.OpGet("key")).
//		Commit()
type Txn interface {
	// If sets the comparisons. Without any the transaction takes the branch of Then.
	If(cs ...Cmp) Txn
	// Then sets the operations to carry out if all comparisons hold.
	Then(ops ...Op) Txn
	// Else sets the operations to carry out if not all comparisons hold.
	Else(ops ...Op) Txn
	// Commit carries out the transaction. The response's Succeeded tells which branch was taken, and its Responses
	// are those of that branch's operations, in their order. A transaction that only reads is repeated on failure as
	// a read is, any other as a write.
	Commit() (*TxnResponse, error)
}

type txn struct {
	kv  *kv
	ctx context.Context

	mu    sync.Mutex // guards what follows
	stage txnStage
	req   pb.TxnRequest
}

// txnStage is how far a transaction has been put together.
type txnStage int

const (
	stageIf txnStage = iota + 1
	stageThen
	stageElse
)

func (s txnStage) String() string {
	return [...]string{"", "If", "Then", "Else"}[s]
}

// enter moves on to a stage. It panics if the transaction has been there, or beyond.
func (t *txn) enter(stage txnStage) {
	switch {
	case t.stage == stage:
		panic("cannot call " + stage.String() + " twice!")
	case t.stage > stage:
		panic("cannot call " + stage.String() + " after " + t.stage.String() + "!")
	}
	t.stage = stage
}

func (t *txn) If(cs ...Cmp) Txn {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.enter(stageIf)
	t.req.Compare = toCompares(cs)
	return t
}

func (t *txn) Then(ops ...Op) Txn {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.enter(stageThen)
	t.req.Success = toRequestOps(ops)
	return t
}

func (t *txn) Else(ops ...Op) Txn {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.enter(stageElse)
	t.req.Failure = toRequestOps(ops)
	return t
}

func (t *txn) Commit() (*TxnResponse, error) {
	t.mu.Lock()
	// A request of its own, since the transaction may be committed again while this one is on its way.
	req := &pb.TxnRequest{Compare: t.req.Compare, Success: t.req.Success, Failure: t.req.Failure}
	t.mu.Unlock()
	resp, err := t.kv.remote.Txn(t.ctx, req, t.kv.callOpts...)
	return (*TxnResponse)(resp), ContextError(t.ctx, err)
}
