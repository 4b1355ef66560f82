package renew

import (
	"container/heap"
	"slices"
	"time"
)

// home is where a lease waits. A lease is in one at a time; put takes it out of the one before.
type home interface {
	put(l *lease, at time.Duration)
	remove(l *lease)
}

// leave takes the lease out of where it is, if it is anywhere.
func (l *lease) leave() {
	if l.home != nil {
		l.home.remove(l)
		l.home = nil
	}
}

// queue is a heap of leases, the smallest key (lease.at) first. Its exported methods are heap.Interface, not to be used
// otherwise.
type queue struct{ leases []*lease }

// first returns the lease with the smallest key, or nil.
func (q *queue) first() *lease {
	if len(q.leases) == 0 {
		return nil
	}
	return q.leases[0]
}

func (q *queue) put(l *lease, at time.Duration) {
	if l.home == q {
		l.at = at
		heap.Fix(q, int(l.slot))
		return
	}
	l.leave()
	l.home, l.at = q, at
	heap.Push(q, l)
}

func (q *queue) remove(l *lease) { heap.Remove(q, int(l.slot)) }

func (q *queue) Len() int           { return len(q.leases) }
func (q *queue) Less(i, j int) bool { return q.leases[i].at < q.leases[j].at }

func (q *queue) Swap(i, j int) {
	q.leases[i], q.leases[j] = q.leases[j], q.leases[i]
	q.leases[i].slot, q.leases[j].slot = int32(i), int32(j)
}

func (q *queue) Push(x any) {
	l := x.(*lease)
	l.slot = int32(len(q.leases))
	q.leases = append(q.leases, l)
}

func (q *queue) Pop() any {
	last := len(q.leases) - 1
	l := q.leases[last]
	q.leases[last] = nil
	q.leases = q.leases[:last]
	return l
}

// timetable holds leases by the instant at which something is to be done with them. It is made for many having the
// same one: whatever their number, putting one in and taking it out costs the same then. Leases with the same instant
// are kept in the order in which they came.
type timetable struct {
	times []time.Duration          // in ascending order
	due   map[time.Duration]*lease // the first of a circular list for each of times
	n     int
}

// next returns the first instant, or never.
func (t *timetable) next() time.Duration {
	if len(t.times) == 0 {
		return never
	}
	return t.times[0]
}

// first returns the first lease of the first instant, or nil.
func (t *timetable) first() *lease { return t.due[t.next()] }

func (t *timetable) put(l *lease, at time.Duration) {
	l.leave()
	l.home, l.at = t, at
	t.n++
	if first := t.due[at]; first != nil {
		last := first.prev
		last.next, l.prev = l, last
		l.next, first.prev = first, l
		return
	}
	if t.due == nil {
		t.due = make(map[time.Duration]*lease)
	}
	l.next, l.prev = l, l
	t.due[at] = l
	i, _ := slices.BinarySearch(t.times, at)
	t.times = slices.Insert(t.times, i, at)
}

func (t *timetable) remove(l *lease) {
	t.n--
	switch {
	case l.next == l:
		delete(t.due, l.at)
		i, _ := slices.BinarySearch(t.times, l.at)
		t.times = slices.Delete(t.times, i, i+1)
	case t.due[l.at] == l:
		t.due[l.at] = l.next
	}
	l.prev.next, l.next.prev = l.next, l.prev
	l.next, l.prev = nil, nil
}

// drain empties the timetable and returns what was in it.
func (t *timetable) drain() []*lease {
	all := make([]*lease, 0, t.n)
	for l := t.first(); l != nil; l = t.first() {
		l.leave()
		all = append(all, l)
	}
	return all
}
