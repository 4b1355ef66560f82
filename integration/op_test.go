package integration

import (
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
)

// writes is a history in which each sort target gives the four keys another order:
//
//	key      version  created  modified  value
//	a        3        4th      8th       0
//	b        1        2nd      2nd       2
//	c        4        1st      9th       1
//	d        2        3rd      10th      3
var writes = []struct{ key, value string }{
	{"c", "x"}, {"b", "2"}, {"d", "x"}, {"a", "x"}, {"c", "x"}, {"a", "x"}, {"c", "x"}, {"a", "0"}, {"c", "1"}, {"d", "3"},
}

// write makes the writes below the prefix and returns their revisions, with that before the first one at 0.
func (e *env) write(t *testing.T) []int64 {
	t.Helper()
	revs := make([]int64, len(writes)+1)
	for i, w := range writes {
		revs[i+1] = e.put(t, e.prefix+w.key, w.value)
	}
	revs[0] = revs[1] - 1
	return revs
}

func TestGetOptions(t *testing.T) {
	type opts = []clientv3.OpOption
	sorted := func(target clientv3.SortTarget, order clientv3.SortOrder) opts {
		return opts{clientv3.WithPrefix(), clientv3.WithSort(target, order)}
	}
	prefixed := func(more ...clientv3.OpOption) opts { return append(opts{clientv3.WithPrefix()}, more...) }

	onEach(t, func(t *testing.T, e *env) {
		e.prefix = lastKeys + e.prefix
		defer e.clear(t)
		rev := e.write(t)
		const whole = "a=0 b=2 c=1 d=3"
		for _, tt := range []struct {
			name  string
			key   string
			opts  opts
			want  string
			count int64
			more  bool
		}{
			{"none", "b", nil, "b=2", 1, false},
			{"prefix", "", prefixed(), whole, 4, false},
			{"prefix of one key", "b", prefixed(), "b=2", 1, false},
			{"range", "b", opts{clientv3.WithRange(e.prefix + "d")}, "b=2 c=1", 2, false},
			{"from key", "b", opts{clientv3.WithFromKey()}, "b=2 c=1 d=3", 3, false},
			{"range after prefix", "", prefixed(clientv3.WithRange(e.prefix + "c")), "a=0 b=2", 2, false},

			{"limit", "", prefixed(clientv3.WithLimit(3)), "a=0 b=2 c=1", 4, true},
			{"limit as large as the range", "", prefixed(clientv3.WithLimit(4)), whole, 4, false},
			{"no limit", "", prefixed(clientv3.WithLimit(0)), whole, 4, false},

			{"revision", "", prefixed(clientv3.WithRev(rev[4])), "a=x b=2 c=x d=x", 4, false},
			{"first revision", "", prefixed(clientv3.WithRev(rev[1])), "c=x", 1, false},
			{"revision before", "", prefixed(clientv3.WithRev(rev[0])), "", 0, false},

			{"by key", "", sorted(clientv3.SortByKey, clientv3.SortAscend), whole, 4, false},
			{"by key descending", "", sorted(clientv3.SortByKey, clientv3.SortDescend), "d=3 c=1 b=2 a=0", 4, false},
			{"by key in no order", "", sorted(clientv3.SortByKey, clientv3.SortNone), whole, 4, false},
			{"by version", "", sorted(clientv3.SortByVersion, clientv3.SortAscend), "b=2 d=3 a=0 c=1", 4, false},
			{"by version descending", "", sorted(clientv3.SortByVersion, clientv3.SortDescend), "c=1 a=0 d=3 b=2", 4, false},
			{
				"by creation", "", sorted(clientv3.SortByCreateRevision, clientv3.SortAscend),
				"c=1 b=2 d=3 a=0", 4, false,
			},
			{
				"by creation descending", "", sorted(clientv3.SortByCreateRevision, clientv3.SortDescend),
				"a=0 d=3 b=2 c=1", 4, false,
			},
			{
				"by modification", "", sorted(clientv3.SortByModRevision, clientv3.SortAscend),
				"b=2 a=0 c=1 d=3", 4, false,
			},
			{
				"by modification descending", "", sorted(clientv3.SortByModRevision, clientv3.SortDescend),
				"d=3 c=1 a=0 b=2", 4, false,
			},
			{"by value", "", sorted(clientv3.SortByValue, clientv3.SortAscend), "a=0 c=1 b=2 d=3", 4, false},
			{"by value descending", "", sorted(clientv3.SortByValue, clientv3.SortDescend), "d=3 b=2 c=1 a=0", 4, false},
			{
				"sorted and limited", "",
				append(sorted(clientv3.SortByValue, clientv3.SortDescend), clientv3.WithLimit(2)), "d=3 b=2", 4, true,
			},

			{"first created", "", clientv3.WithFirstCreate(), "c=1", 4, true},
			{"last created", "", clientv3.WithLastCreate(), "a=0", 4, true},
			{"first key", "", clientv3.WithFirstKey(), "a=0", 4, true},
			{"last key", "", clientv3.WithLastKey(), "d=3", 4, true},
			{"first modified", "", clientv3.WithFirstRev(), "b=2", 4, true},
			{"last modified", "", clientv3.WithLastRev(), "d=3", 4, true},

			{"keys only", "", prefixed(clientv3.WithKeysOnly()), "a b c d", 4, false},
			{"count only", "", prefixed(clientv3.WithCountOnly()), "", 4, false},
			{"serializable", "", prefixed(clientv3.WithSerializable(), clientv3.WithRev(rev[2])), "b=2 c=x", 2, false},

			{"modified since", "", prefixed(clientv3.WithMinModRev(rev[8])), "a=0 c=1 d=3", 4, false},
			{"modified until", "", prefixed(clientv3.WithMaxModRev(rev[8])), "a=0 b=2", 4, false},
			{"created since", "", prefixed(clientv3.WithMinCreateRev(rev[3])), "a=0 d=3", 4, false},
			{"created until", "", prefixed(clientv3.WithMaxCreateRev(rev[2])), "b=2 c=1", 4, false},
			{
				"all bounds", "", prefixed(clientv3.WithMinModRev(rev[9]), clientv3.WithMaxModRev(rev[10]),
					clientv3.WithMinCreateRev(rev[1]), clientv3.WithMaxCreateRev(rev[3]), clientv3.WithLimit(1)),
				"c=1", 4, true,
			},
		} {
			if tt.name == "serializable" {
				e.catchUp(t)
			}
			got := e.get(t, e.prefix+tt.key, tt.opts...)
			if s := show(got, e.prefix); s != tt.want || got.Count != tt.count || got.More != tt.more {
				t.Errorf("%s: %q, count %d, more %t; want %q, %d, %t",
					tt.name, s, got.Count, got.More, tt.want, tt.count, tt.more)
			}
		}
		for _, all := range []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithFromKey()} {
			if got := e.get(t, "", all, clientv3.WithCountOnly()); got.Count < 4 {
				t.Errorf("%d keys in all, want at least the test's own", got.Count)
			}
		}
	})
}

// lastKeys begins keys that come after all others, for ranges without an end.
const lastKeys = "\xff"

// clear deletes the test's keys, which those of other tests must not follow.
func (e *env) clear(t *testing.T) {
	t.Helper()
	if _, err := e.Delete(e.ctx, lastKeys, clientv3.WithFromKey()); err != nil {
		t.Error(err)
	}
}

// catchUp waits until each member has what has been written, for reads that are not linearizable.
func (e *env) catchUp(t *testing.T) {
	t.Helper()
	for _, ep := range e.cluster.Endpoints() {
		if _, err := e.clientOf(t, ep).Get(e.ctx, "k"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPutOptions(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		key := e.prefix + "key"
		lease, err := e.Grant(e.ctx, 600)
		if err != nil {
			t.Fatal(err)
		}
		leaseOf := func() clientv3.LeaseID { return clientv3.LeaseID(e.get(t, key).Kvs[0].Lease) }

		for _, opt := range []clientv3.OpOption{clientv3.WithIgnoreValue(), clientv3.WithIgnoreLease()} {
			if _, err := e.Put(e.ctx, key, "", opt); err != rpctypes.ErrKeyNotFound {
				t.Errorf("keeping what a key has that does not exist: %v", err)
			}
		}
		resp, err := e.Put(e.ctx, key, "1", clientv3.WithPrevKV())
		if err != nil || resp.PrevKv != nil {
			t.Errorf("first put: %v, %v", resp, err)
		}
		resp, err = e.Put(e.ctx, key, "2", clientv3.WithLease(lease.ID), clientv3.WithPrevKV())
		if err != nil || string(resp.PrevKv.GetValue()) != "1" || string(resp.PrevKv.GetKey()) != key {
			t.Errorf("second put: %v, %v", resp, err)
		}
		if got := leaseOf(); got != lease.ID {
			t.Errorf("lease %x, want %x", got, lease.ID)
		}

		e.put(t, key, "", clientv3.WithIgnoreValue(), clientv3.WithLease(lease.ID))
		if got := e.value(t, key); got != "2" {
			t.Errorf("the value became %q", got)
		}
		e.put(t, key, "3", clientv3.WithIgnoreLease())
		if got := leaseOf(); got != lease.ID {
			t.Errorf("the lease became %x", got)
		}
		e.put(t, key, "", clientv3.WithIgnoreValue(), clientv3.WithIgnoreLease())
		if got := e.get(t, key).Kvs[0]; string(got.Value) != "3" || got.Lease != int64(lease.ID) || got.Version != 5 {
			t.Errorf("after a put that keeps all: %v", got)
		}
		e.put(t, key, "", clientv3.WithIgnoreValue(), clientv3.WithLease(clientv3.NoLease))
		if got := leaseOf(); got != clientv3.NoLease {
			t.Errorf("the lease is still %x", got)
		}

		if _, err := e.Put(e.ctx, key, "v", clientv3.WithIgnoreValue()); err != rpctypes.ErrValueProvided {
			t.Errorf("a value and none: %v", err)
		}
		_, err = e.Put(e.ctx, key, "v", clientv3.WithIgnoreLease(), clientv3.WithLease(lease.ID))
		if err != rpctypes.ErrLeaseProvided {
			t.Errorf("a lease and none: %v", err)
		}

		e.put(t, key, "4", clientv3.WithLease(lease.ID))
		if _, err := e.Revoke(e.ctx, lease.ID); err != nil {
			t.Fatal(err)
		}
		if got := e.get(t, key); len(got.Kvs) != 0 {
			t.Errorf("the key outlives its lease: %v", got)
		}
	})
}

func TestDeleteOptions(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.prefix = lastKeys + e.prefix
		defer e.clear(t)
		key := func(k string) string { return e.prefix + k }
		for _, tt := range []struct {
			name        string
			key         string
			opts        []clientv3.OpOption
			deleted     string
			left        string
			withoutPrev bool
		}{
			{"none", "b", nil, "b", "a c ca d", true},
			{"previous pair", "b", []clientv3.OpOption{clientv3.WithPrevKV()}, "b", "a c ca d", false},
			{"prefix", "c", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithPrevKV()}, "c ca", "a b d", false},
			{"range", "b", []clientv3.OpOption{clientv3.WithRange(key("d")), clientv3.WithPrevKV()}, "b c ca", "a d", false},
			{"from key", "c", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithPrevKV()}, "c ca d", "a b", false},
			{"all", "", []clientv3.OpOption{clientv3.WithPrefix()}, "a b c ca d", "", true},
			{"a key that is not there", "x", []clientv3.OpOption{clientv3.WithPrevKV()}, "", "a b c ca d", false},
		} {
			for _, k := range []string{"a", "b", "c", "ca", "d"} {
				e.put(t, key(k), "")
			}
			resp, err := e.Delete(e.ctx, key(tt.key), tt.opts...)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			if n := int64(len(strings.Fields(tt.deleted))); resp.Deleted != n {
				t.Errorf("%s: %d deleted, want %d", tt.name, resp.Deleted, n)
			}
			prev := show(&clientv3.GetResponse{Kvs: resp.PrevKvs}, e.prefix)
			if want := tt.deleted; !tt.withoutPrev && prev != want || tt.withoutPrev && prev != "" {
				t.Errorf("%s: previous pairs %q", tt.name, prev)
			}
			if left := show(e.get(t, e.prefix, clientv3.WithPrefix()), e.prefix); left != tt.left {
				t.Errorf("%s: %q left, want %q", tt.name, left, tt.left)
			}
		}
	})
}

// Options that make no sense together panic before anything is sent, as the official client does.
func TestOptionsThatPanic(t *testing.T) {
	e := onOne(t)
	for _, tt := range []struct {
		name string
		call func()
		want string
	}{
		{"get", func() { _, _ = e.Get(e.ctx, "k", clientv3.WithPrefix(), clientv3.WithFromKey()) },
			"`WithPrefix` and `WithFromKey` cannot be set at the same time, choose one"},
		{"stream", func() { _, _ = e.GetStream(e.ctx, "k", clientv3.WithFromKey(), clientv3.WithPrefix()) },
			"`WithPrefix` and `WithFromKey` cannot be set at the same time, choose one"},
		{"put", func() { _, _ = e.Put(e.ctx, "k", "v", clientv3.WithPrefix()) }, "unexpected range in put"},
		{"delete", func() { _, _ = e.Delete(e.ctx, "k", clientv3.WithLimit(1)) }, "unexpected limit in delete"},
		{"txn", func() { e.Txn(e.ctx).Then().If() }, "cannot call If after Then!"},
		{"do", func() { _, _ = e.Do(e.ctx, clientv3.Op{}) }, "Unknown op"},
	} {
		func() {
			defer func() {
				if got := recover(); got != tt.want {
					t.Errorf("%s: panic %v, want %q", tt.name, got, tt.want)
				}
			}()
			tt.call()
		}()
	}
}
