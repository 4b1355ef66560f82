package forward

import (
	"errors"
	"testing"

	"github.com/seed-d18e112a/clientv3"
)

// once is a transaction that panics if If is called again, as the client's does.
type once struct {
	clientv3.Txn
	called bool
}

func (o *once) If(...clientv3.Cmp) clientv3.Txn {
	if o.called {
		panic("cannot call If twice!")
	}
	o.called = true
	return o
}

func (o *once) Then(...clientv3.Op) clientv3.Txn { return o }

func (o *once) Else(...clientv3.Op) clientv3.Txn { return o }

func TestTxnCollectsItsParts(t *testing.T) {
	errRefused := errors.New("refused")
	cmp := clientv3.Compare(clientv3.Version("c"), "=", 1)
	txn := Txn(&once{}, func(cmps []clientv3.Cmp, thenOps, elseOps []clientv3.Op) (*clientv3.TxnResponse, error) {
		if len(cmps) != 1 || string(cmps[0].KeyBytes()) != "c" || len(thenOps) != 2 || string(thenOps[1].KeyBytes()) != "b" ||
			len(elseOps) != 1 || string(elseOps[0].KeyBytes()) != "d" {
			t.Errorf("%v, %v, %v", cmps, thenOps, elseOps)
		}
		return nil, errRefused
	})
	_, err := txn.If(cmp).Then(clientv3.OpGet("a"), clientv3.OpGet("b")).Else(clientv3.OpGet("d")).Commit()
	if !errors.Is(err, errRefused) {
		t.Error(err)
	}
}

func TestTxnIsAsStrictAsTheOneBelow(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a second If is taken")
		}
	}()
	Txn(&once{}, nil).If().If()
}
