package renew

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// shelf is what queue and timetable have in common.
type shelf interface {
	home
	first() *lease
}

func TestQueueAndTimetableReturnTheSmallestKeyFirst(t *testing.T) {
	for _, s := range []shelf{new(queue), new(timetable)} {
		rng := rand.New(rand.NewPCG(1, 2))
		other := new(queue)
		leases := make([]*lease, 300)
		for i := range leases {
			leases[i] = &lease{id: int64(i)}
		}
		in := make(map[*lease]bool)
		for step := range 20_000 {
			l := leases[rng.IntN(len(leases))]
			switch rng.IntN(4) {
			case 0:
				l.leave()
				delete(in, l)
			case 1:
				other.put(l, time.Duration(rng.IntN(50)))
				delete(in, l)
			case 2:
				// Also puts again one that is in it.
				s.put(l, time.Duration(rng.IntN(50)))
				in[l] = true
			case 3:
				if first := s.first(); first != nil {
					first.leave()
					delete(in, first)
				}
			}
			var keys []time.Duration
			for l := range in {
				if l.home != s.(home) {
					t.Fatalf("step %d: lease is elsewhere", step)
				}
				keys = append(keys, l.at)
			}
			first := s.first()
			if (first == nil) != (len(keys) == 0) || first != nil && first.at != slices.Min(keys) {
				t.Fatalf("step %d: first is %+v, keys %v", step, first, keys)
			}
			if tt, ok := s.(*timetable); ok {
				checkTimetable(t, tt, len(in))
			}
		}
	}
}

func checkTimetable(t *testing.T, tt *timetable, n int) {
	t.Helper()
	count := 0
	for _, at := range tt.times {
		first := tt.due[at]
		for l := first; ; l = l.next {
			if l.at != at || l.next.prev != l {
				t.Fatalf("broken list at %v", at)
			}
			if count++; l.next == first || count > n {
				break
			}
		}
	}
	if count != n || tt.n != n || len(tt.times) != len(tt.due) || !slices.IsSorted(tt.times) {
		t.Fatalf("%d leases linked, %d counted, want %d; %d instants, %d lists", count, tt.n, n, len(tt.times), len(tt.due))
	}
}

func TestTimetableWithoutLeases(t *testing.T) {
	var tt timetable
	if tt.next() != never || tt.first() != nil {
		t.Error("something is due")
	}
}
