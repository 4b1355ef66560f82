package recipes

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3/concurrency"
	recipe "github.com/seed-d18e112a/clientv3/experimental/recipes"
)

func TestBarrier(t *testing.T) {
	e := newEnv(t)
	b := recipe.NewBarrier(e.Client, e.prefix)
	must(t, b.Wait())
	must(t, b.Release())
	must(t, b.Hold())
	if err := recipe.NewBarrier(newClient(t, e.cluster), e.prefix).Hold(); err != recipe.ErrKeyExists { //nolint:errorlint // bare
		t.Errorf("Hold of a barrier that is held: %v", err)
	}
	if got := e.keys(t); len(got) != 1 || got[0] != "" {
		t.Errorf("keys %q", got)
	}
	var waiting []<-chan error
	for range 5 {
		waiting = append(waiting, background(recipe.NewBarrier(newClient(t, e.cluster), e.prefix).Wait))
	}
	waits(t, waiting...)
	// Something else changes it.
	_, err := e.Put(e.ctx, e.prefix, "still there")
	must(t, err)
	waits(t, waiting...)
	must(t, b.Release())
	for _, done := range waiting {
		must(t, e.result(t, done))
	}

	must(t, b.Hold())
	cli := newClient(t, e.cluster)
	done := background(recipe.NewBarrier(cli, e.prefix).Wait)
	must(t, cli.Close())
	if err := e.result(t, done); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait of a client that was closed: %v", err)
	}
	must(t, b.Release())
}

func TestDoubleBarrier(t *testing.T) {
	e := newEnv(t)
	const n = 3
	var barriers []*recipe.DoubleBarrier
	for range n {
		barriers = append(barriers, recipe.NewDoubleBarrier(newSession(t, e.Client), e.prefix, n))
	}
	must(t, barriers[0].Leave()) // it has not entered
	for round := range 3 {
		var calls []<-chan error
		for i := range n {
			waits(t, calls...)
			calls = append(calls, background(barriers[(i+round)%n].Enter))
			e.awaitKeys(t, e.prefix+"/waiters/", i+1)
		}
		for _, done := range calls {
			must(t, e.result(t, done))
		}
		if got := e.keys(t); len(got) != n+1 || !strings.HasPrefix(got[0], "/waiters/") || got[n] != "/ready" {
			t.Errorf("keys %q", got)
		}
		late := recipe.NewDoubleBarrier(newSession(t, e.Client), e.prefix, n)
		if err := late.Enter(); err != recipe.ErrTooManyClients { //nolint:errorlint // bare
			t.Errorf("Enter of one too many: %v", err)
		}
		calls = nil
		for i := range n {
			waits(t, calls...)
			calls = append(calls, background(barriers[i].Leave))
		}
		for _, done := range calls {
			must(t, e.result(t, done))
		}
		if got := e.keys(t); len(got) != 0 {
			t.Errorf("keys in the end %q", got)
		}
	}
}

// Processes go through a barrier round by round. When one is in, all have come to the round; when one is out, all have
// come to its end.
func TestDoubleBarrierKeepsProcessesTogether(t *testing.T) {
	e := newEnv(t)
	const (
		n      = 6
		rounds = 5
	)
	var (
		wg            sync.WaitGroup
		begun, ending [rounds]atomic.Int64
	)
	for range n {
		b := recipe.NewDoubleBarrier(newSession(t, newClient(t, e.cluster)), e.prefix, n)
		wg.Go(func() {
			for round := range rounds {
				begun[round].Add(1)
				err := b.Enter()
				for errors.Is(err, recipe.ErrTooManyClients) { // the others still leave
					err = b.Enter()
				}
				if err != nil {
					t.Error(err)
					return
				}
				if got := begun[round].Load(); got != n {
					t.Errorf("round %d: in with %d", round, got)
				}
				ending[round].Add(1)
				if err := b.Leave(); err != nil {
					t.Error(err)
					return
				}
				if got := ending[round].Load(); got != n {
					t.Errorf("round %d: out with %d", round, got)
				}
			}
		})
	}
	wg.Wait()
	if got := e.keys(t); len(got) != 0 {
		t.Errorf("keys in the end %q", got)
	}
}

func TestDoubleBarrierCountsTheDeadAsGone(t *testing.T) {
	e := newEnv(t)
	barrier := func() (*recipe.DoubleBarrier, *concurrency.Session) {
		s := newSession(t, e.Client)
		return recipe.NewDoubleBarrier(s, e.prefix, 2), s
	}
	dead, s := barrier()
	entering := background(dead.Enter)
	e.awaitKeys(t, e.prefix, 1)
	must(t, s.Close())
	if err := e.result(t, entering); !errors.Is(err, concurrency.ErrSessionExpired) {
		t.Errorf("Enter of a session that has ended: %v", err)
	}
	if err := dead.Enter(); !errors.Is(err, concurrency.ErrSessionExpired) {
		t.Errorf("Enter after the session: %v", err)
	}

	b1, s1 := barrier()
	b2, s2 := barrier()
	entering = background(b1.Enter)
	e.awaitKeys(t, e.prefix, 1)
	must(t, b2.Enter())
	must(t, e.result(t, entering))
	leaving := background(b1.Leave) // the oldest one, which waits for the other
	waits(t, leaving)
	must(t, s2.Close())
	must(t, e.result(t, leaving))

	b1, _ = barrier()
	_ = s1
	b2, s2 = barrier()
	entering = background(b2.Enter)
	e.awaitKeys(t, e.prefix, 1)
	must(t, b1.Enter())
	must(t, e.result(t, entering))
	leaving = background(b1.Leave) // the youngest one, which waits for the oldest
	e.awaitKeys(t, e.prefix+"/waiters/", 1)
	waits(t, leaving)
	must(t, s2.Close())
	must(t, e.result(t, leaving))
}

// One that comes while others still leave belongs to the next time.
func TestDoubleBarrierDoesNotConfuseTimes(t *testing.T) {
	e := newEnv(t)
	barrier := func() *recipe.DoubleBarrier { return recipe.NewDoubleBarrier(newSession(t, e.Client), e.prefix, 2) }
	oldest, youngest, late := barrier(), barrier(), barrier()
	txns := make(chan struct{}, 100) // gets a token with each transaction of the early one
	early := recipe.NewDoubleBarrier(newSession(t, newClient(t, e.cluster, grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
			opts ...grpc.CallOption,
		) error {
			err := invoke(ctx, method, req, reply, conn, opts...)
			if method == pb.KV_Txn_FullMethodName {
				txns <- struct{}{}
			}
			return err
		}))), e.prefix, 2)
	entering := background(oldest.Enter)
	e.awaitKeys(t, e.prefix+"/waiters/", 1)
	must(t, youngest.Enter())
	must(t, e.result(t, entering))

	leaving := background(youngest.Leave)
	e.awaitKeys(t, e.prefix+"/waiters/", 1)
	entering = background(early.Enter)
	<-txns
	<-txns // its key is there, and it has looked at the others
	must(t, oldest.Leave())
	must(t, e.result(t, leaving))
	waits(t, entering)
	must(t, late.Enter())
	must(t, e.result(t, entering))
	leaving = background(early.Leave)
	must(t, late.Leave())
	must(t, e.result(t, leaving))
	if got := e.keys(t); len(got) != 0 {
		t.Errorf("keys in the end %q", got)
	}
}
