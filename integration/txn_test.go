package integration

import (
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/integration/internal/servers"
)

func TestTxnComparisons(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		lease, err := e.Grant(e.ctx, 600)
		if err != nil {
			t.Fatal(err)
		}
		key, missing := e.prefix+"key", e.prefix+"missing"
		created := e.put(t, key, "a")
		modified := e.put(t, key, "b", clientv3.WithLease(lease.ID))

		for _, tt := range []struct {
			name                     string
			cmp                      clientv3.Cmp
			value                    any
			equal, unequal, gt, less bool
		}{
			{"value", clientv3.Value(key), "b", true, false, false, false},
			{"larger value", clientv3.Value(key), "a", false, true, true, false},
			{"smaller value", clientv3.Value(key), "c", false, true, false, true},
			{"version", clientv3.Version(key), 2, true, false, false, false},
			{"larger version", clientv3.Version(key), int64(1), false, true, true, false},
			{"created", clientv3.CreateRevision(key), created, true, false, false, false},
			{"created earlier", clientv3.CreateRevision(key), modified, false, true, false, true},
			{"modified", clientv3.ModRevision(key), modified, true, false, false, false},
			{"modified later", clientv3.ModRevision(key), created, false, true, true, false},
			{"lease", clientv3.LeaseValue(key), lease.ID, true, false, false, false},
			{"some lease", clientv3.LeaseValue(key), 0, false, true, true, false},
			{"value of none", clientv3.Value(missing), "", false, false, false, false},
			{"version of none", clientv3.Version(missing), 0, true, false, false, false},
			{"creation of none", clientv3.CreateRevision(missing), 0, true, false, false, false},
			{"modification of none", clientv3.ModRevision(missing), 1, false, true, false, true},
			{"lease of none", clientv3.LeaseValue(missing), 0, true, false, false, false},
		} {
			for result, want := range map[string]bool{"=": tt.equal, "!=": tt.unequal, ">": tt.gt, "<": tt.less} {
				// A transaction that reads no key is answered by any member from what it has.
				resp, err := e.Txn(e.ctx).
					If(clientv3.Compare(tt.cmp, result, tt.value)).
					Then(clientv3.OpGet(key)).
					Else(clientv3.OpGet(key)).
					Commit()
				if err != nil || resp.Succeeded != want {
					t.Errorf("%s %s %v: %v, %v; want %t", tt.name, result, tt.value, resp, err, want)
				}
			}
		}
	})
}

func TestTxnComparisonsOfRanges(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		for _, k := range []string{"a", "b", "c"} {
			e.put(t, e.prefix+k, "same")
		}
		e.put(t, e.prefix+"d", "other")
		for _, tt := range []struct {
			name string
			cmp  clientv3.Cmp
			want bool
		}{
			{"range", clientv3.Value(e.prefix + "a").WithRange(e.prefix + "d"), true},
			{"longer range", clientv3.Value(e.prefix + "a").WithRange(e.prefix + "e"), false},
			{"prefix", clientv3.Value(e.prefix + "b").WithPrefix(), true},
			{"shorter prefix", clientv3.Value(e.prefix).WithPrefix(), false},
		} {
			get := clientv3.OpGet(e.prefix, clientv3.WithCountOnly())
			resp, err := e.Txn(e.ctx).If(clientv3.Compare(tt.cmp, "=", "same")).Then(get).Else(get).Commit()
			if err != nil || resp.Succeeded != tt.want {
				t.Errorf("%s: %v, %v; want %t", tt.name, resp, err, tt.want)
			}
		}
	})
}

func TestTxnBranches(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		key, other := e.prefix+"key", e.prefix+"other"
		e.put(t, other, "old")
		create := func(value string) (*clientv3.TxnResponse, error) {
			return e.Txn(e.ctx).
				If(clientv3.Compare(clientv3.Version(key), "=", 0), clientv3.Compare(clientv3.Value(other), "=", "old")).
				Then(clientv3.OpPut(key, value), clientv3.OpPut(other, value, clientv3.WithPrevKV())).
				Else(clientv3.OpGet(key), clientv3.OpGet(e.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())).
				Commit()
		}

		resp, err := create("new")
		if err != nil {
			t.Fatal(err)
		}
		checkHeader(t, resp.Header)
		if !resp.Succeeded || len(resp.Responses) != 2 {
			t.Fatalf("first: %v", resp)
		}
		if prev := resp.Responses[1].GetResponsePut().GetPrevKv(); string(prev.GetValue()) != "old" {
			t.Errorf("previous pair %v", prev)
		}
		both := e.get(t, e.prefix, clientv3.WithPrefix())
		if len(both.Kvs) != 2 || both.Kvs[0].ModRevision != resp.Header.Revision ||
			both.Kvs[1].ModRevision != resp.Header.Revision {
			t.Errorf("not written in the one revision %d: %v", resp.Header.Revision, both.Kvs)
		}

		resp, err = create("newer")
		if err != nil {
			t.Fatal(err)
		}
		if resp.Succeeded || len(resp.Responses) != 2 {
			t.Fatalf("second: %v", resp)
		}
		if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) != 1 || string(kvs[0].Value) != "new" {
			t.Errorf("read %v", kvs)
		}
		if n := resp.Responses[1].GetResponseRange().GetCount(); n != 2 {
			t.Errorf("counted %d keys, want 2", n)
		}
	})
}

func TestTxnNested(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		a, b, c := e.prefix+"a", e.prefix+"b", e.prefix+"c"
		inner := clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.Value(a), "=", "1")},
			[]clientv3.Op{clientv3.OpPut(b, "inner"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut(c, "innermost")}, nil)},
			[]clientv3.Op{clientv3.OpDelete(b)})
		resp, err := e.Txn(e.ctx).
			If(clientv3.Compare(clientv3.Version(a), "=", 0)).
			Then(clientv3.OpPut(a, "1"), inner).
			Commit()
		if err != nil || !resp.Succeeded || len(resp.Responses) != 2 {
			t.Fatalf("%v, %v", resp, err)
		}
		// The comparisons of all levels are made before the first operation.
		nested := resp.Responses[1].GetResponseTxn()
		if nested == nil || nested.Succeeded || nested.Responses[0].GetResponseDeleteRange() == nil {
			t.Fatalf("nested response %v", nested)
		}

		got, err := e.Do(e.ctx, inner)
		if err != nil {
			t.Fatal(err)
		}
		nested = got.Txn().Responses[1].GetResponseTxn()
		if !got.Txn().Succeeded || nested == nil || !nested.Succeeded || nested.Responses[0].GetResponsePut() == nil {
			t.Errorf("%v", got.Txn())
		}
		if s := show(e.get(t, e.prefix, clientv3.WithPrefix()), e.prefix); s != "a=1 b=inner c=innermost" {
			t.Errorf("the store has %q", s)
		}
	})
}

func TestTxnDegenerate(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		if resp, err := e.Txn(e.ctx).Commit(); err != nil || !resp.Succeeded || len(resp.Responses) != 0 {
			t.Errorf("empty: %v, %v", resp, err)
		}
		resp, err := e.Txn(e.ctx).If(clientv3.Compare(clientv3.Version(e.prefix), ">", 0)).Commit()
		if err != nil || resp.Succeeded {
			t.Errorf("without branches: %v, %v", resp, err)
		}
		twice := e.Txn(e.ctx).Then(clientv3.OpPut(e.prefix+"key", "v"))
		for version := int64(1); version <= 2; version++ {
			if _, err := twice.Commit(); err != nil {
				t.Fatal(err)
			}
			if got := e.get(t, e.prefix+"key").Kvs[0].Version; got != version {
				t.Errorf("version %d after commit %d", got, version)
			}
		}
	})
}

// One bad operation fails a transaction as a whole.
func TestTxnIsAllOrNothing(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		a, b := e.prefix+"a", e.prefix+"b"
		for _, tt := range []struct {
			name string
			ops  []clientv3.Op
			want error
		}{
			{"unknown lease", []clientv3.Op{clientv3.OpPut(a, "v"), clientv3.OpPut(b, "v", clientv3.WithLease(12345))},
				rpctypes.ErrLeaseNotFound},
			{"written twice", []clientv3.Op{clientv3.OpPut(a, "v"), clientv3.OpPut(a, "w")}, rpctypes.ErrDuplicateKey},
			{"written and deleted", []clientv3.Op{clientv3.OpPut(a, "v"), clientv3.OpDelete(e.prefix, clientv3.WithPrefix())},
				rpctypes.ErrDuplicateKey},
			{"no key", []clientv3.Op{clientv3.OpPut(a, "v"), clientv3.OpGet("")}, rpctypes.ErrEmptyKey},
			{"no value to keep", []clientv3.Op{clientv3.OpPut(a, "v"), clientv3.OpPut(b, "", clientv3.WithIgnoreValue())},
				rpctypes.ErrKeyNotFound},
		} {
			if _, err := e.Txn(e.ctx).Then(tt.ops...).Commit(); err != tt.want || clientv3.MayHaveApplied(err) {
				t.Errorf("%s: %v, want %v, which says that nothing was applied", tt.name, err, tt.want)
			}
		}
		if got := e.get(t, e.prefix, clientv3.WithPrefix()); len(got.Kvs) != 0 {
			t.Errorf("written all the same: %v", got.Kvs)
		}
	})
}

func TestTxnWithReadOfNoRevision(t *testing.T) {
	servers.Need(t, servers.FailedTxnChangesNothing) // and the members would differ for all tests that follow
	onEach(t, func(t *testing.T, e *env) {
		a, b := e.prefix+"a", e.prefix+"b"
		_, err := e.Txn(e.ctx).Then(clientv3.OpPut(a, "v"), clientv3.OpGet(b, clientv3.WithRev(1<<40))).Commit()
		if err != rpctypes.ErrFutureRev || clientv3.MayHaveApplied(err) {
			t.Errorf("%v, want %v, which says that nothing was applied", err, rpctypes.ErrFutureRev)
		}
		e.catchUp(t)
		if got := e.get(t, a, clientv3.WithSerializable()); len(got.Kvs) != 0 {
			t.Errorf("written all the same: %v", got.Kvs)
		}
	})
}
