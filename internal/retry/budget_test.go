package retry

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// withdrawAll takes what the budget has and returns how much that was.
func withdrawAll(b *Budget) int {
	n := 0
	for b.Withdraw() {
		n++
	}
	return n
}

func TestBudgetBeginsWithTen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if got := withdrawAll(NewBudget()); got != 10 {
			t.Errorf("%d retries, want 10", got)
		}
	})
}

func TestBudgetEarnsATenthOfFirstAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget()
		withdrawAll(b)
		for range 99 {
			b.Deposit()
		}
		if got := withdrawAll(b); got != 9 {
			t.Errorf("%d retries after 99 calls, want 9", got)
		}
		b.Deposit()
		if got := withdrawAll(b); got != 1 {
			t.Errorf("%d retries after the 100th call, want 1", got)
		}
	})
}

func TestBudgetHoldsAtMostAHundred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget()
		for range 10_000 {
			b.Deposit()
		}
		if got := withdrawAll(b); got != 100 {
			t.Errorf("%d retries, want 100", got)
		}
	})
}

func TestBudgetRefillsOneASecondUpToItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget()
		withdrawAll(b)
		time.Sleep(3500 * time.Millisecond)
		if got := withdrawAll(b); got != 3 {
			t.Errorf("%d retries after 3.5 s, want 3", got)
		}
		time.Sleep(500 * time.Millisecond) // the half second that was left over counts
		if got := withdrawAll(b); got != 1 {
			t.Errorf("%d retries after 4 s, want 1", got)
		}
		time.Sleep(time.Hour)
		if got := withdrawAll(b); got != 10 {
			t.Errorf("%d retries after an hour, want 10", got)
		}
	})
}

func TestBudgetRefillDoesNotAddToWhatWasEarned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget()
		for range 200 {
			b.Deposit() // ten to begin with and twenty earned
		}
		time.Sleep(time.Hour)
		if got := withdrawAll(b); got != 30 {
			t.Errorf("%d retries, want 30", got)
		}
	})
}

func TestBudgetIsNotOverdrawnByManyCallers(t *testing.T) {
	b := NewBudget()
	for range 900 {
		b.Deposit()
	}
	start := time.Now()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total int
	)
	for range 8 {
		wg.Go(func() {
			n := withdrawAll(b)
			mu.Lock()
			defer mu.Unlock()
			total += n
		})
	}
	wg.Wait()
	if limit := 100 + 1 + int(time.Since(start)/time.Second); total > limit {
		t.Errorf("%d retries, want at most %d", total, limit)
	}
}

func TestHedgeBudgetEarnsATwentiethOfReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewHedgeBudget()
		if got := withdrawAll(b); got != 25 {
			t.Errorf("%d hedges to begin with, want 25", got)
		}
		time.Sleep(time.Hour)
		if got := withdrawAll(b); got != 0 {
			t.Errorf("%d hedges come of nothing", got)
		}
		for range 100 {
			b.Deposit()
		}
		if got := withdrawAll(b); got != 5 {
			t.Errorf("%d hedges of 100 reads, want 5", got)
		}
		for range 100_000 {
			b.Deposit()
		}
		if got := withdrawAll(b); got != 200 {
			t.Errorf("%d hedges are held, want 200", got)
		}
	})
}

func TestAnAttemptThatWasNotMadeIsGivenBack(t *testing.T) {
	b := NewHedgeBudget()
	for b.Withdraw() {
	}
	b.Return()
	if !b.Withdraw() || b.Withdraw() {
		t.Error("what was given back is not there once")
	}
}
