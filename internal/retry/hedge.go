package retry

import (
	"sync/atomic"
	"time"
)

// HedgeDelay is how long a read waits for its answer before it is sent a second time. It never is less than its floor,
// and grows where reads ordinarily take longer, so that few are sent twice for nothing: a hedge that was answered later
// than the first attempt raises it by a quarter, each read that needed none lowers it a little. Both together hold it
// where about one read in a hundred is hedged for nothing. No clock is read for that.
//
// Safe for concurrent use; make one with NewHedgeDelay.
type HedgeDelay struct {
	floor   int64
	current atomic.Int64
}

const (
	hedgeCeiling = 20   // times the floor
	hedgeDecay   = 2048 // reads in which what is above the floor falls to about a third
)

// NewHedgeDelay returns a delay that begins at its floor.
func NewHedgeDelay(floor time.Duration) *HedgeDelay {
	d := &HedgeDelay{floor: int64(floor)}
	d.current.Store(d.floor)
	return d
}

// Get returns the delay.
func (d *HedgeDelay) Get() time.Duration { return time.Duration(d.current.Load()) }

// Answered is called for a read that was answered before its delay had passed. At the floor it costs one atomic load.
func (d *HedgeDelay) Answered() {
	if above := d.current.Load() - d.floor; above > 0 {
		d.current.Add(-(above + hedgeDecay - 1) / hedgeDecay) // two callers may take it below the floor, by nothing much
	}
}

// Useless is called for a read whose hedge, sent after the given delay, was not needed. Of those that waited equally long
// only the first one counts: what slowed them down at the same time is one event.
func (d *HedgeDelay) Useless(delay time.Duration) {
	raised := min(int64(delay)+int64(delay)/4, d.floor*hedgeCeiling)
	d.current.CompareAndSwap(int64(delay), raised)
}
