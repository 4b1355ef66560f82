package leasing

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

// env is a test's cluster, leasing prefix and prefix of keys.
type env struct {
	*testing.T
	ctx             context.Context
	endpoints       []string
	plain           *clientv3.Client
	leasing, prefix string
}

func newEnv(t *testing.T) *env {
	t.Helper()
	// By far more than a test takes, even with the race detector on a busy machine.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return &env{
		T: t, ctx: ctx, endpoints: shared.Cluster(t).Endpoints(), plain: shared.Client(t),
		leasing: "leasing/" + shared.Prefix(t), prefix: shared.Prefix(t),
	}
}

func (e *env) join() *member {
	e.Helper()
	return join(e, e.leasing, e.endpoints)
}

func (e *env) get(kv clientv3.KV, key string) string {
	e.Helper()
	resp, err := kv.Get(e.ctx, key)
	if err != nil {
		e.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return "none"
	}
	return string(resp.Kvs[0].Value)
}

func (e *env) put(kv clientv3.KV, key, value string) {
	e.Helper()
	if _, err := kv.Put(e.ctx, key, value); err != nil {
		e.Fatal(err)
	}
}

func (e *env) expect(what, got, want string) {
	e.Helper()
	if got != want {
		e.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestWhatIsReadAgainIsAnsweredFromMemory(t *testing.T) {
	e := newEnv(t)
	m := e.join()
	for _, key := range []string{e.prefix + "there", e.prefix + "missing"} {
		want := "none"
		if key == e.prefix+"there" {
			want = "v"
			e.put(e.plain, key, want)
		}
		e.expect(key, e.get(m, key), want)
		calls := m.during(func() {
			for range 10 {
				e.expect(key, e.get(m, key), want)
			}
		})
		if calls != 0 {
			t.Errorf("%s: %d calls", key, calls)
		}
	}
}

// Whatever the owner does to its keys, the cache has it when the call returns.
func TestOwnWritesAreInTheCache(t *testing.T) {
	e := newEnv(t)
	m := e.join()
	key := e.prefix + "key"
	e.expect("before", e.get(m, key), "none")
	txn := func(cmps []clientv3.Cmp, thenOps, elseOps []clientv3.Op) func() (clientv3.OpResponse, error) {
		return func() (clientv3.OpResponse, error) {
			return m.Do(e.ctx, clientv3.OpTxn(cmps, thenOps, elseOps))
		}
	}
	do := func(op clientv3.Op) func() (clientv3.OpResponse, error) {
		return func() (clientv3.OpResponse, error) { return m.Do(e.ctx, op) }
	}
	never := []clientv3.Cmp{clientv3.Compare(clientv3.Version("\x00never"), ">", 0)}
	for _, step := range []struct {
		name  string
		write func() (clientv3.OpResponse, error)
		want  string
	}{
		{"put", do(clientv3.OpPut(key, "1")), "1"},
		{"put again", do(clientv3.OpPut(key, "2", clientv3.WithPrevKV())), "2"},
		{"put of the same value", do(clientv3.OpPut(key, "", clientv3.WithIgnoreValue())), "2"},
		{"delete", do(clientv3.OpDelete(key)), "none"},
		{"delete of nothing", do(clientv3.OpDelete(key)), "none"},
		{"transaction", txn(nil, []clientv3.Op{clientv3.OpPut(key, "3")}, nil), "3"},
		{"other branch", txn(never, nil, []clientv3.Op{clientv3.OpPut(key, "4")}), "4"},
		{"branch without writes", txn(never, []clientv3.Op{clientv3.OpPut(key, "x")}, nil), "4"},
		{"nested", txn(nil, []clientv3.Op{clientv3.OpTxn(never, nil, []clientv3.Op{clientv3.OpDelete(key)})}, nil), "none"},
	} {
		if _, err := step.write(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if calls := m.during(func() { e.expect(step.name, e.get(m, key), step.want) }); calls != 0 {
			t.Errorf("%s: %d calls to read it", step.name, calls)
		}
		e.expect(step.name+", in the cluster", e.get(e.plain, key), step.want)
	}
}

// The server takes 128 operations: comparisons and what follows counted each for itself. What the cache adds is left out
// when there are too many, so that whatever can be written without it can be written with it.
func TestLargeTransactionOfOwnKeys(t *testing.T) {
	const keys = 128
	e := newEnv(t)
	m := e.join()
	key := func(i int) string { return e.prefix + fmt.Sprint(i) }
	var puts []clientv3.Op
	for i := range keys {
		puts = append(puts, clientv3.OpPut(key(i), "new"))
		if i%2 == 0 {
			e.get(m, key(i))
		}
	}
	resp, err := m.Txn(e.ctx).Then(puts...).Commit()
	if err != nil || !resp.Succeeded || len(resp.Responses) != keys {
		t.Fatal(resp, err)
	}
	for i := range keys {
		e.expect(key(i), e.get(m, key(i)), "new")
	}
	resp, err = m.Txn(e.ctx).Then(append(puts, clientv3.OpPut(e.prefix, ""))...).Commit()
	if !errors.Is(err, rpctypes.ErrTooManyOps) {
		t.Errorf("one more than the server takes: %v, %v", resp, err)
	}
}

// A write of a key that another one owns is made once, gives the response of that write, and is seen by all at once.
func TestWriteOfAnothersKey(t *testing.T) {
	e := newEnv(t)
	owner, writer := e.join(), e.join()
	key := e.prefix + "key"
	own := func() {
		t.Helper()
		key = e.prefix + "key" + fmt.Sprint(shared.Prefix(t)) // a key that has not been revoked lately
		e.put(e.plain, key, "old")
		e.get(owner, key)
		if calls := owner.during(func() { e.get(owner, key) }); calls != 0 {
			t.Fatal("the key is not owned")
		}
	}

	own()
	put, err := writer.Put(e.ctx, key, "new", clientv3.WithPrevKV())
	if err != nil || string(put.PrevKv.GetValue()) != "old" || put.Header.GetMemberId() == 0 {
		t.Errorf("put: %v, %v", put, err)
	}
	resp, err := owner.Get(e.ctx, key)
	if err != nil || string(resp.Kvs[0].Value) != "new" || resp.Kvs[0].Version != 2 ||
		resp.Kvs[0].ModRevision != put.Header.Revision {
		t.Errorf("after the put: %v, %v", resp, err)
	}

	own()
	del, err := writer.Delete(e.ctx, key)
	if err != nil || del.Deleted != 1 {
		t.Errorf("deletion: %v, %v", del, err)
	}
	e.expect("after the deletion", e.get(owner, key), "none")

	own()
	txn, err := writer.Txn(e.ctx).
		If(clientv3.Compare(clientv3.Value(key), "=", "old")).
		Then(clientv3.OpPut(key, "newer"), clientv3.OpGet(key)).
		Else(clientv3.OpPut(key, "wrong")).
		Commit()
	if err != nil || !txn.Succeeded || len(txn.Responses) != 2 ||
		txn.Responses[1].GetResponseRange().GetKvs()[0].GetVersion() != 2 || txn.Header.GetMemberId() == 0 {
		t.Errorf("transaction: %v, %v", txn, err)
	}
	e.expect("after the transaction", e.get(owner, key), "newer")
}

// A range is deleted of which some keys are owned by the one who deletes it, some by another, and some by nobody.
func TestRangeIsDeletedWhoeverOwnsItsKeys(t *testing.T) {
	for name, remove := range map[string]func(*env, clientv3.KV) (int64, error){
		"delete": func(e *env, kv clientv3.KV) (int64, error) {
			resp, err := kv.Delete(e.ctx, e.prefix, clientv3.WithPrefix())
			if err != nil {
				return 0, err
			}
			return resp.Deleted, nil
		},
		"transaction": func(e *env, kv clientv3.KV) (int64, error) {
			resp, err := kv.Txn(e.ctx).
				If(clientv3.Compare(clientv3.Value(e.prefix+"0"), "=", "v")).
				Then(clientv3.OpDelete(e.prefix, clientv3.WithPrefix())).
				Commit()
			if err != nil || !resp.Succeeded {
				return 0, errors.Join(err, errors.New("not carried out"))
			}
			return resp.Responses[0].GetResponseDeleteRange().Deleted, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			a, b := e.join(), e.join()
			for i := range 9 {
				key := e.prefix + fmt.Sprint(i)
				e.put(e.plain, key, "v")
				if kv := [3]clientv3.KV{a, b, nil}[i%3]; kv != nil {
					e.get(kv, key)
				}
			}
			deleted, err := remove(e, a)
			if err != nil || deleted != 9 {
				t.Fatalf("%d keys deleted, %v", deleted, err)
			}
			for i := range 9 {
				e.expect("a", e.get(a, e.prefix+fmt.Sprint(i)), "none")
				e.expect("b", e.get(b, e.prefix+fmt.Sprint(i)), "none")
			}
		})
	}
}

// Reads that memory cannot answer, or must answer by what was asked for.
func TestReadsOfAnOwnedKeyAreAsTheClustersOwn(t *testing.T) {
	e := newEnv(t)
	m := e.join()
	key := e.prefix + "key"
	e.put(e.plain, key, "first")
	old, err := e.plain.Put(e.ctx, key, "second")
	if err != nil {
		t.Fatal(err)
	}
	e.put(e.plain, key, "third")
	rev := old.Header.Revision
	e.get(m, key)
	for name, tt := range map[string]struct {
		opts   []clientv3.OpOption
		memory bool
	}{
		"plain":              {nil, true},
		"serializable":       {[]clientv3.OpOption{clientv3.WithSerializable()}, true},
		"keys only":          {[]clientv3.OpOption{clientv3.WithKeysOnly()}, true},
		"count":              {[]clientv3.OpOption{clientv3.WithCountOnly()}, true},
		"limit":              {[]clientv3.OpOption{clientv3.WithLimit(1)}, true},
		"sorted":             {[]clientv3.OpOption{clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend)}, true},
		"min mod revision":   {[]clientv3.OpOption{clientv3.WithMinModRev(rev)}, true},
		"min mod, none":      {[]clientv3.OpOption{clientv3.WithMinModRev(rev + 9)}, true},
		"max mod, none":      {[]clientv3.OpOption{clientv3.WithMaxModRev(rev)}, true},
		"min create, none":   {[]clientv3.OpOption{clientv3.WithMinCreateRev(rev)}, true},
		"max create":         {[]clientv3.OpOption{clientv3.WithMaxCreateRev(rev)}, true},
		"max create, none":   {[]clientv3.OpOption{clientv3.WithMaxCreateRev(1)}, true},
		"at a revision":      {[]clientv3.OpOption{clientv3.WithRev(rev)}, false},
		"prefix":             {[]clientv3.OpOption{clientv3.WithPrefix()}, false},
		"range":              {[]clientv3.OpOption{clientv3.WithRange(key + "z")}, false},
		"at a future one":    {[]clientv3.OpOption{clientv3.WithRev(rev + 1000)}, false},
		"sorted by nonsense": {[]clientv3.OpOption{clientv3.WithSort(99, clientv3.SortDescend)}, false},
	} {
		var got *clientv3.GetResponse
		var gotErr error
		calls := m.during(func() { got, gotErr = m.Get(e.ctx, key, tt.opts...) })
		want, wantErr := e.plain.Get(e.ctx, key, tt.opts...)
		if tt.memory != (calls == 0) && name != "sorted by nonsense" {
			t.Errorf("%s: %d calls", name, calls)
		}
		if !errors.Is(gotErr, wantErr) {
			t.Errorf("%s: error %v, want %v", name, gotErr, wantErr)
		}
		if wantErr != nil {
			continue
		}
		got.Header, want.Header = nil, nil
		if !proto.Equal((*pb.RangeResponse)(got), (*pb.RangeResponse)(want)) {
			t.Errorf("%s:\ngot  %v\nwant %v", name, got, want)
		}
		stream, err := m.GetStream(e.ctx, key, tt.opts...)
		if err != nil {
			t.Fatal(err)
		}
		got, err = clientv3.GetStreamToGetResponse(stream)
		if err != nil {
			t.Fatal(err)
		}
		got.Header = nil
		if !proto.Equal((*pb.RangeResponse)(got), (*pb.RangeResponse)(want)) {
			t.Errorf("%s, streamed:\ngot  %v\nwant %v", name, got, want)
		}
	}
}

// What a caller does to a response is not seen by the next one.
func TestResponsesAreNotShared(t *testing.T) {
	e := newEnv(t)
	m := e.join()
	key := e.prefix + "key"
	e.put(e.plain, key, "value")
	for range 3 {
		resp, err := m.Get(e.ctx, key)
		if err != nil || string(resp.Kvs[0].Value) != "value" || string(resp.Kvs[0].Key) != key {
			t.Fatalf("%v, %v", resp, err)
		}
		resp.Kvs[0].Value[0], resp.Kvs[0].Key[0], resp.Header.Revision = 'X', 'X', 0
	}
}

// A key that is attached to a lease ends without a write; so it must not be cached, whenever it got the lease.
func TestKeysWithALeaseAreNotCached(t *testing.T) {
	e := newEnv(t)
	m := e.join()
	grant, err := e.plain.Grant(e.ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	before, later := e.prefix+"before", e.prefix+"later"
	if _, err := e.plain.Put(e.ctx, before, "v", clientv3.WithLease(grant.ID)); err != nil {
		t.Fatal(err)
	}
	e.expect("before", e.get(m, before), "v")
	e.expect("later", e.get(m, later), "none")
	if _, err := m.Put(e.ctx, later, "v", clientv3.WithLease(grant.ID)); err != nil {
		t.Fatal(err)
	}
	e.expect("later", e.get(m, later), "v")
	if _, err := e.plain.Revoke(e.ctx, grant.ID); err != nil {
		t.Fatal(err)
	}
	e.expect("before, in the end", e.get(m, before), "none")
	e.expect("later, in the end", e.get(m, later), "none")
}

// Writes that are made past the cache come to it, one by one; that a key gets a lease, and ends with it, too.
func TestWritesPastTheCacheAreSeen(t *testing.T) {
	e := newEnv(t)
	m := e.join()
	key := e.prefix + "key"
	e.put(e.plain, key, "0")
	await := func(want string) {
		t.Helper()
		for e.get(m, key) != want {
			if e.ctx.Err() != nil {
				t.Fatalf("it never becomes %q", want)
			}
		}
	}
	await("0")
	for i := range 20 {
		e.put(e.plain, key, fmt.Sprint("v", i))
		await(fmt.Sprint("v", i))
		if calls := m.during(func() { e.get(m, key) }); calls != 0 {
			t.Errorf("write %d: the key is not owned any more", i)
		}
		if _, err := e.plain.Delete(e.ctx, key); err != nil {
			t.Fatal(err)
		}
		await("none")
	}
	grant, err := e.plain.Grant(e.ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.plain.Put(e.ctx, key, "leased", clientv3.WithLease(grant.ID)); err != nil {
		t.Fatal(err)
	}
	await("leased")
	if _, err := e.plain.Revoke(e.ctx, grant.ID); err != nil {
		t.Fatal(err)
	}
	e.expect("when its lease is gone", e.get(m, key), "none")
}

// Reading and writing go on after the end, as with the official client, and nothing is left in the cluster.
func TestClose(t *testing.T) {
	e := newEnv(t)
	m, other := e.join(), e.join()
	key := e.prefix + "key"
	e.put(m, key, "v")
	e.get(m, key)
	m.close()
	e.expect("after the end", e.get(m, key), "v")
	e.expect("to be owned by another", e.get(other, key), "v")
	e.put(m, key, "w")
	e.expect("written after the end", e.get(other, key), "w")
	if calls := m.during(func() { e.get(m, key) }); calls != 1 {
		t.Errorf("%d calls for a read after the end", calls)
	}
	other.close()
	left, err := e.plain.Get(e.ctx, e.leasing, clientv3.WithPrefix())
	if err != nil || len(left.Kvs) != 0 {
		t.Errorf("leasing keys left: %v, %v", left, err)
	}
	m.close()
}

// The layout is that of the official client: another program that knows it is asked to give up its key, and asks us.
func TestLayoutIsShared(t *testing.T) {
	e := newEnv(t)
	m := e.join()
	grant, err := e.plain.Grant(e.ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := e.prefix+"theirs", e.prefix+"ours"
	if _, err := e.plain.Put(e.ctx, e.leasing+theirs, "", clientv3.WithLease(grant.ID)); err != nil {
		t.Fatal(err)
	}
	events := e.plain.Watch(e.ctx, e.leasing, clientv3.WithPrefix())
	next := func() *clientv3.Event {
		t.Helper()
		resp := <-events
		if len(resp.Events) != 1 {
			t.Fatalf("events %v, %v", resp.Events, resp.Err())
		}
		return resp.Events[0]
	}
	done := make(chan error, 1)
	go func() {
		_, err := m.Put(e.ctx, theirs, "v")
		done <- err
	}()
	asked := next()
	if string(asked.Kv.Key) != e.leasing+theirs || string(asked.Kv.Value) != "REVOKE" ||
		asked.Kv.Lease != int64(grant.ID) {
		t.Errorf("asked by %v", asked)
	}
	e.expect("not given up yet", e.get(e.plain, theirs), "none")
	if _, err := e.plain.Delete(e.ctx, e.leasing+theirs); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	next()

	e.get(m, ours)
	taken := next()
	if string(taken.Kv.Key) != e.leasing+ours || len(taken.Kv.Value) != 0 || taken.Kv.Lease == 0 {
		t.Errorf("taken by %v", taken)
	}
	if _, err := e.plain.Put(e.ctx, e.leasing+ours, "REVOKE", clientv3.WithIgnoreLease()); err != nil {
		t.Fatal(err)
	}
	next()
	if given := next(); given.Type != clientv3.EventTypeDelete || string(given.Kv.Key) != e.leasing+ours {
		t.Errorf("given up by %v", given)
	}
}
