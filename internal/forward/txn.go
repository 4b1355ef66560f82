package forward

import "github.com/seed-d18e112a/clientv3"

// Commit carries out a transaction.
type Commit func(cmps []clientv3.Cmp, thenOps, elseOps []clientv3.Op) (*clientv3.TxnResponse, error)

// Txn returns a transaction that collects its parts and leaves the rest to commit. Stages is a new one of the KV below,
// which is never committed: it panics if the parts come in the wrong order. Not safe for concurrent use.
func Txn(stages clientv3.Txn, commit Commit) clientv3.Txn {
	return &txn{stages: stages, commit: commit}
}

type txn struct {
	stages           clientv3.Txn
	commit           Commit
	cmps             []clientv3.Cmp
	thenOps, elseOps []clientv3.Op
}

func (t *txn) If(cs ...clientv3.Cmp) clientv3.Txn {
	t.stages = t.stages.If(cs...)
	t.cmps = cs
	return t
}

func (t *txn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.stages = t.stages.Then(ops...)
	t.thenOps = ops
	return t
}

func (t *txn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.stages = t.stages.Else(ops...)
	t.elseOps = ops
	return t
}

func (t *txn) Commit() (*clientv3.TxnResponse, error) { return t.commit(t.cmps, t.thenOps, t.elseOps) }
