package concurrency

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	v3 "github.com/seed-d18e112a/clientv3"
)

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		sp      span
		has     []string
		hasNot  []string
		isEmpty bool
	}{
		{sp: newSpan("b", ""), has: []string{"b"}, hasNot: []string{"a", "b\x00", "c"}},
		{sp: newSpan("b", "d"), has: []string{"b", "b\x00", "c", "c\xff"}, hasNot: []string{"a", "d", ""}},
		{sp: newSpan("b", noEnd), has: []string{"b", "c", "\xff"}, hasNot: []string{"a", "\x00"}},
		{sp: newSpan("", noEnd), has: []string{"\x00", "a", "\xff"}},
		{sp: newSpan("", "b"), has: []string{"\x00", "a"}, hasNot: []string{"b"}},
		{sp: newSpan("b", "b"), hasNot: []string{"a", "b", "c"}, isEmpty: true},
		{sp: newSpan("b", "a"), hasNot: []string{"a", "b", "c"}, isEmpty: true},
		{sp: newSpan("b", "b\x00"), has: []string{"b"}, hasNot: []string{"a", "b\x00"}},
	} {
		for _, key := range c.has {
			if !c.sp.has(key) {
				t.Errorf("%q has not %q", c.sp, key)
			}
		}
		for _, key := range c.hasNot {
			if c.sp.has(key) {
				t.Errorf("%q has %q", c.sp, key)
			}
		}
		if c.sp.empty() != c.isEmpty {
			t.Errorf("%q empty: %v", c.sp, c.sp.empty())
		}
	}
}

// alphabet are keys that lie close together.
var alphabet = []string{"\x00", "a", "a\x00", "a\x00\x00", "ab", "b", "c", "\xff", "\xff\xff"}

func anyKey() string { return alphabet[rand.N(len(alphabet))] }

// anySpan returns a key or a range, never an empty one.
func anySpan() span {
	for {
		end := append([]string{"", noEnd}, alphabet...)[rand.N(len(alphabet)+2)]
		if sp := newSpan(anyKey(), end); !sp.empty() {
			return sp
		}
	}
}

func keysOf(sp span) []string {
	var keys []string
	for _, key := range alphabet {
		if sp.has(key) {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestSpansIncludeEachOther(t *testing.T) {
	for range 20000 {
		a, b := anySpan(), anySpan()
		subset := !slices.ContainsFunc(keysOf(b), func(key string) bool { return !a.has(key) })
		// Two spans with the same keys of the alphabet may differ between these, but one that includes the other has
		// all its keys.
		if a.includes(b) && !subset {
			t.Fatalf("%q does not include %q", a, b)
		}
		if a == b && !a.includes(b) {
			t.Fatalf("%q does not include itself", a)
		}
		if a.end == "" || b.end == "" || !a.meets(b) {
			continue
		}
		joined := a.join(b)
		if !joined.includes(a) || !joined.includes(b) {
			t.Fatalf("%q and %q together are %q", a, b, joined)
		}
		for _, key := range alphabet {
			if joined.has(key) != (a.has(key) || b.has(key)) {
				t.Fatalf("%q and %q together are %q: %q", a, b, joined, key)
			}
		}
	}
}

// apply carries out operations on a store as etcd does, and fails as it does if a key is written twice.
func apply(t *testing.T, store map[string]string, ops []v3.Op) {
	t.Helper()
	var deleted []span
	for _, op := range ops {
		switch {
		case op.IsDelete():
			sp := span{string(op.KeyBytes()), string(op.RangeBytes())}
			deleted = append(deleted, sp)
			maps.DeleteFunc(store, func(key, _ string) bool { return sp.has(key) })
		case op.IsPut():
			store[string(op.KeyBytes())] = string(op.ValueBytes())
		}
	}
	put := map[string]bool{}
	for _, op := range ops {
		if !op.IsPut() {
			continue
		}
		key := string(op.KeyBytes())
		if put[key] || slices.ContainsFunc(deleted, func(sp span) bool { return sp.has(key) }) {
			t.Fatalf("key %q is written twice", key)
		}
		put[key] = true
	}
}

// What a transaction writes, in any order, comes to what its writes do one after the other, and it reads them so.
func TestWritesComeToWhatTheyDoInTurn(t *testing.T) {
	for range 5000 {
		before := map[string]string{}
		for _, key := range alphabet {
			if rand.N(2) == 0 {
				before[key] = "before"
			}
		}
		want := maps.Clone(before)
		var (
			ws      writeSet
			history []string
		)
		for i := range 1 + rand.N(8) {
			if rand.N(2) == 0 {
				key, val := anyKey(), fmt.Sprint(i)
				ws.put(key, val, v3.OpPut(key, val))
				want[key] = val
				history = append(history, fmt.Sprintf("put %q", key))
				continue
			}
			sp := anySpan()
			ws.del(sp)
			maps.DeleteFunc(want, func(key, _ string) bool { return sp.has(key) })
			history = append(history, fmt.Sprintf("delete %q", sp))
		}
		got := maps.Clone(before)
		apply(t, got, ws.ops())
		if !maps.Equal(got, want) {
			t.Fatalf("%v: %q became %q, want %q", history, before, got, want)
		}
		for _, key := range alphabet {
			if val, written := ws.get(key); written && val != want[key] || !written && before[key] != want[key] {
				t.Fatalf("%v: reads %q as %q, %v, want %q", history, key, val, written, want[key])
			}
		}
		sp := anySpan()
		var kvs []*mvccpb.KeyValue
		for _, key := range slices.Sorted(maps.Keys(before)) {
			if sp.has(key) {
				kvs = append(kvs, &mvccpb.KeyValue{Key: []byte(key), Value: []byte(before[key])})
			}
		}
		wanted := maps.Clone(want)
		maps.DeleteFunc(wanted, func(key, _ string) bool { return !sp.has(key) })
		overlay := map[string]string{}
		seen := ws.overlay(sp, kvs)
		for _, kv := range seen {
			overlay[string(kv.Key)] = string(kv.Value)
		}
		if !maps.Equal(overlay, wanted) || len(seen) != len(wanted) {
			t.Fatalf("%v: reads %q as %q, want %q", history, sp, overlay, wanted)
		}
	}
}

// store is what a cluster has in a revision.
type store map[string]int64 // revisions by key

func (s store) read(sp span) []*mvccpb.KeyValue {
	var kvs []*mvccpb.KeyValue
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if sp.has(key) {
			kvs = append(kvs, &mvccpb.KeyValue{Key: []byte(key), ModRevision: s[key]})
		}
	}
	return kvs
}

// holds tells of a comparison what the server would.
func (s store) holds(c *pb.Compare) bool {
	kvs := s.read(span{string(c.Key), string(c.RangeEnd)})
	if len(kvs) == 0 {
		kvs = []*mvccpb.KeyValue{{}}
	}
	return !slices.ContainsFunc(kvs, func(kv *mvccpb.KeyValue) bool {
		if c.Result == pb.Compare_LESS {
			return kv.ModRevision >= c.GetModRevision()
		}
		return kv.ModRevision != c.GetModRevision()
	})
}

// The comparisons hold if, and only if, all that was read is as it was; and what was read once stays so.
func TestReadsAreComparedExactly(t *testing.T) {
	for range 20000 {
		var (
			rs    readSet
			now   = store{}
			rev   = int64(10)
			first = map[string]int64{} // what was read of each key first
		)
		change := func() {
			rev++
			if key := anyKey(); rand.N(3) == 0 {
				delete(now, key)
			} else {
				now[key] = rev
			}
		}
		for range 4 {
			change()
		}
		for range 1 + rand.N(4) {
			sp := anySpan()
			rs.add(sp, now.read(sp), rev)
			for _, key := range keysOf(sp) {
				if _, read := first[key]; !read {
					first[key] = now[key]
				}
			}
			if rand.N(2) == 0 {
				change()
			}
		}
		for _, sp := range rs.spans() {
			kvs, ok := rs.within(sp)
			got := map[string]int64{}
			for _, kv := range kvs {
				got[string(kv.Key)] = kv.ModRevision
			}
			for _, key := range keysOf(sp) {
				if !ok || got[key] != first[key] {
					t.Fatalf("%q of %q was read in %d, and now in %d (%v)", key, sp, first[key], got[key], ok)
				}
			}
		}
		unchanged := true
		for key, rev := range first {
			unchanged = unchanged && now[key] == rev
			if kv, ok := rs.get(key); !ok || kv.GetModRevision() != rev {
				t.Fatalf("%q was read in %d, and now %v, %v", key, rev, kv, ok)
			}
		}
		holds := true
		for _, c := range rs.unchanged() {
			holds = holds && now.holds(c.GetCompare())
		}
		if holds != unchanged {
			t.Fatalf("unchanged: %v, compared: %v; read %v, now %v", unchanged, holds, first, now)
		}
	}
}
