package concurrency

import (
	"cmp"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	v3 "github.com/seed-d18e112a/clientv3"
)

// noEnd is the end of a span that has none.
const noEnd = "\x00"

// span is a key, or a range of keys, as etcd has it: end is "" for the key alone, and noEnd for all keys from it on.
type span struct{ key, end string }

// newSpan returns the span from key to end. There is no empty key, so that a range from it begins with the first one
// that can be.
func newSpan(key, end string) span {
	if key == "" && end != "" {
		key = noEnd
	}
	return span{key: key, end: end}
}

// empty reports whether no key can be in the span.
func (sp span) empty() bool {
	return sp.end != "" && sp.end != noEnd && sp.end <= sp.key
}

// has reports whether the key is in the span.
func (sp span) has(key string) bool {
	switch sp.end {
	case "":
		return key == sp.key
	case noEnd:
		return key >= sp.key
	default:
		return key >= sp.key && key < sp.end
	}
}

// includes reports whether all of the other span is in this one. Neither is empty.
func (sp span) includes(other span) bool {
	switch {
	case other.end == "":
		return sp.has(other.key)
	case sp.end == "" || !sp.has(other.key):
		return false
	case sp.end == noEnd:
		return true
	default:
		return other.end != noEnd && other.end <= sp.end
	}
}

// meets reports whether two ranges overlap or adjoin, so that one range is what both are together.
func (sp span) meets(other span) bool {
	return (sp.end == noEnd || other.key <= sp.end) && (other.end == noEnd || sp.key <= other.end)
}

// join returns the range that two ranges which meet are together.
func (sp span) join(other span) span {
	joined := span{key: min(sp.key, other.key), end: noEnd}
	if sp.end != noEnd && other.end != noEnd {
		joined.end = max(sp.end, other.end)
	}
	return joined
}

func (sp span) get(opts []v3.OpOption) v3.Op { return v3.OpGet(sp.key, sp.with(opts)...) }

func (sp span) delete() v3.Op { return v3.OpDelete(sp.key, sp.with(nil)...) }

func (sp span) with(opts []v3.OpOption) []v3.OpOption {
	if sp.end == "" {
		return opts
	}
	return append(slices.Clip(opts), v3.WithRange(sp.end))
}

// notAfter is the comparison that holds if no key of the span was modified after the revision.
func (sp span) notAfter(rev int64) v3.Cmp {
	c := v3.Compare(v3.ModRevision(sp.key), "<", rev+1)
	if sp.end == "" {
		return c
	}
	return c.WithRange(sp.end)
}

// readSet is what an attempt has read. The zero value is empty.
type readSet struct {
	rev    int64                       // of the first read; 0 if there was none
	keys   map[string]*mvccpb.KeyValue // nil: there is no such key
	ranges []rangeRead
}

// rangeRead is a range that was read.
type rangeRead struct {
	span
	rev int64
	kvs []*mvccpb.KeyValue // in order
}

func (r *rangeRead) get(key string) *mvccpb.KeyValue {
	i, found := search(r.kvs, key)
	if !found {
		return nil
	}
	return r.kvs[i]
}

func search(kvs []*mvccpb.KeyValue, key string) (int, bool) {
	return slices.BinarySearchFunc(kvs, key, func(kv *mvccpb.KeyValue, key string) int {
		return cmp.Compare(string(kv.Key), key)
	})
}

// add takes up what was read of a span in a revision. What an earlier read says of a key stays as it is.
func (rs *readSet) add(sp span, kvs []*mvccpb.KeyValue, rev int64) {
	if sp.end == "" {
		if _, read := rs.get(sp.key); !read {
			var kv *mvccpb.KeyValue
			if len(kvs) > 0 {
				kv = kvs[0]
			}
			rs.addKey(sp.key, kv, rev)
		}
		return
	}
	merged := map[string]*mvccpb.KeyValue{}
	for _, kv := range kvs {
		merged[string(kv.Key)] = kv
	}
	for _, earlier := range slices.Backward(rs.ranges) {
		maps.DeleteFunc(merged, func(key string, _ *mvccpb.KeyValue) bool { return earlier.has(key) })
		for _, kv := range earlier.kvs {
			merged[string(kv.Key)] = kv
		}
	}
	maps.Copy(merged, rs.keys)
	maps.DeleteFunc(merged, func(key string, kv *mvccpb.KeyValue) bool { return kv == nil || !sp.has(key) })
	read := rangeRead{span: sp, rev: rev}
	for _, key := range slices.Sorted(maps.Keys(merged)) {
		read.kvs = append(read.kvs, merged[key])
	}
	rs.ranges = append(rs.ranges, read)
	rs.began(rev)
}

// addKey takes up what was read of a key.
func (rs *readSet) addKey(key string, kv *mvccpb.KeyValue, rev int64) {
	if rs.keys == nil {
		rs.keys = map[string]*mvccpb.KeyValue{}
	}
	rs.keys[key] = kv
	rs.began(rev)
}

func (rs *readSet) began(rev int64) {
	if rs.rev == 0 {
		rs.rev = rev
	}
}

// get returns what was read of a key, and whether it was: by itself, or as part of a range.
func (rs *readSet) get(key string) (*mvccpb.KeyValue, bool) {
	if kv, ok := rs.keys[key]; ok {
		return kv, true
	}
	for i := range rs.ranges {
		if rs.ranges[i].has(key) {
			return rs.ranges[i].get(key), true
		}
	}
	return nil, false
}

// within returns what was read of a span if that was read as part of one range.
func (rs *readSet) within(sp span) ([]*mvccpb.KeyValue, bool) {
	if sp.end == "" {
		kv, ok := rs.get(sp.key)
		if kv == nil {
			return nil, ok
		}
		return []*mvccpb.KeyValue{kv}, ok
	}
	for i := range rs.ranges {
		r := &rs.ranges[i]
		if !r.includes(sp) {
			continue
		}
		from, _ := search(r.kvs, sp.key)
		to := len(r.kvs)
		if sp.end != noEnd {
			to, _ = search(r.kvs, sp.end)
		}
		return r.kvs[from:to], true
	}
	return nil, false
}

// exactly returns what was read of just this span.
func (rs *readSet) exactly(sp span) ([]*mvccpb.KeyValue, bool) {
	for i := range rs.ranges {
		if rs.ranges[i].span == sp {
			return rs.ranges[i].kvs, true
		}
	}
	return nil, false
}

// spans returns what was read.
func (rs *readSet) spans() []span {
	var spans []span
	for _, r := range rs.ranges {
		spans = append(spans, r.span)
	}
	for _, key := range slices.Sorted(maps.Keys(rs.keys)) {
		spans = append(spans, span{key: key})
	}
	return spans
}

// unchanged returns the comparisons that hold if everything that was read is still so. That a range has no key which
// was modified later speaks against new and changed keys; that each key of it is there, against deleted ones.
func (rs *readSet) unchanged() []v3.Cmp {
	revs := map[string]int64{}
	var cmps []v3.Cmp
	for _, r := range rs.ranges {
		cmps = append(cmps, r.notAfter(r.rev))
		for _, kv := range r.kvs {
			revs[string(kv.Key)] = kv.ModRevision
		}
	}
	for key, kv := range rs.keys {
		revs[key] = kv.GetModRevision()
	}
	for _, key := range slices.Sorted(maps.Keys(revs)) {
		cmps = append(cmps, v3.Compare(v3.ModRevision(key), "=", revs[key]))
	}
	return cmps
}

// writeSet is what an attempt is to write. The zero value is empty.
type writeSet struct {
	puts map[string]pendingPut
	dels map[string]struct{} // not in ranges
	// ranges are deleted, but for the keys of puts. No two of them meet.
	ranges []span
}

type pendingPut struct {
	val string
	op  v3.Op
}

func (ws *writeSet) put(key, val string, op v3.Op) {
	if ws.puts == nil {
		ws.puts = map[string]pendingPut{}
	}
	ws.puts[key] = pendingPut{val: val, op: op}
	delete(ws.dels, key)
}

func (ws *writeSet) del(sp span) {
	if sp.empty() {
		return
	}
	maps.DeleteFunc(ws.puts, func(key string, _ pendingPut) bool { return sp.has(key) })
	if sp.end == "" {
		if !ws.inRange(sp.key) {
			if ws.dels == nil {
				ws.dels = map[string]struct{}{}
			}
			ws.dels[sp.key] = struct{}{}
		}
		return
	}
	maps.DeleteFunc(ws.dels, func(key string, _ struct{}) bool { return sp.has(key) })
	ws.ranges = slices.DeleteFunc(ws.ranges, func(r span) bool {
		meets := r.meets(sp)
		if meets {
			sp = sp.join(r)
		}
		return meets
	})
	ws.ranges = append(ws.ranges, sp)
}

func (ws *writeSet) inRange(key string) bool {
	return slices.ContainsFunc(ws.ranges, func(r span) bool { return r.has(key) })
}

// get returns what a key will be, "" if it is deleted, and whether it is written.
func (ws *writeSet) get(key string) (string, bool) {
	if p, ok := ws.puts[key]; ok {
		return p.val, true
	}
	_, deleted := ws.dels[key]
	return "", deleted || ws.inRange(key)
}

// overlay returns what keys of a span will be that are kvs now.
func (ws *writeSet) overlay(sp span, kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	var result []*mvccpb.KeyValue
	for _, kv := range kvs {
		if _, written := ws.get(string(kv.Key)); !written {
			result = append(result, kv)
		}
	}
	for key, p := range ws.puts {
		if sp.has(key) {
			result = append(result, &mvccpb.KeyValue{Key: []byte(key), Value: []byte(p.val)})
		}
	}
	slices.SortFunc(result, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(string(a.Key), string(b.Key)) })
	return result
}

// ops returns the operations that write it all. etcd refuses a transaction that writes a key twice, so ranges leave out
// the keys that are put.
func (ws *writeSet) ops() []v3.Op {
	var ops []v3.Op
	puts := slices.Sorted(maps.Keys(ws.puts))
	for _, r := range ws.ranges {
		for _, key := range puts {
			if !r.has(key) {
				continue
			}
			if r.key < key {
				ops = append(ops, span{r.key, key}.delete())
			}
			r.key = key + "\x00"
		}
		if !r.empty() {
			ops = append(ops, r.delete())
		}
	}
	for _, key := range slices.Sorted(maps.Keys(ws.dels)) {
		ops = append(ops, v3.OpDelete(key))
	}
	for _, key := range puts {
		ops = append(ops, ws.puts[key].op)
	}
	return ops
}

// unwritten returns the comparisons that hold if nobody has written, since the first read, what this is to write. Keys
// that were read are compared already.
func (ws *writeSet) unwritten(reads readSet) []v3.Cmp {
	var cmps []v3.Cmp
	for _, r := range ws.ranges {
		cmps = append(cmps, r.notAfter(reads.rev))
	}
	points := slices.Concat(slices.Collect(maps.Keys(ws.puts)), slices.Collect(maps.Keys(ws.dels)))
	slices.Sort(points)
	for _, key := range points {
		if _, read := reads.get(key); !read {
			cmps = append(cmps, span{key: key}.notAfter(reads.rev))
		}
	}
	return cmps
}
