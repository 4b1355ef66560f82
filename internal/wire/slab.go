package wire

import (
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// The key-values and events of a response are decoded in runs of neighbours. The wire form of a run is copied into a
// chunk, of which keys and values are slices; the elements lie in slabs. A slab, and all that its elements refer to,
// stays in memory as long as one of its elements does; so neither a slab nor a chunk serves more than one run, and a
// kept key-value keeps alive one of each.
//
// Chunks and slabs stay within 32 KiB, the largest size for which the runtime has a class; and a run is looked at, copied
// and decoded while it is in the processor's cache.
const (
	// slabLen is the most elements of a slab. With as many a slab of events is 23 KiB, one of key-values 15.
	slabLen = 128
	// chunkLen is the length of the longest chunk of more than one element, in bytes.
	chunkLen = 32 << 10
	// aloneLen is the length, in bytes, from which an element is a run by itself, so that who keeps a long value keeps
	// nothing else, but for the other value of the same event.
	aloneLen = 4 << 10
	// growth bounds how much longer a list is made than is known to be necessary.
	growth = 4
)

// event is an event with the key-value that nearly every one has: one slab is cheaper than two.
type event struct {
	mvccpb.Event
	kv mvccpb.KeyValue
}

// run is some neighbouring elements: how many, and their size in wire form, in bytes.
type run struct{ count, size int }

// slab allocates the elements of a run, many at a time. The zero value is ready for use.
type slab[T any] struct{ free []T }

// next returns a zero element. left is how many the run has still to come, with this one.
func (s *slab[T]) next(left int) *T {
	if len(s.free) == 0 {
		s.free = make([]T, min(left, slabLen))
	}
	e := &s.free[0]
	s.free = s.free[1:]
	return e
}

// appendKeyValues reads all key-values up to another field, from one whose tag has just been read.
func (r *reader) appendKeyValues(kvs []*mvccpb.KeyValue, tag byte) []*mvccpb.KeyValue {
	r.at-- // back to the tag
	var next run
	for {
		var chunk []byte
		if chunk, next = r.run(tag, next); next.count == 0 {
			return kvs
		}
		kvs = grow(kvs, next, next.size+r.left())
		var elements slab[mvccpb.KeyValue]
		for left := next.count; left > 0; left-- {
			_, n, rest := field(chunk)
			kv := elements.next(left)
			if !parseKeyValue(rest[:n], kv) {
				r.odd = true
			}
			chunk, kvs = rest[n:], append(kvs, kv)
		}
	}
}

// appendEvents reads all events up to another field, from one whose tag has just been read.
func (r *reader) appendEvents(events []*mvccpb.Event, tag byte) []*mvccpb.Event {
	r.at-- // back to the tag
	var next run
	for {
		var chunk []byte
		if chunk, next = r.run(tag, next); next.count == 0 {
			return events
		}
		events = grow(events, next, next.size+r.left())
		var elements slab[event]
		var prevs slab[mvccpb.KeyValue]
		for left := next.count; left > 0; left-- {
			_, n, rest := field(chunk)
			e := elements.next(left)
			if !parseEvent(rest[:n], e, &prevs, left) {
				r.odd = true
			}
			chunk, events = rest[n:], append(events, &e.Event)
		}
	}
}

// run reads the next run of elements with the tag into a chunk. It is empty if another field comes next, or none. before
// is the run before it.
//
// After a full run, another one is likely: so a whole chunk is copied, and what is in it is measured there. That is
// cheaper than to measure first, since a copy of everything comes faster into the cache than looks here and there.
func (r *reader) run(tag byte, before run) (chunk []byte, next run) {
	if before.count > 1 && before.size > chunkLen-aloneLen && r.left() >= chunkLen {
		ahead := *r
		chunk = ahead.bytes(chunkLen)
		if next = measure(chunk, tag); next.size > chunkLen/2 {
			r.skip(next.size)
			return chunk, next
		}
	}
	if next = r.survey(tag); next.count > 0 {
		chunk = r.bytes(next.size)
	}
	return chunk, next
}

// measure measures the run with which a chunk begins.
func measure(chunk []byte, tag byte) (first run) {
	for b := chunk; ; {
		t, n, rest := field(b)
		if t != tag || n >= aloneLen || n > uint64(len(rest)) {
			return first
		}
		b = rest[n:]
		first = run{first.count + 1, len(chunk) - len(b)}
	}
}

// survey measures the next run of elements with the tag. It is empty if another field comes next, or none.
//
// It goes no farther than the run, so that what it has looked at is still in the processor's cache when it is copied.
func (r *reader) survey(tag byte) (next run) {
	ahead, begin := *r, r.pos()
	for ahead.more() && ahead.byte() == tag {
		n := ahead.length()
		ahead.skip(n)
		size := ahead.pos() - begin
		alone := n >= aloneLen
		if next.count > 0 && (alone || size > chunkLen) {
			break
		}
		next = run{next.count + 1, size}
		if alone {
			break
		}
	}
	if ahead.odd {
		r.odd = true
		return run{}
	}
	return next
}

// grow makes room for a run and for those that follow it in the left bytes of the message, if they are alike. It goes
// no farther than to a multiple of what is there, as they need not be.
func grow[T any](s []*T, next run, left int) []*T {
	if need := len(s) + next.count; need > cap(s) {
		all := left/next.size*next.count + left%next.size*next.count/next.size
		return slices.Grow(s, min(len(s)+max(all, next.count), growth*need)-len(s))
	}
	return s
}
