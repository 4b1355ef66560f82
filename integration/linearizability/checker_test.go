package linearizability

import (
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

const testGroup = prefix + "0/1/"

// The calls of which the histories below are made: all on key a.
func putOf(value int64) op {
	return op{Kind: "put", Group: testGroup, Keys: [keys]bool{true}, Guard: -1, Write: true, New: values{value}}
}

func casOf(expect, value int64) op {
	o := putOf(value)
	o.Kind, o.Guard, o.Expect = "txn", 0, expect
	return o
}

var readA = op{Kind: "get", Group: testGroup, Keys: [keys]bool{true}, Guard: -1}

// at returns a call that took from one moment to another.
func at(call, ret time.Duration, o op, out outcome) record {
	return record{Call: call, Return: ret, Op: o, Outcome: out}
}

func ok(old int64) outcome   { return outcome{Held: true, Old: values{old}} }
func no(old int64) outcome   { return outcome{Old: values{old}} }
func lost(r record) record   { r.Err, r.MayHaveApplied = "lost", true; return r }
func denied(r record) record { r.Err = "refused"; return r }

func TestCheckerTellsHistoriesApart(t *testing.T) {
	write, lostWrite := at(0, 1, putOf(1), ok(0)), lost(at(0, 1, putOf(1), outcome{}))
	tests := map[string]struct {
		history []record
		want    porcupine.CheckResult
	}{
		"a read after a write": {[]record{write, at(2, 3, readA, ok(1))}, porcupine.Ok},
		"a stale read":         {[]record{write, at(2, 3, readA, ok(0))}, porcupine.Illegal},
		"a read beside a write sees either": {
			[]record{at(0, 9, putOf(1), ok(0)), at(1, 2, readA, ok(0)), at(3, 4, readA, ok(1))}, porcupine.Ok,
		},
		"a write seen and then not": {
			[]record{at(0, 9, putOf(1), ok(0)), at(1, 2, readA, ok(1)), at(3, 4, readA, ok(0))}, porcupine.Illegal,
		},
		"a lost write that never happens":    {[]record{lostWrite, at(2, 3, readA, ok(0))}, porcupine.Ok},
		"a lost write that happens later":    {[]record{lostWrite, at(2, 3, readA, ok(0)), at(4, 5, readA, ok(1))}, porcupine.Ok},
		"a lost write that happens and ends": {[]record{lostWrite, at(2, 3, readA, ok(1)), at(4, 5, readA, ok(0))}, porcupine.Illegal},
		"a lost write that happens twice": {
			[]record{lostWrite, at(2, 3, readA, ok(1)), at(4, 5, putOf(2), ok(1)), at(6, 7, readA, ok(1))}, porcupine.Illegal,
		},
		"a refused write that did not happen": {
			[]record{denied(at(0, 1, putOf(1), outcome{})), at(2, 3, readA, ok(0))}, porcupine.Ok,
		},
		"a refused write that has happened": {
			[]record{denied(at(0, 1, putOf(1), outcome{})), at(2, 3, readA, ok(1))}, porcupine.Illegal,
		},
		"a swap that holds":        {[]record{write, at(2, 3, casOf(1, 2), ok(1)), at(4, 5, readA, ok(2))}, porcupine.Ok},
		"a swap that does not":     {[]record{write, at(2, 3, casOf(7, 2), no(1)), at(4, 5, readA, ok(1))}, porcupine.Ok},
		"a swap that should hold":  {[]record{write, at(2, 3, casOf(1, 2), no(1))}, porcupine.Illegal},
		"two swaps of the same":    {[]record{write, at(2, 9, casOf(1, 2), ok(1)), at(2, 9, casOf(1, 3), ok(1))}, porcupine.Illegal},
		"a previous value missing": {[]record{write, at(2, 3, putOf(2), ok(0))}, porcupine.Illegal},
		"a torn range": {
			[]record{
				at(0, 1, op{Kind: "txn", Keys: [keys]bool{true, true}, Guard: -1, Write: true, New: values{1, 2}}, ok(0)),
				at(2, 3, op{Kind: "range", Keys: [keys]bool{true, true}, Guard: -1}, outcome{Held: true, Old: values{1, 0}}),
			}, porcupine.Illegal,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := porcupine.CheckOperationsTimeout(model, operations(test.history), searchTime); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestVerifyTellsWhatWritersWereToldFromWhatHappened(t *testing.T) {
	put := func(rev int64, key, value string) *mvccpb.Event {
		return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(testGroup + key), Value: []byte(value), ModRevision: rev}}
	}
	told := func(rev int64, o op) record { return record{Op: o, Outcome: outcome{Held: true, Revision: rev}} }
	tests := map[string]struct {
		truth   []*mvccpb.Event
		records []record
		bad     bool
	}{
		"as told":                {[]*mvccpb.Event{put(5, "a", "1")}, []record{told(5, putOf(1))}, false},
		"lost, not happened":     {nil, []record{lost(told(0, putOf(1)))}, false},
		"lost, happened":         {[]*mvccpb.Event{put(5, "a", "1")}, []record{lost(told(0, putOf(1)))}, false},
		"refused, not happened":  {nil, []record{denied(told(0, putOf(1)))}, false},
		"refused, happened":      {[]*mvccpb.Event{put(5, "a", "1")}, []record{denied(told(0, putOf(1)))}, true},
		"told, not happened":     {nil, []record{told(5, putOf(1))}, true},
		"at another revision":    {[]*mvccpb.Event{put(6, "a", "1")}, []record{told(5, putOf(1))}, true},
		"to another key":         {[]*mvccpb.Event{put(5, "b", "1")}, []record{told(5, putOf(1))}, true},
		"twice":                  {[]*mvccpb.Event{put(5, "a", "1"), put(6, "a", "1")}, []record{told(6, putOf(1))}, true},
		"a value of nobody's":    {[]*mvccpb.Event{put(5, "a", "x")}, nil, true},
		"no swap, but it was":    {[]*mvccpb.Event{put(5, "a", "1")}, []record{{Op: casOf(7, 1)}}, true},
		"no swap, and there was": {nil, []record{{Op: casOf(7, 1)}}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if errs := verify(test.truth, test.records); (len(errs) > 0) != test.bad {
				t.Errorf("got %v, want an error: %v", errs, test.bad)
			}
		})
	}
}

func TestGroupsAreLeftBeforeTheyGrowTooBig(t *testing.T) {
	var g groups
	first := g.pick(0)
	for range groupOpen {
		g.unknown(first)
	}
	second := g.pick(0)
	if second == first || second.prefix == first.prefix {
		t.Error("a group was kept that has too many calls of unknown outcome")
	}
	for range groupCalls - 1 {
		if g.pick(0) != second {
			t.Fatal("a group was left too early")
		}
	}
	if g.pick(0) == second {
		t.Error("a group was kept that has too many calls")
	}
	if other := g.pick(1); slices.Contains([]*group{first, second}, other) {
		t.Error("two slots have the same group")
	}
}
