// Package watchcheck checks what a watch delivered against what happened: the promises that etcd makes of a watch,
// each as a function of a recorded history. Any client and any server will do, real or simulated.
//
// The promises: events are delivered in the order of their revisions (Ordered), once (Unique), with all of a revision
// in one response (Atomic), without a gap (Reliable), from where the watch began (Resumable, which is Reliable from
// Watch.Start), only those that were asked for (Filtered), as they happened (Faithful), and progress is told neither
// too early nor denied by what follows (Bookmarkable). When the watch ends, it ends for good, and a compaction is given
// as the reason only where there was one (Ended).
package watchcheck

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// Watch is what was asked for.
type Watch struct {
	// Key and RangeEnd are as in a request: no RangeEnd is one key, "\x00" is all keys from Key on, an empty Key is the
	// first key.
	Key, RangeEnd []byte
	// Start is the first revision to be reported. For a watch from now on it is the one after the revision that was
	// current when the watch was created, as its creation tells; if that is not known, the revision of the first event
	// will do, and misses what was lost before it.
	Start int64
	// NoPut and NoDelete are the filters, PrevKV asks for previous values.
	NoPut, NoDelete, PrevKV bool
	// Fragments: responses are not put together, and a revision may come in several.
	Fragments bool
	// Through is a revision up to which everything must have been delivered, unless the watch has ended. 0: nothing is
	// demanded beyond what the responses themselves imply.
	Through int64
}

// Response is one recorded response.
type Response struct {
	Revision          int64 // of the header
	Events            []*mvccpb.Event
	Created, Canceled bool
	CompactRevision   int64
}

func (r Response) progress() bool {
	return len(r.Events) == 0 && !r.Created && !r.Canceled && r.CompactRevision == 0
}

// A broken promise, each the error that errors.Is finds in the result of Check.
var (
	ErrOrdered      = errors.New("events are out of order")
	ErrUnique       = errors.New("an event was delivered twice")
	ErrAtomic       = errors.New("a revision was torn")
	ErrReliable     = errors.New("an event was lost")
	ErrFiltered     = errors.New("an event was not asked for")
	ErrFaithful     = errors.New("an event is not what happened")
	ErrBookmarkable = errors.New("progress was wrong")
	ErrEnded        = errors.New("the end was wrong")
)

// Check returns the first violation of each promise, joined, or nil.
func Check(h *History, w Watch, got []Response) error {
	return errors.Join(
		Ordered(got),
		Unique(got),
		Atomic(h, w, got),
		Reliable(h, w, got),
		Filtered(w, got),
		Faithful(h, w, got),
		Bookmarkable(h, w, got),
		Ended(h, got),
	)
}

func broken(promise error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", promise, fmt.Sprintf(format, args...))
}

// Ordered checks that revisions never go down.
func Ordered(got []Response) error {
	last := int64(0)
	for i, r := range got {
		for _, e := range r.Events {
			if e.Kv.ModRevision < last {
				return broken(ErrOrdered, "response %d has revision %d after %d", i, e.Kv.ModRevision, last)
			}
			last = e.Kv.ModRevision
		}
	}
	return nil
}

// Unique checks that no event is delivered twice.
func Unique(got []Response) error {
	seen := make(map[id]int)
	for i, r := range got {
		for _, e := range r.Events {
			if first, ok := seen[idOf(e)]; ok {
				return broken(ErrUnique, "response %d has %v of response %d", i, idOf(e), first)
			}
			seen[idOf(e)] = i
		}
	}
	return nil
}

// Atomic checks that the events of a revision are all in one response or all missing.
func Atomic(h *History, w Watch, got []Response) error {
	in := make(map[int64]map[int]int) // events by revision and response
	for i, r := range got {
		for _, e := range r.Events {
			if in[e.Kv.ModRevision] == nil {
				in[e.Kv.ModRevision] = make(map[int]int)
			}
			in[e.Kv.ModRevision][i]++
		}
	}
	for rev, responses := range in {
		want, have := 0, 0
		for _, e := range h.between(rev, rev) {
			if w.Matches(e) {
				want++
			}
		}
		for _, n := range responses {
			have += n
		}
		if have < want || len(responses) > 1 && !w.Fragments {
			return broken(ErrAtomic, "%d of %d events of revision %d, in %d responses", have, want, rev, len(responses))
		}
	}
	return nil
}

// Reliable checks that no revision is missing from Start to the last one that was delivered, to the last progress, and
// to Through.
func Reliable(h *History, w Watch, got []Response) error {
	through := w.Through
	delivered := make(map[int64]bool)
	for _, r := range got {
		for _, e := range r.Events {
			delivered[e.Kv.ModRevision] = true
			through = max(through, e.Kv.ModRevision)
		}
		if r.progress() {
			through = max(through, r.Revision)
		}
		if r.Canceled {
			through = min(through, lastRevision(got))
		}
	}
	for _, e := range h.between(w.Start, through) {
		if w.Matches(e) && !delivered[e.Kv.ModRevision] {
			return broken(ErrReliable, "%v, of %d to %d", idOf(e), w.Start, through)
		}
	}
	return nil
}

// lastRevision returns the highest revision that the responses claim to have covered.
func lastRevision(got []Response) int64 {
	last := int64(0)
	for _, r := range got {
		if r.progress() {
			last = max(last, r.Revision)
		}
		for _, e := range r.Events {
			last = max(last, e.Kv.ModRevision)
		}
	}
	return last
}

// Filtered checks that every event is in the range, passes the filters, and is not from before Start.
func Filtered(w Watch, got []Response) error {
	for i, r := range got {
		for _, e := range r.Events {
			if !w.Matches(e) {
				return broken(ErrFiltered, "response %d has %v, %v", i, e.Type, idOf(e))
			}
			if e.Kv.ModRevision < w.Start {
				return broken(ErrFiltered, "response %d has %v, before %d", i, idOf(e), w.Start)
			}
		}
	}
	return nil
}

// Faithful checks that every event is one that happened, and that previous values are there if and only if they were
// asked for. One that was compacted may be missing: the server no longer has it.
func Faithful(h *History, w Watch, got []Response) error {
	for i, r := range got {
		for _, e := range r.Events {
			truth, ok := h.byID[idOf(e)]
			if !ok {
				return broken(ErrFaithful, "response %d has %v, which never happened", i, idOf(e))
			}
			if e.Type != truth.event.Type || !proto.Equal(e.Kv, truth.event.Kv) {
				return broken(ErrFaithful, "response %d has %v, which was %v", i, e, truth.event)
			}
			prev := truth.previous
			if !w.PrevKV {
				prev = nil
			}
			lacking := e.PrevKv == nil && e.Kv.ModRevision-1 < h.Compacted
			if !lacking && !proto.Equal(e.PrevKv, prev) {
				return broken(ErrFaithful, "response %d has %v with previous %v, want %v", i, idOf(e), e.PrevKv, prev)
			}
		}
	}
	return nil
}

// Bookmarkable checks that progress at a revision comes after all events up to it, and before all others.
func Bookmarkable(h *History, w Watch, got []Response) error {
	delivered := make(map[id]bool)
	mark := int64(0)
	for i, r := range got {
		for _, e := range r.Events {
			delivered[idOf(e)] = true
			if e.Kv.ModRevision <= mark {
				return broken(ErrBookmarkable, "response %d has %v after progress at %d", i, idOf(e), mark)
			}
		}
		if !r.progress() {
			continue
		}
		for _, e := range h.between(max(w.Start, mark+1), r.Revision) {
			if w.Matches(e) && !delivered[idOf(e)] {
				return broken(ErrBookmarkable, "response %d is progress at %d before %v", i, r.Revision, idOf(e))
			}
		}
		mark = max(mark, r.Revision)
	}
	return nil
}

// Ended checks that nothing follows the end, and that a compaction which ended the watch took place and concerns what
// it had not delivered yet.
func Ended(h *History, got []Response) error {
	for i, r := range got {
		if (r.Canceled || r.CompactRevision != 0) && i < len(got)-1 {
			return broken(ErrEnded, "response %d follows the last one", i+1)
		}
		if rev := r.CompactRevision; rev != 0 && (rev > h.Compacted || rev <= lastRevision(got)) {
			return broken(ErrEnded, "compacted at %d, was at %d, delivered to %d", rev, h.Compacted, lastRevision(got))
		}
	}
	return nil
}

// Matches returns whether the watch asks for such an event, its revision aside.
func (w Watch) Matches(e *mvccpb.Event) bool {
	if w.NoPut && e.Type == mvccpb.Event_PUT || w.NoDelete && e.Type == mvccpb.Event_DELETE {
		return false
	}
	switch {
	case len(w.RangeEnd) == 0 && len(w.Key) == 0:
		return bytes.Equal(e.Kv.Key, []byte{0})
	case len(w.RangeEnd) == 0:
		return bytes.Equal(e.Kv.Key, w.Key)
	case len(w.RangeEnd) == 1 && w.RangeEnd[0] == 0:
		return bytes.Compare(e.Kv.Key, w.Key) >= 0
	default:
		return bytes.Compare(e.Kv.Key, w.Key) >= 0 && bytes.Compare(e.Kv.Key, w.RangeEnd) < 0
	}
}
