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
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestBarrier(t *testing.T) {
	e := newEnv(t)
	b := recipe.NewBarrier(e.Client, e.prefix)
	shared.Must(t, b.Wait())
	shared.Must(t, b.Release())
	shared.Must(t, b.Hold())
	if err := recipe.NewBarrier(shared.ClientFor(t, e.cluster), e.prefix).Hold(); err != recipe.ErrKeyExists { //nolint:errorlint // bare
		t.Errorf("Hold of a barrier that is held: %v", err)
	}
	if got := e.keys(t); len(got) != 1 || got[0] != "" {
		t.Errorf("keys %q", got)
	}
	var waiting []<-chan error
	for range 5 {
		waiting = append(waiting, shared.Background(recipe.NewBarrier(shared.ClientFor(t, e.cluster), e.prefix).Wait))
	}
	waits(t, waiting...)
	// Something else changes it.
	_, err := e.Put(e.ctx, e.prefix, "still there")
	shared.Must(t, err)
	waits(t, waiting...)
	shared.Must(t, b.Release())
	for _, done := range waiting {
		shared.Must(t, shared.Result(e.ctx, t, done))
	}

	shared.Must(t, b.Hold())
	cli := shared.ClientFor(t, e.cluster)
	done := shared.Background(recipe.NewBarrier(cli, e.prefix).Wait)
	shared.Must(t, cli.Close())
	if err := shared.Result(e.ctx, t, done); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait of a client that was closed: %v", err)
	}
	shared.Must(t, b.Release())
}

func TestDoubleBarrier(t *testing.T) {
	e := newEnv(t)
	const n = 3
	var barriers []*recipe.DoubleBarrier
	for range n {
		barriers = append(barriers, recipe.NewDoubleBarrier(shared.Session(t, e.Client), e.prefix, n))
	}
	shared.Must(t, barriers[0].Leave()) // it has not entered
	for round := range 3 {
		var calls []<-chan error
		for i := range n {
			waits(t, calls...)
			calls = append(calls, shared.Background(barriers[(i+round)%n].Enter))
			shared.AwaitKeys(e.ctx, t, e.Client, e.prefix+"/waiters/", i+1)
		}
		for _, done := range calls {
			shared.Must(t, shared.Result(e.ctx, t, done))
		}
		if got := e.keys(t); len(got) != n+1 || !strings.HasPrefix(got[0], "/waiters/") || got[n] != "/ready" {
			t.Errorf("keys %q", got)
		}
		late := recipe.NewDoubleBarrier(shared.Session(t, e.Client), e.prefix, n)
		if err := late.Enter(); err != recipe.ErrTooManyClients { //nolint:errorlint // bare
			t.Errorf("Enter of one too many: %v", err)
		}
		calls = nil
		for i := range n {
			waits(t, calls...)
			calls = append(calls, shared.Background(barriers[i].Leave))
		}
		for _, done := range calls {
			shared.Must(t, shared.Result(e.ctx, t, done))
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
		b := recipe.NewDoubleBarrier(shared.Session(t, shared.ClientFor(t, e.cluster)), e.prefix, n)
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
		s := shared.Session(t, e.Client)
		return recipe.NewDoubleBarrier(s, e.prefix, 2), s
	}
	dead, s := barrier()
	entering := shared.Background(dead.Enter)
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 1)
	shared.Must(t, s.Close())
	if err := shared.Result(e.ctx, t, entering); !errors.Is(err, concurrency.ErrSessionExpired) {
		t.Errorf("Enter of a session that has ended: %v", err)
	}
	if err := dead.Enter(); !errors.Is(err, concurrency.ErrSessionExpired) {
		t.Errorf("Enter after the session: %v", err)
	}

	b1, s1 := barrier()
	b2, s2 := barrier()
	entering = shared.Background(b1.Enter)
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 1)
	shared.Must(t, b2.Enter())
	shared.Must(t, shared.Result(e.ctx, t, entering))
	leaving := shared.Background(b1.Leave) // the oldest one, which waits for the other
	waits(t, leaving)
	shared.Must(t, s2.Close())
	shared.Must(t, shared.Result(e.ctx, t, leaving))

	b1, _ = barrier()
	_ = s1
	b2, s2 = barrier()
	entering = shared.Background(b2.Enter)
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 1)
	shared.Must(t, b1.Enter())
	shared.Must(t, shared.Result(e.ctx, t, entering))
	leaving = shared.Background(b1.Leave) // the youngest one, which waits for the oldest
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix+"/waiters/", 1)
	waits(t, leaving)
	shared.Must(t, s2.Close())
	shared.Must(t, shared.Result(e.ctx, t, leaving))
}

// One that comes while others still leave belongs to the next time.
func TestDoubleBarrierDoesNotConfuseTimes(t *testing.T) {
	e := newEnv(t)
	barrier := func() *recipe.DoubleBarrier { return recipe.NewDoubleBarrier(shared.Session(t, e.Client), e.prefix, 2) }
	oldest, youngest, late := barrier(), barrier(), barrier()
	txns := make(chan struct{}, 100) // gets a token with each transaction of the early one
	early := recipe.NewDoubleBarrier(shared.Session(t, shared.ClientFor(t, e.cluster, grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
			opts ...grpc.CallOption,
		) error {
			err := invoke(ctx, method, req, reply, conn, opts...)
			if method == pb.KV_Txn_FullMethodName {
				txns <- struct{}{}
			}
			return err
		}))), e.prefix, 2)
	entering := shared.Background(oldest.Enter)
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix+"/waiters/", 1)
	shared.Must(t, youngest.Enter())
	shared.Must(t, shared.Result(e.ctx, t, entering))

	leaving := shared.Background(youngest.Leave)
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix+"/waiters/", 1)
	entering = shared.Background(early.Enter)
	<-txns
	<-txns // its key is there, and it has looked at the others
	shared.Must(t, oldest.Leave())
	shared.Must(t, shared.Result(e.ctx, t, leaving))
	waits(t, entering)
	shared.Must(t, late.Enter())
	shared.Must(t, shared.Result(e.ctx, t, entering))
	leaving = shared.Background(early.Leave)
	shared.Must(t, late.Leave())
	shared.Must(t, shared.Result(e.ctx, t, leaving))
	if got := e.keys(t); len(got) != 0 {
		t.Errorf("keys in the end %q", got)
	}
}
