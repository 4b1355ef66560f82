package retry

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestHedgeDelayStaysAtItsFloorWhileReadsAreQuick(t *testing.T) {
	d := NewHedgeDelay(100 * time.Millisecond)
	for range 1000 {
		d.Answered()
	}
	if got := d.Get(); got != 100*time.Millisecond {
		t.Errorf("%v", got)
	}
}

func TestHedgeDelayCountsOneEventOnce(t *testing.T) {
	d := NewHedgeDelay(100 * time.Millisecond)
	for range 50 {
		d.Useless(100 * time.Millisecond)
	}
	if got := d.Get(); got != 125*time.Millisecond {
		t.Errorf("%v after reads that waited equally long, want 125 ms", got)
	}
	for range 50 {
		d.Useless(d.Get())
	}
	if got := d.Get(); got != 2*time.Second {
		t.Errorf("at most %v, want 2 s", got)
	}
}

// Reads of 50 to 450 ms: the delay finds its way to where few of them are hedged for nothing.
func TestHedgeDelayFollowsLatencies(t *testing.T) {
	d := NewHedgeDelay(100 * time.Millisecond)
	random := rand.New(rand.NewPCG(1, 2))
	useless := 0
	for i := range 100_000 {
		latency, delay := 50*time.Millisecond+time.Duration(random.Int64N(int64(400*time.Millisecond))), d.Get()
		if latency < delay {
			d.Answered()
			continue
		}
		d.Useless(delay)
		if i > 10_000 {
			useless++
		}
	}
	if useless == 0 || useless > 2700 {
		t.Errorf("%d of 90000 reads hedged for nothing, want about one in a hundred", useless)
	}
	if got := d.Get(); got < 350*time.Millisecond || got > 600*time.Millisecond {
		t.Errorf("%v", got)
	}
	for range 50_000 {
		d.Answered()
	}
	if got := d.Get(); got < 99*time.Millisecond || got > 100*time.Millisecond {
		t.Errorf("%v once all are quick, want the floor", got)
	}
}
