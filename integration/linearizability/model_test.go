package linearizability

import (
	"fmt"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// keys is how many keys a group has. Calls are about keys of one group, so each group's history stands alone.
const keys = 2

// values are those of a group's keys. Every value is written by one call only. 0: the key does not exist.
type values [keys]int64

// op is a call: if the condition holds, the keys in Keys get new values. Its result is whether the condition held, and the
// values that the keys had before.
type op struct {
	Kind  string
	Group string
	Keys  [keys]bool
	// Guard is the key that is compared with Expect, or -1 if there is no condition.
	Guard  int
	Expect int64
	// Write tells a write from a read. New has the new values; 0 deletes.
	Write bool
	New   values
}

// outcome is what a call returned.
type outcome struct {
	Held     bool
	Old      values
	Revision int64
	// Unknown: the call has failed and may have been applied.
	Unknown bool
}

// record is a call that has ended.
type record struct {
	Caller         int
	Call, Return   time.Duration // since the beginning of the run
	Op             op
	Outcome        outcome
	Err            string `json:",omitempty"`
	MayHaveApplied bool   // of a write that has failed
}

func (r record) failed() bool { return r.Err != "" }

// step is the model: what an op does to the values, and whether its outcome fits.
func step(before values, o op, out outcome) (bool, values) {
	holds := o.Guard < 0 || before[o.Guard] == o.Expect
	after := before
	for i, concerned := range o.Keys {
		if !concerned {
			continue
		}
		if !out.Unknown && out.Old[i] != before[i] {
			return false, before
		}
		if o.Write && holds {
			after[i] = o.New[i]
		}
	}
	return out.Unknown || out.Held == holds, after
}

var model = porcupine.Model{
	Init: func() any { return values{} },
	Step: func(state, input, output any) (bool, any) {
		ok, after := step(state.(values), input.(op), output.(outcome))
		return ok, after
	},
	DescribeOperation: func(input, output any) string { return describe(input.(op), output.(outcome)) },
	DescribeState:     func(state any) string { return fmt.Sprint(state.(values)) },
}

func describe(o op, out outcome) string {
	var b strings.Builder
	b.WriteString(o.Kind)
	if o.Guard >= 0 {
		fmt.Fprintf(&b, " if %c=%d", 'a'+o.Guard, o.Expect)
	}
	for i, concerned := range o.Keys {
		switch {
		case concerned && o.Write:
			fmt.Fprintf(&b, " %c:=%d", 'a'+i, o.New[i])
		case concerned:
			fmt.Fprintf(&b, " %c", 'a'+i)
		}
	}
	if out.Unknown {
		b.WriteString(" → unknown")
		return b.String()
	}
	if !out.Held {
		b.WriteString(" → no;")
	} else {
		b.WriteString(" →")
	}
	for i, concerned := range o.Keys {
		if concerned {
			fmt.Fprintf(&b, " %c was %d", 'a'+i, out.Old[i])
		}
	}
	fmt.Fprintf(&b, " (revision %d)", out.Revision)
	return b.String()
}

// operations returns the calls of one group as the checker takes them. Those that have failed for certain have done
// nothing and are left out, so that whoever saw one of their values has seen what cannot be. Those of unknown outcome end
// when all others have: one that never happens is as good as one that happens then.
func operations(records []record) []porcupine.Operation {
	var end time.Duration
	for _, r := range records {
		end = max(end, r.Return)
	}
	var ops []porcupine.Operation
	for _, r := range records {
		o := porcupine.Operation{
			ClientId: r.Caller, Input: r.Op, Output: r.Outcome, Call: int64(r.Call), Return: int64(r.Return),
		}
		if r.failed() {
			if !r.Op.Write || !r.MayHaveApplied {
				continue
			}
			o.Output, o.Return = outcome{Unknown: true}, int64(end)+1
		}
		ops = append(ops, o)
	}
	return ops
}

// byGroup returns the calls of each group.
func byGroup(records []record) map[string][]record {
	groups := make(map[string][]record)
	for _, r := range records {
		groups[r.Op.Group] = append(groups[r.Op.Group], r)
	}
	return groups
}
