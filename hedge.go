package clientv3

import (
	"context"
	"reflect"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/balance"
	"github.com/seed-d18e112a/clientv3/internal/retry"
)

// hedger makes the attempts of reads, and makes one a second time, at another endpoint, that has had no answer for
// longer than reads usually take: the first answer wins, the other attempt is cancelled. So one bad member costs a read
// the delay and not its deadline.
//
// A read that is answered in time pays for a timer that is set and stopped again, and nothing else: what may be needed
// later is kept ready in a pool.
type hedger struct {
	delay  *retry.HedgeDelay
	budget *retry.Budget
	races  sync.Pool // of *race that nobody has cancelled
}

func newHedger(floor time.Duration) *hedger {
	return &hedger{delay: retry.NewHedgeDelay(floor), budget: retry.NewHedgeBudget()}
}

// race is an attempt and its hedge. Its timer runs watch in a goroutine of its own, which the caller of invoke waits
// for.
type race struct {
	hedger   *hedger
	timer    *time.Timer
	first    context.Context    // cancelled to end the first attempt
	cancel   context.CancelFunc // ends first
	answered chan struct{}      // capacity 1: the first attempt has ended, which watch is told
	ended    chan struct{}      // capacity 1: watch has returned

	// The attempt. Not changed while the timer is set.
	attempt attempt
	set     *balance.Set
	call    *balance.Call
	delay   time.Duration // of the hedge

	due bool // the first attempt has taken longer than the delay; watch's until it has returned

	mu         sync.Mutex
	over       bool               // there is nothing to hedge any more
	stopSecond context.CancelFunc // nil until the second attempt is made
	won        bool               // the second attempt has, with reply
	reply      proto.Message
}

// attempt is what is passed to a grpc.UnaryInvoker, except for the context.
type attempt struct {
	method     string
	req, reply any
	conn       *grpc.ClientConn
	invoke     grpc.UnaryInvoker
	opts       []grpc.CallOption
}

func (a *attempt) make(ctx context.Context, reply any) error {
	return a.invoke(ctx, a.method, a.req, reply, a.conn, a.opts...)
}

// unwatched is how long an attempt is left alone before watch begins. Most are over by then, and are spared the cost of
// following their caller's context; the others see its end that much later if it ends within that time.
const unwatched = 25 * time.Millisecond

// hedge makes an attempt at a read.
func (h *hedger) hedge(set *balance.Set, call *balance.Call, a attempt) error {
	ctx := call.Context
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	r, _ := h.races.Get().(*race)
	if r == nil {
		r = h.newRace()
	}
	r.attempt, r.set, r.call, r.delay = a, set, call, h.delay.Get()
	call.CancelWith(r.first)
	alone := min(unwatched, r.delay)
	if deadline, ok := ctx.Deadline(); ok {
		alone = min(alone, time.Until(deadline))
	}
	r.timer.Reset(alone)
	err := r.settle(a.make(call, a.reply))
	if status.Code(err) == codes.Canceled && ctx.Err() != nil {
		err = status.FromContextError(ctx.Err()).Err() // the attempt was cancelled by r.cancel, whatever ended ctx
	}
	if r.first.Err() == nil {
		r.attempt, r.set, r.call = attempt{}, nil, nil
		r.over, r.due, r.stopSecond, r.won, r.reply = false, false, nil, false, nil
		h.races.Put(r)
	}
	return err
}

func (h *hedger) newRace() *race {
	r := &race{hedger: h, answered: make(chan struct{}, 1), ended: make(chan struct{}, 1)}
	r.first, r.cancel = context.WithCancel(context.Background())
	r.timer = time.AfterFunc(time.Hour, r.watch)
	r.timer.Stop()
	return r
}

// settle returns the end of the race, given that of its first attempt.
func (r *race) settle(err error) error {
	if r.timer.Stop() {
		if err == nil {
			r.hedger.delay.Answered()
		}
		return err
	}
	r.mu.Lock()
	sent := r.stopSecond != nil
	if !sent || !r.won && (err == nil || r.call.Answered()) {
		r.over = true // the server has spoken, or there is nothing else to wait for
	}
	if r.over && sent {
		r.stopSecond()
	}
	r.mu.Unlock()
	r.answered <- struct{}{}
	<-r.ended // at once if it is over, and else under the caller's context
	select {
	case <-r.answered: // watch had no need to know
	default:
	}
	if err == nil {
		switch {
		case sent:
			r.hedger.delay.Useless(r.delay)
		case !r.due:
			r.hedger.delay.Answered()
		}
		return nil
	}
	if !r.won {
		return err
	}
	if reply, ok := r.attempt.reply.(proto.Message); ok {
		proto.Reset(reply)
		proto.Merge(reply, r.reply)
	}
	return nil
}

// watch makes the attempt a second time when it is due, and ends the first one with the caller's context.
func (r *race) watch() {
	defer func() { r.ended <- struct{}{} }()
	ctx := r.call.Context
	due := time.NewTimer(r.delay - min(unwatched, r.delay))
	defer due.Stop()
	for made := false; !made; {
		select {
		case <-due.C:
			r.due = true
			if made = r.second(); !made {
				due.Reset(r.delay)
			}
		case <-r.answered:
			return
		case <-ctx.Done():
			made = true
		}
	}
	select {
	case <-r.answered:
	case <-ctx.Done():
		r.cancel()
	}
}

// second makes the attempt a second time, if that can help. It returns false if it may later: the first one has not found
// an endpoint yet, or no other is connected, or the budget does not allow it.
func (r *race) second() bool {
	r.set.Doubt(r.call)
	reply, ok := r.attempt.reply.(proto.Message)
	if !ok || !sharable(r.attempt.opts) {
		return true
	}
	if !r.call.Placed() {
		return false
	}
	r.mu.Lock()
	if over := r.over; over || !r.hedger.budget.Withdraw() {
		r.mu.Unlock()
		return over
	}
	ctx, cancel := context.WithCancel(r.call.Context)
	defer cancel()
	r.stopSecond = cancel
	r.mu.Unlock()

	// Not by the reply's own methods: the first answer may be on its way into it.
	reply, _ = reflect.TypeAssert[proto.Message](reflect.New(reflect.TypeOf(reply).Elem()))
	call := r.call.Hedge(ctx)
	err := r.attempt.make(call, reply)
	if err != nil {
		r.set.Refused(call, err)
		if call.Placed() {
			return true
		}
		r.hedger.budget.Return()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.stopSecond = nil
		return r.over
	}
	r.mu.Lock()
	won := !r.over
	if won {
		r.over, r.won, r.reply = true, true, reply
		r.cancel()
	}
	r.mu.Unlock()
	if won {
		r.set.Overtaken(r.call)
	}
	return true
}

// sharable reports whether two attempts can be made with the options at the same time: not if they write somewhere.
func sharable(opts []grpc.CallOption) bool {
	for _, opt := range opts {
		switch opt.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.PeerCallOption, grpc.OnFinishCallOption:
			return false
		}
	}
	return true
}
