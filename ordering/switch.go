package ordering

import (
	"errors"
	"sync"

	"github.com/seed-d18e112a/clientv3"
)

// ErrNoGreaterRev is the error of a read that was repeated often enough to have come to every member of the cluster,
// and was behind on all of them.
var ErrNoGreaterRev = errors.New(
	"etcdclient: no cluster members have a revision higher than the previously received revision")

// attemptsPerEndpoint is how often reads are repeated for each endpoint at least. The client chooses endpoints at
// random, so this many leave few chances to have missed one.
const attemptsPerEndpoint = 5

// NewOrderViolationSwitchEndpointClosure returns a function for NewKV that has reads repeated, which the client sends
// to one endpoint or another. It returns ErrNoGreaterRev when reads were repeated more than five times for each endpoint
// of c, and as many members were seen to be behind as there are endpoints; then, and whenever a greater revision was
// received, it begins to count anew. All reads are counted together: the function cannot tell them apart, and so does
// not take it for a sign that one member is behind again and again.
func NewOrderViolationSwitchEndpointClosure(c *clientv3.Client) OrderViolationFunc {
	var (
		mu     sync.Mutex
		behind violations
	)
	return func(_ clientv3.Op, resp clientv3.OpResponse, prevRev int64) error {
		endpoints := len(c.Endpoints())
		mu.Lock()
		defer mu.Unlock()
		if prevRev > behind.revision {
			behind = violations{revision: prevRev} // some member was not behind since
		}
		if behind.exhausted(endpoints) {
			behind = violations{revision: prevRev}
			return ErrNoGreaterRev
		}
		behind.add(headerOf(resp).GetMemberId())
		return nil
	}
}

// violations are the responses that were behind a revision.
type violations struct {
	revision int64
	count    int
	members  map[uint64]bool // that gave them
	unnamed  bool            // one did not say whose it was
}

func (v *violations) add(member uint64) {
	v.count++
	if member == 0 {
		v.unnamed = true
		return
	}
	if v.members == nil {
		v.members = make(map[uint64]bool)
	}
	v.members[member] = true
}

func (v *violations) exhausted(endpoints int) bool {
	return v.count > attemptsPerEndpoint*endpoints && (v.unnamed || len(v.members) >= endpoints)
}
