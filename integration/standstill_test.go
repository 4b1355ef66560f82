package integration

import (
	"sync/atomic"
	"testing"
	"time"
)

const (
	standstillTick  = 10 * time.Millisecond
	shortStandstill = 500 * time.Millisecond // up to here a tick may be late on a machine that is merely busy
)

// standstill measures for how long the machine has stood still, as one does that shares its processors with others: what
// happens then says nothing about the client.
type standstill struct{ total atomic.Int64 }

// watchMachine measures until the test ends.
func watchMachine(t *testing.T) *standstill {
	t.Helper()
	s := new(standstill)
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped })
	go func() {
		defer close(stopped)
		tick := time.NewTicker(standstillTick)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			now := time.Now()
			if late := now.Sub(last) - standstillTick; late > shortStandstill {
				s.total.Add(int64(late))
			}
			last = now
		}
	}()
	return s
}

// long reports whether the machine stood still for so long that bounds of a second or more mean nothing any more, and
// logs it.
func (s *standstill) long(t *testing.T) bool {
	t.Helper()
	total := time.Duration(s.total.Load())
	if total > 0 {
		t.Logf("the machine stood still for %v", total)
	}
	return total > time.Second
}
