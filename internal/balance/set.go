package balance

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"

	"github.com/seed-d18e112a/clientv3/internal/endpoint"
)

// scheme is the resolver scheme of a Set's target. It is the one etcd clients have always shown in their targets.
const scheme = "etcd-endpoints"

// Set is the endpoints of one grpc.ClientConn: make one with NewSet, dial with Target and DialOptions, replace the
// endpoints with Update. All methods are safe for concurrent use. A Set needs no closing.
type Set struct {
	mu        sync.Mutex
	endpoints []*Endpoint
	conn      resolver.ClientConn // nil until gRPC has built the resolver, and after it has closed it
	ready     chan struct{}       // closed while at least one endpoint is connected
	closed    chan struct{}       // closed with the connection
	connected bool
	reached   bool          // an endpoint has been connected at some time
	led       chan struct{} // closed when an endpoint has a leader again; nil while nobody waits
	awaiting  int           // how many wait
	changes   []Change      // not told yet
	telling   bool          // somebody is telling changes

	proof    proof
	several  atomic.Bool  // there is more than one endpoint; written under mu
	monitor  *monitor     // nil without Watch
	onChange func(Change) // nil: nobody wants to know
}

// NewSet returns a set of the given endpoints.
func NewSet(targets []endpoint.Endpoint) *Set {
	s := &Set{ready: make(chan struct{}), closed: make(chan struct{})}
	s.replace(targets)
	return s
}

// Update replaces the endpoints. Those that stay keep their connection and record. On the others calls under way run to
// their end, and long-lived streams are ended so that they move.
func (s *Set) Update(targets []endpoint.Endpoint) {
	s.mu.Lock()
	s.replace(targets)
	conn, state := s.conn, s.resolverState()
	s.mu.Unlock()
	if conn != nil {
		_ = conn.UpdateState(state) // the policy takes any list; there is no error to act on
	}
}

// replace makes targets the endpoints of the set, each listed once, and keeps the records of those that stay.
func (s *Set) replace(targets []endpoint.Endpoint) {
	known := make(map[endpoint.Endpoint]*Endpoint, len(targets))
	for _, e := range s.endpoints {
		known[e.target] = e
	}
	s.endpoints = make([]*Endpoint, 0, len(targets))
	listed := make(map[endpoint.Endpoint]bool, len(targets))
	for _, t := range targets {
		if listed[t] {
			continue
		}
		listed[t] = true
		e := known[t]
		if e == nil {
			e = newEndpoint(t)
		}
		s.endpoints = append(s.endpoints, e)
	}
	for target, e := range known {
		if listed[target] {
			continue
		}
		if e.watch.probe != nil {
			e.watch.probe.cancel() // nobody waits for its answer any more
			e.watch.probe = nil
		}
		e.watch.endTrial()
	}
	s.several.Store(len(s.endpoints) > 1)
	s.tellLed()
}

// Statuses returns what is known of each endpoint, in the order given to the client.
func (s *Set) Statuses() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	statuses := make([]Status, len(s.endpoints))
	for i, e := range s.endpoints {
		statuses[i] = e.status()
	}
	return statuses
}

// Size returns the number of endpoints.
func (s *Set) Size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.endpoints)
}

// Several reports whether there are endpoints to choose from.
func (s *Set) Several() bool { return s.several.Load() }

// Watched reports whether the set looks after the health of its endpoints.
func (s *Set) Watched() bool { return s.monitor != nil }

// Connecting reports whether an endpoint is being connected to that has not failed lately.
func (s *Set) Connecting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.endpoints, func(e *Endpoint) bool {
		return e.state == connectivity.Idle || e.state == connectivity.Connecting
	})
}

// Reached reports whether an endpoint has ever been connected.
func (s *Set) Reached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reached
}

// WaitReady waits until an endpoint is connected, d has passed, the connection is closed, or ctx has ended; only the
// last is an error.
func (s *Set) WaitReady(ctx context.Context, d time.Duration) error {
	s.mu.Lock()
	ready := s.ready
	s.mu.Unlock()
	return s.wait(ctx, d, ready)
}

// Sleep waits until d has passed, the connection is closed, or ctx has ended; only the last is an error.
func (s *Set) Sleep(ctx context.Context, d time.Duration) error { return s.wait(ctx, d, nil) }

func (s *Set) wait(ctx context.Context, d time.Duration, done <-chan struct{}) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
	case <-timer.C:
	case <-s.closed:
	}
	return nil
}

// Closed reports whether the connection was closed.
func (s *Set) Closed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// setState records a change of an endpoint's connection. A failure lasts until the next success: the attempts between
// must not make callers wait for an endpoint that is known to be down.
func (s *Set) setState(e *Endpoint, state balancer.SubConnState) {
	s.mu.Lock()
	defer s.report()
	if e.state == connectivity.Ready && state.ConnectivityState != connectivity.Ready {
		s.doubtLeader()
	}
	reason := ""
	switch state.ConnectivityState {
	case connectivity.Ready:
		e.state, e.err = connectivity.Ready, nil
		reason = "connected"
	case connectivity.TransientFailure:
		e.state, e.err = connectivity.TransientFailure, state.ConnectionError
		reason = fmt.Sprint(state.ConnectionError)
	case connectivity.Idle, connectivity.Connecting:
		if e.state != connectivity.TransientFailure {
			e.state = state.ConnectivityState
		}
		reason = "connection lost"
	case connectivity.Shutdown:
		e.state = connectivity.Shutdown
	}
	s.renew(e)
	s.assess(e, reason)
	s.reviewProof()
}

// renew begins anew with an endpoint whose connection has changed: what was asked on the last one is not answered any
// more. One that was dropped for its silence has to answer first. The caller holds mu.
func (s *Set) renew(e *Endpoint) {
	w := &e.watch
	if w.probe != nil {
		w.probe.cancel()
		w.probe = nil
	}
	w.endTrial()
	w.suspected, w.quiet, w.doubts = false, 0, 0
	w.refusal = ""
	e.setStanding(refusing, false)
	e.setStanding(demoted, w.unproven)
	if e.state == connectivity.Ready && w.unproven {
		s.monitor.wake() // it will ask
	}
	s.tellLed()
}

// setConnected opens or shuts the gate that WaitReady waits at.
func (s *Set) setConnected(connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if connected == s.connected {
		return
	}
	s.connected = connected
	if connected {
		s.reached = true
		close(s.ready)
	} else {
		s.ready = make(chan struct{})
	}
}

// unreachable is the error of a call that finds no endpoint connected: each endpoint with its last error.
func (s *Set) unreachable() error {
	var b strings.Builder
	b.WriteString("no endpoint is reachable")
	for i, st := range s.Statuses() {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%q", sep, st.Endpoint)
		if st.Err != nil {
			fmt.Fprintf(&b, " (%v)", st.Err)
		}
	}
	return unreachableError(b.String())
}

// unreachableError is not a status error, so that gRPC ends calls with code Unavailable and lets those that wait for
// ready wait.
type unreachableError string

func (e unreachableError) Error() string { return string(e) }

// Target returns the target to dial the set under. It shows the first endpoint's authority.
func (s *Set) Target() string {
	return scheme + ":///" + url.PathEscape(s.authority())
}

// authority is the :authority of all calls, which gRPC wants to know before an endpoint is picked.
func (s *Set) authority() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.endpoints) == 0 {
		return ""
	}
	return s.endpoints[0].target.Authority
}

// DialOptions returns the options that make a grpc.ClientConn use the set: its resolver and balancing policy.
func (s *Set) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithResolvers((*resolverBuilder)(s)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"` + policyName + `":{}}]}`),
		// The connections are kept up while the client lives: watches and leases count on them.
		grpc.WithIdleTimeout(0),
	}
}

// resolverState is the set as gRPC's resolver tells it. The caller holds mu.
func (s *Set) resolverState() resolver.State {
	addrs := make([]resolver.Address, len(s.endpoints))
	for i, e := range s.endpoints {
		addrs[i] = resolver.Address{
			Addr:       e.target.DialAddress(),
			ServerName: e.target.ServerName(),
			Attributes: attributes.New(endpointKey{}, e),
		}
	}
	return resolver.State{Addresses: addrs, Attributes: attributes.New(setKey{}, s)}
}

type (
	setKey      struct{}
	endpointKey struct{}
)

// resolverBuilder is the Set in the role of its gRPC resolver.
type resolverBuilder Set

func (b *resolverBuilder) Scheme() string { return scheme }

// OverrideAuthority names the :authority of calls. Unlike grpc.WithAuthority it leaves each endpoint its own server
// name to verify a certificate with.
func (b *resolverBuilder) OverrideAuthority(resolver.Target) string { return (*Set)(b).authority() }

func (b *resolverBuilder) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions,
) (resolver.Resolver, error) {
	s := (*Set)(b)
	s.mu.Lock()
	s.conn = cc
	state := s.resolverState()
	s.mu.Unlock()
	_ = cc.UpdateState(state) // as in Update
	return b, nil
}

// ResolveNow does nothing: the endpoints change by Update only.
func (b *resolverBuilder) ResolveNow(resolver.ResolveNowOptions) {}

func (b *resolverBuilder) Close() {
	s := (*Set)(b)
	s.mu.Lock()
	s.conn = nil
	s.mu.Unlock()
	close(s.closed)
	s.monitor.close()
}
