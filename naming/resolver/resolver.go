// Package resolver lets gRPC find the endpoints of a service in etcd, where package endpoints keeps them:
//
//	builder, err := resolver.NewBuilder(cli)
//	conn, err := grpc.NewClient("etcd:///foo/bar/my-service", grpc.WithResolvers(builder), ...)
//
// The connection uses the endpoints there are, and follows every change.
package resolver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	gresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/naming/endpoints"
)

// NewBuilder returns a builder of resolvers for targets "etcd:///<target>", to be given to gRPC. The client must stay
// open as long as connections are made with it; it stays the caller's. Without one, connections fail.
func NewBuilder(client *clientv3.Client) (gresolver.Builder, error) {
	return builder{client}, nil
}

type builder struct{ client *clientv3.Client }

// Scheme returns "etcd".
func (b builder) Scheme() string { return "etcd" }

// Build starts to follow the endpoints of a target. It does not wait for them: as long as etcd cannot be reached, calls
// fail, or wait if they are to wait until the connection is ready.
func (b builder) Build(target gresolver.Target, cc gresolver.ClientConn, _ gresolver.BuildOptions,
) (gresolver.Resolver, error) {
	manager, err := endpoints.NewManager(b.client, target.Endpoint())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "resolver: failed to new endpoint manager: %s", err)
	}
	r := &resolver{client: b.client, manager: manager, cc: cc}
	ctx, cancel := context.WithCancel(b.client.Ctx())
	r.cancel = cancel
	r.following.Go(func() { r.follow(ctx) })
	return r, nil
}

type resolver struct {
	client    *clientv3.Client
	manager   endpoints.Manager
	cc        gresolver.ClientConn
	cancel    context.CancelFunc
	following sync.WaitGroup
}

// ResolveNow does nothing: changes are followed as they happen.
func (r *resolver) ResolveNow(gresolver.ResolveNowOptions) {}

// Close ends the resolver, and returns when it has.
func (r *resolver) Close() {
	r.cancel()
	r.following.Wait()
}

// follow tells the connection of the endpoints until the resolver is closed, or the client.
func (r *resolver) follow(ctx context.Context) {
	updates := r.watch(ctx)
	if updates == nil {
		return
	}
	all := make(map[string]gresolver.Endpoint)
	for batch := range updates {
		for _, update := range batch {
			switch update.Op {
			case endpoints.Add:
				all[update.Key] = gresolver.Endpoint{Addresses: []gresolver.Address{{Addr: update.Endpoint.Addr}}}
			case endpoints.Delete:
				delete(all, update.Key)
			}
		}
		state := gresolver.State{Endpoints: make([]gresolver.Endpoint, 0, len(all))}
		for _, key := range slices.Sorted(maps.Keys(all)) { // the same endpoints in the same order
			state.Endpoints = append(state.Endpoints, all[key])
		}
		// An error says that the load balancer has no use for the state. Another one comes with the next change.
		_ = r.cc.UpdateState(state)
	}
	if err := r.client.Ctx().Err(); err != nil {
		r.cc.ReportError(fmt.Errorf("resolver: etcd client is closed: %w", err))
	}
}

// Tries to reach etcd follow each other after a wait that doubles.
const (
	minWait = 100 * time.Millisecond
	maxWait = 5 * time.Second
)

// watch returns the channel of changes, once etcd can be reached. Until then the connection is told why it cannot. It
// returns nil if the resolver or the client is closed before.
func (r *resolver) watch(ctx context.Context) endpoints.WatchChannel {
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		updates, err := r.manager.NewWatchChannel(ctx)
		if err == nil {
			return updates
		}
		if ctx.Err() == nil || r.client.Ctx().Err() != nil {
			r.cc.ReportError(fmt.Errorf("resolver: endpoints cannot be found: %w", err))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}
