package leasing

import (
	"slices"

	"github.com/seed-d18e112a/clientv3"
)

// revokeValue is what a leasing key holds when its owner is asked to give it up.
const revokeValue = "REVOKE"

// names translates keys to leasing keys and back.
type names struct {
	prefix string
	end    string // of the range of all leasing keys
}

func newNames(prefix string) names {
	return names{prefix: prefix, end: clientv3.GetPrefixRangeEnd(prefix)}
}

// leasing returns the leasing key of a key.
func (n names) leasing(key string) string { return n.prefix + key }

// leasingEnd returns the end of the range of the leasing keys of a range.
func (n names) leasingEnd(end string) string {
	if end == "\x00" {
		return n.end
	}
	return n.prefix + end
}

// key returns the key of a leasing key.
func (n names) key(leasing []byte) string { return string(leasing[len(n.prefix):]) }

// span is a range of keys; the end "\x00" is none.
type span struct{ begin, end string }

// writes is what a transaction may write.
type writes struct {
	keys  []string
	spans []span
}

// add adds what operations may write, whichever branch is taken.
func (w *writes) add(ops []clientv3.Op) {
	for _, op := range ops {
		switch {
		case op.IsTxn():
			_, thenOps, elseOps := op.Txn()
			w.add(thenOps)
			w.add(elseOps)
		case op.IsGet():
		case len(op.RangeBytes()) > 0:
			if s := (span{string(op.KeyBytes()), string(op.RangeBytes())}); !slices.Contains(w.spans, s) {
				w.spans = append(w.spans, s)
			}
		default:
			if key := string(op.KeyBytes()); !slices.Contains(w.keys, key) {
				w.keys = append(w.keys, key)
			}
		}
	}
}

// onlyReads reports whether an operation writes nothing, whichever branch is taken.
func onlyReads(op clientv3.Op) bool {
	var w writes
	w.add([]clientv3.Op{op})
	return len(w.keys) == 0 && len(w.spans) == 0
}
