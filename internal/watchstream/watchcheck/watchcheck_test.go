package watchcheck

import (
	"errors"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func put(rev int64, key, value string, created, version int64) *mvccpb.Event {
	return &mvccpb.Event{Kv: &mvccpb.KeyValue{
		Key: []byte(key), Value: []byte(value), ModRevision: rev, CreateRevision: created, Version: version,
	}}
}

func del(rev int64, key string) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: rev}}
}

// The history: a and b at 2, a again at 3, z at 4, a deleted with c put at 5, b at 6.
var happened = []*mvccpb.Event{
	put(2, "a", "1", 2, 1), put(2, "b", "1", 2, 1),
	put(3, "a", "2", 2, 2),
	put(4, "z", "1", 4, 1),
	del(5, "a"), put(5, "c", "1", 5, 1),
	put(6, "b", "2", 2, 2),
}

func history() *History {
	h := &History{}
	for _, e := range happened {
		h.Add(e)
	}
	return h
}

// of makes a response of the events with these places in the history.
func of(places ...int) Response {
	r := Response{}
	for _, i := range places {
		r.Events = append(r.Events, proto.CloneOf(happened[i]))
		r.Revision = happened[i].Kv.ModRevision
	}
	return r
}

func with(e *mvccpb.Event, prev *mvccpb.Event) Response {
	e = proto.CloneOf(e)
	if prev != nil {
		e.PrevKv = prev.Kv
	}
	return Response{Revision: e.Kv.ModRevision, Events: []*mvccpb.Event{e}}
}

func progressAt(rev int64) Response { return Response{Revision: rev} }

func TestCheck(t *testing.T) {
	abc := Watch{Key: []byte("a"), RangeEnd: []byte("d"), Start: 2}
	keyed := func(key string) Watch { return Watch{Key: []byte(key), Start: 2} }
	tests := []struct {
		name      string
		watch     Watch
		compacted int64
		got       []Response
		want      []error
	}{
		{"nothing", abc, 0, nil, nil},
		{"all, one by one", abc, 0, []Response{{Created: true}, of(0, 1), of(2), of(4, 5), of(6), progressAt(6)}, nil},
		{"all at once", abc, 0, []Response{of(0, 1, 2, 4, 5, 6)}, nil},
		{"from the start on", Watch{Key: []byte("a"), RangeEnd: []byte{0}, Start: 4}, 0, []Response{of(3, 4, 5)}, nil},
		{"no deletes", Watch{Key: []byte("a"), Start: 2, NoDelete: true, Through: 9}, 0, []Response{of(0), of(2)}, nil},
		{"no puts", Watch{Key: []byte("a"), Start: 2, NoPut: true, Through: 9}, 0, []Response{of(4)}, nil},
		{"fragments", Watch{RangeEnd: []byte{0}, Start: 2, Fragments: true}, 0, []Response{of(0), of(1)}, nil},
		{"previous values", Watch{Key: []byte("a"), Start: 2, PrevKV: true}, 0, []Response{
			with(happened[0], nil), with(happened[2], happened[0]), with(happened[4], happened[2]),
		}, nil},
		{"previous value compacted", Watch{Key: []byte("a"), Start: 3, PrevKV: true}, 4, []Response{of(2)}, nil},
		{"ended by compaction", abc, 5, []Response{of(0, 1), {Canceled: true, CompactRevision: 5}}, nil},
		{"ended early", Watch{Key: []byte("a"), Start: 2, Through: 6}, 0, []Response{of(0), {Canceled: true}}, nil},

		{"out of order", abc, 0, []Response{of(0, 1), of(4, 5), of(2)}, []error{ErrOrdered}},
		{"out of order in a response", abc, 0, []Response{of(2, 0, 1)}, []error{ErrOrdered}},
		{"twice", abc, 0, []Response{of(0, 1), of(2), of(2)}, []error{ErrUnique, ErrAtomic}},
		{"torn over responses", abc, 0, []Response{of(0), of(1)}, []error{ErrAtomic}},
		{"torn by loss", abc, 0, []Response{of(0, 1), of(2), of(4)}, []error{ErrAtomic}},
		{"fragment lost", Watch{RangeEnd: []byte{0}, Start: 2, Fragments: true}, 0, []Response{of(0)},
			[]error{ErrAtomic}},
		{"lost in between", abc, 0, []Response{of(0, 1), of(4, 5)}, []error{ErrReliable}},
		{"lost at the start", abc, 0, []Response{of(2)}, []error{ErrReliable}},
		{"lost at the end", Watch{Key: []byte("a"), Start: 2, Through: 5}, 0, []Response{of(0), of(2)},
			[]error{ErrReliable}},
		{"lost before a compaction", abc, 5, []Response{of(2), {Canceled: true, CompactRevision: 5}},
			[]error{ErrReliable}},
		{"other key", keyed("a"), 0, []Response{of(0), of(2), of(3)}, []error{ErrFiltered}},
		{"filtered kind", Watch{Key: []byte("a"), Start: 2, NoDelete: true}, 0, []Response{of(0), of(2), of(4)},
			[]error{ErrFiltered}},
		{"before the start", Watch{Key: []byte("a"), Start: 3}, 0, []Response{of(0), of(2)}, []error{ErrFiltered}},
		{"invented", keyed("a"), 0, []Response{of(0), {Events: []*mvccpb.Event{put(3, "a", "x", 2, 2)}}},
			[]error{ErrFaithful}},
		{"never written", keyed("y"), 0, []Response{{Events: []*mvccpb.Event{put(3, "y", "x", 3, 1)}}},
			[]error{ErrFaithful}},
		{"previous value missing", Watch{Key: []byte("a"), Start: 3, PrevKV: true}, 0, []Response{of(2)},
			[]error{ErrFaithful}},
		{"previous value wrong", Watch{Key: []byte("a"), Start: 3, PrevKV: true}, 0,
			[]Response{with(happened[2], happened[2])}, []error{ErrFaithful}},
		{"previous value not asked for", Watch{Key: []byte("a"), Start: 3}, 0,
			[]Response{with(happened[2], happened[0])}, []error{ErrFaithful}},
		{"progress too early", abc, 0, []Response{progressAt(2), of(0, 1)}, []error{ErrBookmarkable}},
		{"progress over a loss", abc, 0, []Response{of(0, 1), progressAt(4)}, []error{ErrBookmarkable, ErrReliable}},
		{"goes on after the end", abc, 0, []Response{of(0, 1), {Canceled: true}, of(2)}, []error{ErrEnded}},
		{"no such compaction", abc, 3, []Response{of(0, 1), {Canceled: true, CompactRevision: 5}}, []error{ErrEnded}},
		{"compaction of what was delivered", abc, 6, []Response{of(0, 1, 2), {Canceled: true, CompactRevision: 3}},
			[]error{ErrEnded}},
	}
	all := []error{
		ErrOrdered, ErrUnique, ErrAtomic, ErrReliable, ErrFiltered, ErrFaithful, ErrBookmarkable, ErrEnded,
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := history()
			h.Compacted = test.compacted
			err := Check(h, test.watch, test.got)
			for _, promise := range all {
				want := false
				for _, e := range test.want {
					want = want || e == promise
				}
				if errors.Is(err, promise) != want {
					t.Errorf("%q: %v; whole result: %v", promise, !want, err)
				}
			}
		})
	}
}

func TestMatches(t *testing.T) {
	tests := []struct {
		key, end string
		want     string // of the keys a to d and \x00
	}{
		{"b", "", "b"},
		{"b", "d", "bc"},
		{"b", "\x00", "bcd"},
		{"", "\x00", "\x00abcd"},
		{"", "", "\x00"},
		{"c", "b", ""},
	}
	for _, test := range tests {
		var got strings.Builder
		for _, key := range []string{"\x00", "a", "b", "c", "d"} {
			if (Watch{Key: []byte(test.key), RangeEnd: []byte(test.end)}).Matches(put(1, key, "", 1, 1)) {
				got.WriteString(key)
			}
		}
		if got.String() != test.want {
			t.Errorf("%q to %q: %q, want %q", test.key, test.end, got.String(), test.want)
		}
	}
}

func TestAddStateFindsTheEvents(t *testing.T) {
	h := &History{}
	states := map[int64][]*mvccpb.KeyValue{
		2: {happened[0].Kv, happened[1].Kv},
		3: {happened[2].Kv, happened[1].Kv},
		4: {happened[2].Kv, happened[1].Kv, happened[3].Kv},
		5: {happened[1].Kv, happened[5].Kv, happened[3].Kv},
		6: {happened[6].Kv, happened[5].Kv, happened[3].Kv},
	}
	for rev := int64(2); rev <= 6; rev++ {
		h.AddState(rev, states[rev])
	}
	got := h.Events(0)
	if len(got) != len(happened) {
		t.Fatalf("%d events, want %d", len(got), len(happened))
	}
	for i, e := range got {
		if !proto.Equal(e, happened[i]) {
			t.Errorf("event %d is %v, want %v", i, e, happened[i])
		}
		if prev := history().Previous(happened[i]); !proto.Equal(h.Previous(e), prev) {
			t.Errorf("event %d has previous value %v, want %v", i, h.Previous(e), prev)
		}
	}
	if from := h.Events(5); len(from) != 3 {
		t.Errorf("%d events from revision 5, want 3", len(from))
	}
}
