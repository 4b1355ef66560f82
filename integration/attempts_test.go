package integration

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/seed-d18e112a/clientv3"
)

// attempts counts the requests that a client hands to its connections, by gRPC method.
type attempts struct {
	mu      sync.Mutex
	count   map[string]int
	changed chan struct{} // closed, and replaced, when count changes
}

func newAttempts() *attempts {
	return &attempts{count: make(map[string]int), changed: make(chan struct{})}
}

// watch makes a client's requests be counted.
func (a *attempts) watch(cfg *clientv3.Config) {
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithStatsHandler(a))
}

// of returns the number of requests of a method so far.
func (a *attempts) of(method string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count[method]
}

// all returns the number of requests so far.
func (a *attempts) all() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.count {
		n += c
	}
	return n
}

// await waits until a method has been requested n times.
func (a *attempts) await(ctx context.Context, method string, n int) error {
	for {
		a.mu.Lock()
		count, changed := a.count[method], a.changed
		a.mu.Unlock()
		if count >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type methodKey struct{}

func (a *attempts) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, methodKey{}, info.FullMethodName)
}

func (a *attempts) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, sent := s.(*stats.OutPayload); !sent {
		return
	}
	method, _ := ctx.Value(methodKey{}).(string)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count[method]++
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *attempts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (a *attempts) HandleConn(context.Context, stats.ConnStats) {}
