package watchcheck

import (
	"fmt"
	"slices"
	"sort"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// id is what makes an event one of its kind: etcd writes a key at most once in a revision.
type id struct {
	rev int64
	key string
}

func idOf(e *mvccpb.Event) id { return id{e.GetKv().GetModRevision(), string(e.GetKv().GetKey())} }

func (i id) String() string { return fmt.Sprintf("revision %d of key %q", i.rev, i.key) }

// History is what happened in a store: every event, from some revision on. The zero value is empty. It is not safe for
// concurrent use while it grows.
type History struct {
	// Compacted is the revision up to which the store was compacted: the highest one that was asked for.
	Compacted int64

	events []*mvccpb.Event // in the order of revisions
	byID   map[id]truth
	live   map[string]*mvccpb.KeyValue // the store after the last event
}

type truth struct {
	event    *mvccpb.Event
	previous *mvccpb.KeyValue // nil if the key did not exist
}

// Add appends an event, whose revision must not be lower than that of the last one. Previous values are worked out; a
// PrevKv of the event is ignored.
func (h *History) Add(e *mvccpb.Event) {
	if h.byID == nil {
		h.byID, h.live = make(map[id]truth), make(map[string]*mvccpb.KeyValue)
	}
	key := string(e.Kv.Key)
	h.events = append(h.events, e)
	h.byID[idOf(e)] = truth{event: e, previous: h.live[key]}
	if e.Type == mvccpb.Event_DELETE {
		delete(h.live, key)
	} else {
		h.live[key] = e.Kv
	}
}

// AddState appends the events that led to the state of the store at the revision, which a range of all keys at that
// revision gives. It is to be called with every revision, one after the other; revisions in which nothing happened to
// the keys may be left out, but not the others.
func (h *History) AddState(rev int64, kvs []*mvccpb.KeyValue) {
	now := make(map[string]bool, len(kvs))
	var events []*mvccpb.Event
	for _, kv := range kvs {
		now[string(kv.Key)] = true
		if kv.ModRevision == rev {
			events = append(events, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv})
		}
	}
	for key := range h.live {
		if !now[key] {
			// What a server tells of a deletion: the key and the revision.
			kv := &mvccpb.KeyValue{Key: []byte(key), ModRevision: rev}
			events = append(events, &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv})
		}
	}
	slices.SortFunc(events, func(a, b *mvccpb.Event) int { return slices.Compare(a.Kv.Key, b.Kv.Key) })
	for _, e := range events {
		h.Add(e)
	}
}

// Events returns the events from the revision on. They must not be changed.
func (h *History) Events(from int64) []*mvccpb.Event {
	return h.events[h.index(from):]
}

// Previous returns the key-value pair that the event replaced or deleted, or nil if there was none.
func (h *History) Previous(e *mvccpb.Event) *mvccpb.KeyValue { return h.byID[idOf(e)].previous }

// between returns the events of the revisions from first to last.
func (h *History) between(first, last int64) []*mvccpb.Event {
	return h.events[h.index(first):max(h.index(first), h.index(last+1))]
}

// index returns the place of the first event that is not before the revision.
func (h *History) index(rev int64) int {
	return sort.Search(len(h.events), func(i int) bool { return h.events[i].Kv.ModRevision >= rev })
}
