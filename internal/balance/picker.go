package balance

import (
	"math/rand/v2"
	"slices"

	"google.golang.org/grpc/balancer"
)

// picker picks among connected endpoints.
type picker struct {
	ready []*Endpoint
}

func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	call := CallFrom(info.Ctx)
	var avoid []*Endpoint
	if call != nil {
		avoid = call.avoid
	}
	e := p.choose(avoid)
	e.inFlight.Add(1)
	if call == nil {
		return balancer.PickResult{SubConn: e.sub, Done: e.done}, nil
	}
	call.endpoint = e
	call.unsent.Store(false)
	return balancer.PickResult{SubConn: e.sub, Done: call.done}, nil
}

// choose returns the less busy of two endpoints drawn at random from those not to be avoided, or from all if none is
// left. Drawing two rather than taking the least busy of all keeps many clients from flocking to the same one.
func (p *picker) choose(avoid []*Endpoint) *Endpoint {
	candidates := p.ready
	if len(avoid) > 0 {
		left := make([]*Endpoint, 0, len(p.ready))
		for _, e := range p.ready {
			if !slices.Contains(avoid, e) {
				left = append(left, e)
			}
		}
		if len(left) > 0 {
			candidates = left
		}
	}
	n := len(candidates)
	if n == 1 {
		return candidates[0]
	}
	i := rand.IntN(n)
	j := rand.IntN(n - 1)
	if j >= i {
		j++
	}
	if candidates[j].inFlight.Load() < candidates[i].inFlight.Load() {
		return candidates[j]
	}
	return candidates[i]
}

// waitingPicker makes calls wait: no endpoint is connected, and not every one has failed yet.
type waitingPicker struct{}

func (waitingPicker) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
}

// failingPicker fails calls: no endpoint can be reached.
type failingPicker struct{ set *Set }

func (p failingPicker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	if call := CallFrom(info.Ctx); call != nil {
		call.endpoint = nil
		call.unsent.Store(true)
	}
	return balancer.PickResult{}, p.set.unreachable()
}
