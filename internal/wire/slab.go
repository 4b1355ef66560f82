package wire

import (
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// The key-values and events of a response are decoded in runs of neighbours. The wire form of a run is copied into a
// chunk, of which keys and values are slices; the elements lie in slabs. A slab, and all that its elements refer to,
// stays in memory as long as one of its elements does; so neither a slab nor a chunk serves more than one run, and a
// kept key-value keeps alive one of each.
const (
	// slabLen is the most elements of a slab.
	slabLen = 64
	// chunkLen is the length of the longest chunk of more than one element, in bytes.
	chunkLen = 64 << 10
	// aloneLen is the length, in bytes, from which an element is a run by itself, so that who keeps a long value keeps
	// nothing else, but for the other value of the same event.
	aloneLen = 4 << 10
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
	var few [8]run
	runs, count := r.survey(few[:0], tag)
	kvs = slices.Grow(kvs, count)
	for _, run := range runs {
		var elements slab[mvccpb.KeyValue]
		chunk := r.bytes(run.size)
		for left := run.count; left > 0; left-- {
			_, n, rest := field(chunk)
			kv := elements.next(left)
			if !parseKeyValue(rest[:n], kv) {
				r.odd = true
			}
			chunk, kvs = rest[n:], append(kvs, kv)
		}
	}
	return kvs
}

// appendEvents reads all events up to another field, from one whose tag has just been read.
func (r *reader) appendEvents(events []*mvccpb.Event, tag byte) []*mvccpb.Event {
	r.at-- // back to the tag
	var few [8]run
	runs, count := r.survey(few[:0], tag)
	events = slices.Grow(events, count)
	for _, run := range runs {
		var elements slab[event]
		var prevs slab[mvccpb.KeyValue]
		chunk := r.bytes(run.size)
		for left := run.count; left > 0; left-- {
			_, n, rest := field(chunk)
			e := elements.next(left)
			if !parseEvent(rest[:n], e, &prevs, left) {
				r.odd = true
			}
			chunk, events = rest[n:], append(events, &e.Event)
		}
	}
	return events
}

// survey divides the elements up to another field into runs.
func (r *reader) survey(runs []run, tag byte) (_ []run, count int) {
	room := 0
	ahead, begin := *r, r.pos()
	for ahead.more() && ahead.byte() == tag {
		n := ahead.length()
		ahead.skip(n)
		size := ahead.pos() - begin
		begin += size
		need := size
		if n >= aloneLen {
			need = chunkLen
		}
		if need > room {
			runs, room = append(runs, run{}), chunkLen
		}
		room -= need
		last := &runs[len(runs)-1]
		last.count++
		last.size += size
		count++
	}
	if ahead.odd {
		r.odd = true
		return nil, 0
	}
	return runs, count
}
