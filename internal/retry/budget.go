package retry

import (
	"sync/atomic"
	"time"
)

// What a Budget allows. A token is one further attempt; amounts are in thousandths of one.
const (
	token = 1000

	budgetInitial = 10 * token // a client's first failures may be retried freely
	budgetDeposit = token / 10 // earned by each first attempt: retries stay within 10 % of them in the long run
	budgetMax     = 100 * token
	budgetRefill  = time.Second // the time in which a retry comes back while fewer than the initial ones are left

	hedgeInitial = 25 * token
	hedgeDeposit = token / 20
	hedgeMax     = 200 * token
)

// Budget bounds the further attempts of a client when its cluster is in trouble. Without such a bound every call that
// fails, or takes long, becomes many, and a cluster that is coming back is kept down by its clients.
//
// The idea is Finagle's RetryBudget. Safe for concurrent use; make one with NewBudget or NewHedgeBudget.
type Budget struct {
	tokens   atomic.Int64
	refilled atomic.Int64 // when the refill last gave a token, in nanoseconds since start
	start    time.Time

	deposit, limit int64
	refillTo       int64 // time gives tokens while fewer are left
}

// NewBudget returns a budget of retries: at most a tenth of the first attempts, plus ten to start with and one a second,
// so that a lone waiting caller still finds out that the cluster has come back. It holds at most a hundred, earned in
// healthy times.
func NewBudget() *Budget { return newBudget(budgetInitial, budgetDeposit, budgetMax) }

// NewHedgeBudget returns a budget of hedges: at most a twentieth of the reads, plus 25 to start with. It holds at most
// two hundred, so that the fault of one member, which is passed over as soon as it is found out, can be hedged by every
// caller.
func NewHedgeBudget() *Budget {
	b := newBudget(hedgeInitial, hedgeDeposit, hedgeMax)
	b.refillTo = 0
	return b
}

func newBudget(initial, deposit, limit int64) *Budget {
	b := &Budget{start: time.Now(), deposit: deposit, limit: limit, refillTo: initial}
	b.tokens.Store(initial)
	return b
}

// Deposit is called for the first attempt of each call. It costs one atomic load while the budget is full.
func (b *Budget) Deposit() {
	if b.tokens.Load() < b.limit {
		b.tokens.Add(b.deposit) // may pass the limit by a few callers' deposits, which does no harm
	}
}

// Withdraw takes one attempt from the budget and reports whether there was one.
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

// Return gives back an attempt that was withdrawn and not made.
func (b *Budget) Return() { b.tokens.Add(token) }

// refill gives back what time has earned since the last call, while less than refillTo is left. Two callers
// may see the same elapsed time; the one whose swap succeeds gives the tokens.
func (b *Budget) refill() {
	now, last := int64(time.Since(b.start)), b.refilled.Load()
	earned := (now - last) / int64(budgetRefill)
	if earned <= 0 || !b.refilled.CompareAndSwap(last, last+earned*int64(budgetRefill)) {
		return
	}
	if have := b.tokens.Load(); have < b.refillTo {
		b.tokens.Add(min(earned*token, b.refillTo-have))
	}
}
