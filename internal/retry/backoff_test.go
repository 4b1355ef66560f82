package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoffCeilingDoublesUpToItsMaximum(t *testing.T) {
	b := Backoff{Base: 25 * time.Millisecond, Max: time.Second}
	for attempt, ms := range []time.Duration{25, 50, 100, 200, 400, 800, 1000, 1000} {
		if got := b.Ceiling(attempt); got != ms*time.Millisecond {
			t.Errorf("attempt %d: %v, want %v", attempt, got, ms*time.Millisecond)
		}
	}
	if got := b.Ceiling(1 << 20); got != time.Second {
		t.Errorf("a late attempt: %v, want %v", got, time.Second)
	}
	if got := (Backoff{Base: time.Second}).Ceiling(9); got != time.Second {
		t.Errorf("without a maximum: %v, want the base", got)
	}
}

func TestBackoffFullJitterDrawsFromNothingToTheCeiling(t *testing.T) {
	b := Backoff{Base: time.Second, Max: 8 * time.Second}
	var low, high bool
	for range 1000 {
		d := b.Delay(2)
		if d < 0 || d > 4*time.Second {
			t.Fatalf("%v is outside 0 to 4 s", d)
		}
		low = low || d < 400*time.Millisecond
		high = high || d > 3600*time.Millisecond
	}
	if !low || !high {
		t.Errorf("1000 delays leave out a tenth at an end: low %t, high %t", low, high)
	}
}

func TestBackoffJitterFractionVariesTheWait(t *testing.T) {
	b := Backoff{Base: time.Second, Jitter: 0.1}
	var low, high bool
	for range 1000 {
		d := b.Delay(0)
		if d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Fatalf("%v is outside 1 s ± 10 %%", d)
		}
		low = low || d < 950*time.Millisecond
		high = high || d > 1050*time.Millisecond
	}
	if !low || !high {
		t.Errorf("1000 delays all lie on one side: low %t, high %t", low, high)
	}
}

func TestZeroBackoffWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := (Backoff{}).Wait(t.Context(), 5); err != nil || time.Since(start) != 0 {
			t.Errorf("waited %v with error %v", time.Since(start), err)
		}
	})
}

func TestBackoffWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := Backoff{Base: time.Hour, Jitter: 0.1}.Wait(ctx, 0)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("waited %v with error %v", time.Since(start), err)
		}
		if err := Sleep(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("under an ended context: %v", err)
		}
	})
}
