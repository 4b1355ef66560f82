package integration

import (
	"context"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
)

// put writes a key and returns the revision.
func (e *env) put(t *testing.T, key, value string, opts ...clientv3.OpOption) int64 {
	t.Helper()
	resp, err := e.Put(e.ctx, key, value, opts...)
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return resp.Header.Revision
}

// get reads keys.
func (e *env) get(t *testing.T, key string, opts ...clientv3.OpOption) *clientv3.GetResponse {
	t.Helper()
	resp, err := e.Get(e.ctx, key, opts...)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	return resp
}

// value reads a key that exists.
func (e *env) value(t *testing.T, key string) string {
	t.Helper()
	resp := e.get(t, key)
	if len(resp.Kvs) != 1 {
		t.Fatalf("get %q: %d keys, want 1", key, len(resp.Kvs))
	}
	return string(resp.Kvs[0].Value)
}

// show writes the keys of a response down without their prefix, each with its value if it has one: "a=1 b=2 c".
func show(resp *clientv3.GetResponse, prefix string) string {
	var list []string
	for _, kv := range resp.Kvs {
		s := strings.TrimPrefix(string(kv.Key), prefix)
		if len(kv.Value) > 0 {
			s += "=" + string(kv.Value)
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

func checkHeader(t *testing.T, h *pb.ResponseHeader) {
	t.Helper()
	if h.GetClusterId() == 0 || h.GetMemberId() == 0 || h.GetRevision() == 0 || h.GetRaftTerm() == 0 {
		t.Errorf("header %v has empty fields", h)
	}
}

func TestPutGetDelete(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		key := e.prefix + "key"
		missing := e.get(t, key)
		if len(missing.Kvs) != 0 || missing.Count != 0 || missing.More {
			t.Errorf("a key that was never written: %v", missing)
		}

		put, err := e.Put(e.ctx, key, "one")
		if err != nil {
			t.Fatal(err)
		}
		checkHeader(t, put.Header)
		if put.PrevKv != nil {
			t.Errorf("put returns the previous pair %v unasked", put.PrevKv)
		}
		created := put.Header.Revision
		modified := e.put(t, key, "two\x00\xff")
		if modified != created+1 {
			t.Errorf("revisions %d and %d of two writes", created, modified)
		}

		got := e.get(t, key)
		checkHeader(t, got.Header)
		if len(got.Kvs) != 1 || got.Count != 1 || got.More {
			t.Fatalf("get = %v", got)
		}
		kv := got.Kvs[0]
		if string(kv.Key) != key || string(kv.Value) != "two\x00\xff" || kv.CreateRevision != created ||
			kv.ModRevision != modified || kv.Version != 2 || kv.Lease != 0 {
			t.Errorf("got %v", kv)
		}

		del, err := e.Delete(e.ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		checkHeader(t, del.Header)
		if del.Deleted != 1 || del.PrevKvs != nil {
			t.Errorf("delete = %v", del)
		}
		if again, err := e.Delete(e.ctx, key); err != nil || again.Deleted != 0 {
			t.Errorf("delete of a key that is gone = %v, %v", again, err)
		}
		if gone := e.get(t, key); len(gone.Kvs) != 0 {
			t.Errorf("after the delete: %v", gone)
		}
	})
}

func TestEmptyValue(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.put(t, e.prefix, "")
		if got := e.get(t, e.prefix); len(got.Kvs) != 1 || len(got.Kvs[0].Value) != 0 {
			t.Errorf("got %v", got)
		}
	})
}

func TestLargeValue(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		value := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
		e.put(t, e.prefix+"large", value)
		if got := e.value(t, e.prefix+"large"); got != value {
			t.Errorf("%d bytes came back, not the %d written", len(got), len(value))
		}
	})
}

// A write at one member is seen by a linearizable read at each.
func TestWritesAreSeenByAllMembers(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		for i, ep := range e.cluster.Endpoints() {
			reader := e.clientOf(t, ep)
			key := e.prefix + string(rune('a'+i))
			e.put(t, key, ep)
			got, err := reader.Get(e.ctx, key)
			if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != ep {
				t.Errorf("at %s: %v, %v", ep, got, err)
			}
			if id := e.cluster.Member(i).ID(); got.Header.GetMemberId() != id {
				t.Errorf("member %x answered a client of %x alone", got.Header.GetMemberId(), id)
			}
		}
	})
}

// clientOf returns a client of the one endpoint.
func (e *env) clientOf(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	cfg := e.config(t)
	cfg.Endpoints = []string{endpoint}
	return open(t, cfg)
}

func TestDo(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		key := e.prefix + "key"
		put, err := e.Do(e.ctx, clientv3.OpPut(key, "v"))
		if err != nil || put.Put() == nil || put.Get() != nil || put.Del() != nil || put.Txn() != nil {
			t.Fatalf("put: %+v, %v", put, err)
		}
		get, err := e.Do(e.ctx, clientv3.OpGet(key))
		if err != nil || get.Get() == nil || get.Put() != nil || get.Del() != nil || get.Txn() != nil {
			t.Fatalf("get: %+v, %v", get, err)
		}
		if kvs := get.Get().Kvs; len(kvs) != 1 || kvs[0].ModRevision != put.Put().Header.Revision {
			t.Errorf("get: %v", kvs)
		}
		txn, err := e.Do(e.ctx, clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.Value(key), "=", "v")},
			[]clientv3.Op{clientv3.OpPut(key, "w")}, nil))
		if err != nil || txn.Txn() == nil || txn.Put() != nil || txn.Get() != nil || txn.Del() != nil {
			t.Fatalf("txn: %+v, %v", txn, err)
		}
		if !txn.Txn().Succeeded {
			t.Error("the comparison did not hold")
		}
		del, err := e.Do(e.ctx, clientv3.OpDelete(key, clientv3.WithPrevKV()))
		if err != nil || del.Del() == nil || del.Put() != nil || del.Get() != nil || del.Txn() != nil {
			t.Fatalf("delete: %+v, %v", del, err)
		}
		if prev := del.Del().PrevKvs; len(prev) != 1 || string(prev[0].Value) != "w" {
			t.Errorf("deleted %v", prev)
		}
		if _, err := e.Do(e.ctx, clientv3.OpGet("")); err != rpctypes.ErrEmptyKey {
			t.Errorf("get without a key: %v", err)
		}
	})
}

func TestCompact(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		key := e.prefix + "key"
		first := e.put(t, key, "1")
		second := e.put(t, key, "2")
		third := e.put(t, key, "3")

		resp, err := e.Compact(e.ctx, second)
		if err != nil {
			t.Fatal(err)
		}
		checkHeader(t, resp.Header)
		if got := e.get(t, key, clientv3.WithRev(second)); show(got, e.prefix) != "key=2" {
			t.Errorf("at the compacted revision: %v", got)
		}
		if _, err := e.Get(e.ctx, key, clientv3.WithRev(first)); err != rpctypes.ErrCompacted {
			t.Errorf("before the compacted revision: %v", err)
		}
		if _, err := e.Compact(e.ctx, second); err != rpctypes.ErrCompacted {
			t.Errorf("compacted again: %v", err)
		}
		if _, err := e.Compact(e.ctx, third+1000); err != rpctypes.ErrFutureRev {
			t.Errorf("compaction of the future: %v", err)
		}
		if _, err := e.Compact(e.ctx, third, clientv3.WithCompactPhysical()); err != nil {
			t.Errorf("physical compaction: %v", err)
		}
		if got := e.value(t, key); got != "3" {
			t.Errorf("the current value became %q", got)
		}
	})
}

// What the client cannot know to be wrong goes to the server, and its answer comes back.
func TestOddRequestsArePassedOn(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		for _, k := range []string{"a", "b", "c"} {
			e.put(t, e.prefix+k, k)
		}
		key := func(k string) string { return e.prefix + k }
		for _, tt := range []struct {
			name string
			key  string
			opts []clientv3.OpOption
			want string
		}{
			{"negative limit", key(""), []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(-1)}, "a=a b=b c=c"},
			{"negative revision", key("b"), []clientv3.OpOption{clientv3.WithRev(-3)}, "b=b"},
			{"end below key", key("c"), []clientv3.OpOption{clientv3.WithRange(key("a"))}, ""},
			{"end equals key", key("b"), []clientv3.OpOption{clientv3.WithRange(key("b"))}, ""},
			{"empty end", key("b"), []clientv3.OpOption{clientv3.WithRange("")}, "b=b"},
			{"options of other operations", key("b"), []clientv3.OpOption{
				clientv3.WithLease(7), clientv3.WithPrevKV(), clientv3.WithIgnoreValue(), clientv3.WithIgnoreLease(),
				clientv3.WithFilterPut(), clientv3.WithFragment(), clientv3.WithCreatedNotify(),
			}, "b=b"},
			{"sort without order", key(""), []clientv3.OpOption{
				clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortNone),
			}, "a=a b=b c=c"},
			{"bounds that exclude all", key(""), []clientv3.OpOption{
				clientv3.WithPrefix(), clientv3.WithMinModRev(1 << 40), clientv3.WithMaxModRev(1),
			}, ""},
		} {
			if got := show(e.get(t, tt.key, tt.opts...), e.prefix); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
			}
		}
		del, err := e.Delete(e.ctx, key("c"), clientv3.WithRange(key("a")))
		if err != nil || del.Deleted != 0 {
			t.Errorf("delete with the end below the key: %v, %v", del, err)
		}
		if _, err := e.Put(e.ctx, key("a"), "x", clientv3.WithLease(-5)); err != rpctypes.ErrLeaseNotFound {
			t.Errorf("put with a negative lease: %v", err)
		}
		if _, err := e.Compact(e.ctx, -1); err != rpctypes.ErrCompacted {
			t.Errorf("compaction of a negative revision: %v", err)
		}
		sort := clientv3.WithSort(clientv3.SortTarget(9), clientv3.SortAscend)
		if _, err := e.Get(e.ctx, key("a"), sort); err != rpctypes.ErrInvalidSortOption {
			t.Errorf("unknown sort target: %v", err)
		}
	})
}

// A caller's own metadata, deadline and values do not get in the way.
func TestCallersContext(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		type key struct{}
		ctx := context.WithValue(clientv3.WithRequireLeader(e.ctx), key{}, "value")
		if _, err := e.Put(ctx, e.prefix, "v"); err != nil {
			t.Error(err)
		}
		if got, err := e.Get(ctx, e.prefix); err != nil || len(got.Kvs) != 1 {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestResponsesAreTheCallersOwn(t *testing.T) {
	e := onOne(t)
	for _, k := range []string{"a", "b"} {
		e.put(t, e.prefix+k, "value")
	}
	got := e.get(t, e.prefix, clientv3.WithPrefix())
	for _, kv := range got.Kvs {
		_ = append(kv.Value, "overwritten"...)
		_ = append(kv.Key, "overwritten"...)
	}
	for i, want := range []string{"a", "b"} {
		if kv := got.Kvs[i]; string(kv.Key) != e.prefix+want || string(kv.Value) != "value" {
			t.Errorf("after appends to its neighbours: %q = %q", kv.Key, kv.Value)
		}
	}
	keep := slices.Clone(got.Kvs[0].Value)
	for range 100 {
		e.get(t, e.prefix, clientv3.WithPrefix())
	}
	if !slices.Equal(keep, got.Kvs[0].Value) {
		t.Error("later responses overwrite an earlier one")
	}
}
