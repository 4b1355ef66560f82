package balance

import (
	"math/rand/v2"
	"slices"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// picker picks among connected endpoints.
type picker struct {
	ready   []*Endpoint
	monitor *monitor
}

func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	call := CallFrom(info.Ctx)
	if call != nil && call.target != nil {
		return p.pickTarget(call)
	}
	e := p.choose(call)
	if call == nil {
		e.traffic.begin()
		p.monitor.begun()
		return balancer.PickResult{SubConn: e.sub, Done: e.done}, nil
	}
	if call.elsewhere && slices.Contains(call.avoid, e) {
		return balancer.PickResult{}, errNowhereElse
	}
	call.endpoint.Store(e)
	call.answers.Store(e.traffic.begin())
	call.outcome.Store(0)
	if call.leave != nil {
		e.lines.join(call)
	}
	p.monitor.begun()
	return balancer.PickResult{SubConn: e.sub, Done: call.done}, nil
}

var (
	errNowhereElse  = status.Error(codes.Unavailable, "no other endpoint is connected")
	errNotConnected = status.Error(codes.Unavailable, "the endpoint is not connected")
)

// pickTarget picks the endpoint that a probe is for.
func (p *picker) pickTarget(call *Call) (balancer.PickResult, error) {
	if !slices.Contains(p.ready, call.target) {
		return balancer.PickResult{}, errNotConnected
	}
	call.endpoint.Store(call.target)
	return balancer.PickResult{SubConn: call.target.sub, Done: call.done}, nil
}

// choose returns the less busy of two endpoints drawn at random: from those in the best standing, for they may all be in
// a bad one. Drawing two rather than taking the least busy of all keeps many clients from flocking to the same one.
func (p *picker) choose(call *Call) *Endpoint {
	first, second := drawTwo(p.ready)
	if rank(first, call) != 0 || rank(second, call) != 0 {
		var few [8]*Endpoint
		first, second = drawTwo(best(few[:0], p.ready, call))
	}
	a, _ := first.traffic.load()
	b, _ := second.traffic.load()
	if b < a {
		return second
	}
	return first
}

// rank tells how unwilling the call is to go to the endpoint; 0 is not at all. Those that the call says to avoid are
// only picked if nothing else is connected.
func rank(e *Endpoint, call *Call) uint32 {
	standing := e.standing.Load()
	if call == nil {
		return standing
	}
	if call.serializable {
		standing &^= refusing
	}
	if len(call.avoid) > 0 && slices.Contains(call.avoid, e) {
		standing |= avoided
	}
	return standing
}

// avoided is the weightiest part of an endpoint's rank.
const avoided = demoted << 1

// best appends the endpoints of lowest rank to list.
func best(list, from []*Endpoint, call *Call) []*Endpoint {
	var lowest uint32
	for _, e := range from {
		r := rank(e, call)
		if len(list) == 0 || r < lowest {
			lowest = r
			list = list[:0]
		}
		if r == lowest {
			list = append(list, e)
		}
	}
	return list
}

// drawTwo draws two endpoints at random, the same one twice if there is no other.
func drawTwo(from []*Endpoint) (first, second *Endpoint) {
	n := len(from)
	if n == 1 {
		return from[0], from[0]
	}
	i := rand.IntN(n)
	j := rand.IntN(n - 1)
	if j >= i {
		j++
	}
	return from[i], from[j]
}

// waitingPicker makes calls wait: no endpoint is connected, and not every one has failed yet.
type waitingPicker struct{}

func (waitingPicker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	if call := CallFrom(info.Ctx); call != nil && (call.target != nil || call.elsewhere) {
		return balancer.PickResult{}, errNotConnected
	}
	return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
}

// failingPicker fails calls: no endpoint can be reached.
type failingPicker struct{ set *Set }

func (p failingPicker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	if call := CallFrom(info.Ctx); call != nil {
		call.endpoint.Store(nil)
		call.outcome.Store(unsent)
	}
	return balancer.PickResult{}, p.set.unreachable()
}
