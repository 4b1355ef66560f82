package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is exponential backoff. With full jitter, the default, the delay before a further attempt is drawn uniformly
// from [0, min(Max, Base·2^attempt)], so that callers who failed together do not come back together.
// Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
//
// The zero value waits for nothing. A Backoff is immutable and safe for concurrent use.
type Backoff struct {
	Base time.Duration // upper bound of the first delay
	Max  time.Duration // upper bound of every delay, before Jitter; 0 means Base

	// Jitter is the fraction of the delay by which it is varied, up and down, from 0 to 1; 0 means full jitter.
	Jitter float64
}

// Ceiling returns the largest delay that Delay may draw for the attempt, counted from 0, with full jitter, and the one
// that it varies otherwise.
func (b Backoff) Ceiling(attempt int) time.Duration {
	limit := max(b.Base, b.Max)
	ceiling := b.Base
	for range attempt {
		if ceiling >= limit/2 {
			return limit
		}
		ceiling *= 2
	}
	return ceiling
}

// Delay draws the delay before the attempt that follows the given number of failed ones, counted from 0.
func (b Backoff) Delay(attempt int) time.Duration {
	ceiling := b.Ceiling(attempt)
	if ceiling <= 0 {
		return 0
	}
	if b.Jitter > 0 {
		return time.Duration(float64(ceiling) * (1 + b.Jitter*(2*rand.Float64()-1)))
	}
	return rand.N(ceiling + 1)
}

// Wait sleeps for Delay(attempt). It returns ctx.Err() at once if the context ends first.
func (b Backoff) Wait(ctx context.Context, attempt int) error {
	return Sleep(ctx, b.Delay(attempt))
}

// Sleep waits for d, or until ctx ends; then it returns ctx.Err().
func Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
