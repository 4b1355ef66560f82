package retry

import (
	"sync/atomic"
	"time"
)

// What a Budget allows. A token is one retry; amounts are in thousandths of one.
const (
	token = 1000

	budgetInitial = 10 * token // a client's first failures may be retried freely
	budgetDeposit = token / 10 // earned by each first attempt: retries stay within 10 % of them in the long run
	budgetMax     = 100 * token
	budgetRefill  = time.Second // the time in which a token comes back while fewer than budgetInitial are left
)

// Budget bounds the retries of a client when its cluster is down: at most a tenth of the first attempts, plus ten to
// start with and one a second, so that a lone waiting caller still finds out that the cluster has come back. It holds
// at most a hundred retries, earned in healthy times. Without such a bound every failed call becomes many, and a
// cluster that is coming back is kept down by its clients.
//
// The idea is Finagle's RetryBudget. Safe for concurrent use; make one with NewBudget.
type Budget struct {
	tokens   atomic.Int64
	refilled atomic.Int64 // when the refill last gave a token, in nanoseconds since start
	start    time.Time
}

// NewBudget returns a budget of ten retries.
func NewBudget() *Budget {
	b := &Budget{start: time.Now()}
	b.tokens.Store(budgetInitial)
	return b
}

// Deposit is called for the first attempt of each call. It costs one atomic load while the budget is full.
func (b *Budget) Deposit() {
	if b.tokens.Load() < budgetMax {
		b.tokens.Add(budgetDeposit) // may pass the limit by a few callers' deposits, which does no harm
	}
}

// Withdraw takes one retry from the budget and reports whether there was one.
func (b *Budget) Withdraw() bool {
	b.refill()
	for {
		have := b.tokens.Load()
		if have < token {
			return false
		}
		if b.tokens.CompareAndSwap(have, have-token) {
			return true
		}
	}
}

// refill gives back what time has earned since the last call, while less than the initial amount is left. Two callers
// may see the same elapsed time; the one whose swap succeeds gives the tokens.
func (b *Budget) refill() {
	now, last := int64(time.Since(b.start)), b.refilled.Load()
	earned := (now - last) / int64(budgetRefill)
	if earned <= 0 || !b.refilled.CompareAndSwap(last, last+earned*int64(budgetRefill)) {
		return
	}
	if have := b.tokens.Load(); have < budgetInitial {
		b.tokens.Add(min(earned*token, budgetInitial-have))
	}
}
