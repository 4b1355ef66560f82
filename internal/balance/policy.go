package balance

import (
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
)

// policyName is the name of the balancing policy in gRPC's registry and in the service config.
const policyName = "clientv3_endpoints"

// gRPC finds policies in a process-wide registry that must be complete before the first connection is made.
func init() { //nolint:gochecknoinits // the only way into that registry
	balancer.Register(policyBuilder{})
}

type policyBuilder struct{}

func (policyBuilder) Name() string { return policyName }

func (policyBuilder) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	return &policy{cc: cc, subs: make(map[*Endpoint]balancer.SubConn)}
}

// policy keeps one connection to each endpoint of a Set and gives gRPC a new picker when one comes or goes. Its methods
// run in gRPC's serializer, one at a time.
type policy struct {
	cc   balancer.ClientConn
	set  *Set
	subs map[*Endpoint]balancer.SubConn
}

// UpdateClientConnState connects to endpoints that are new and drops those that are gone.
func (p *policy) UpdateClientConnState(ccs balancer.ClientConnState) error {
	p.set, _ = ccs.ResolverState.Attributes.Value(setKey{}).(*Set)
	if p.set == nil {
		return balancer.ErrBadResolverState // the policy was configured for a connection that is not a Set's
	}
	wanted := make(map[*Endpoint]bool, len(ccs.ResolverState.Addresses))
	for _, addr := range ccs.ResolverState.Addresses {
		e, _ := addr.Attributes.Value(endpointKey{}).(*Endpoint)
		wanted[e] = true
		if _, ok := p.subs[e]; !ok {
			p.connect(e, addr)
		}
	}
	var removed []*Endpoint
	for e, sub := range p.subs {
		if !wanted[e] {
			delete(p.subs, e)
			sub.Shutdown()
			removed = append(removed, e)
		}
	}
	p.publish()
	for _, e := range removed {
		e.lines.remove() // after publish, so that the streams find the new picker
	}
	return nil
}

func (p *policy) connect(e *Endpoint, addr resolver.Address) {
	//nolint:staticcheck // deprecated for more than one address
	sub, err := p.cc.NewSubConn([]resolver.Address{addr}, balancer.NewSubConnOptions{
		StateListener: func(state balancer.SubConnState) { p.stateChanged(e, state) },
	})
	if err != nil {
		// gRPC refuses only when the ClientConn is closing.
		p.set.setState(e, balancer.SubConnState{ConnectivityState: connectivity.TransientFailure, ConnectionError: err})
		return
	}
	e.sub = sub
	p.subs[e] = sub
	sub.Connect()
}

// stateChanged follows a connection. One that has become idle, after a loss or after the backoff that follows a
// failure, is dialled again.
func (p *policy) stateChanged(e *Endpoint, state balancer.SubConnState) {
	sub, ok := p.subs[e]
	if !ok {
		return // dropped; this is its shutdown
	}
	p.set.setState(e, state)
	if state.ConnectivityState == connectivity.Idle {
		sub.Connect()
	}
	p.publish()
}

// publish gives gRPC a picker for the connections as they are now.
func (p *policy) publish() {
	var ready []*Endpoint
	failed := 0
	p.set.mu.Lock()
	for _, e := range p.set.endpoints {
		switch {
		case p.subs[e] == nil: // the set has moved on; its next state is on the way
		case e.state == connectivity.Ready:
			ready = append(ready, e)
		case e.state == connectivity.TransientFailure:
			failed++
		}
	}
	allFailed := failed == len(p.set.endpoints)
	p.set.mu.Unlock()

	state := balancer.State{ConnectivityState: connectivity.Connecting}
	switch {
	case len(ready) > 0:
		state.ConnectivityState = connectivity.Ready
		state.Picker = &picker{ready: ready, monitor: p.set.monitor}
	case allFailed:
		state.ConnectivityState = connectivity.TransientFailure
		state.Picker = failingPicker{p.set}
	default:
		state.Picker = waitingPicker{}
	}
	p.cc.UpdateState(state)
	// After the picker, so that a caller woken by it finds the connection.
	p.set.setConnected(len(ready) > 0)
}

// ResolverError cannot happen: a Set's resolver reports none.
func (p *policy) ResolverError(error) {}

// UpdateSubConnState is not called: every connection has its own listener.
func (p *policy) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle has nothing to do: idle connections are dialled as they become idle.
func (p *policy) ExitIdle() {}

// Close drops all connections.
func (p *policy) Close() {
	for e, sub := range p.subs {
		delete(p.subs, e)
		sub.Shutdown()
	}
	if p.set != nil {
		p.set.setConnected(false)
	}
}
