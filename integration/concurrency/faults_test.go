package concurrency

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

// Calls are given up while the only member is frozen. Their requests may or may not be carried out when that goes on;
// the keys are gone in any case soon after, though the session lives.
func TestLockGivenUpWhileTheMemberIsFrozen(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithChildProcesses())
	ctx := shared.Context(t)
	cli := shared.ClientFor(t, cluster)
	s := shared.Session(t, cli)
	shared.Must(t, cluster.Member(0).Freeze())
	given := map[string]<-chan error{}
	for name, acquirer := range acquirers {
		given[name] = shared.Background(func() error {
			begin := time.Now()
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			err := acquirer(s, name)(short)
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("%s took %v", name, took)
			}
			return err
		})
	}
	for name, done := range given {
		if err := shared.Result(ctx, t, done); err != context.DeadlineExceeded { //nolint:errorlint // bare, as documented
			t.Errorf("%s: %v", name, err)
		}
	}
	shared.Must(t, cluster.Member(0).Thaw())
	shared.Must(t, cluster.WaitReady(ctx))
	other := shared.Session(t, cli)
	for name := range acquirers {
		m := concurrency.NewMutex(other, name)
		shared.Must(t, m.Lock(ctx)) // would wait for a key that stays
		shared.Must(t, m.Unlock(ctx))
	}
	shared.AwaitKeys(ctx, t, cli, "", 0)
}

// The member that a waiter is connected to is frozen. The others go on without it, and so does the waiter.
func TestWaiterWhoseMemberIsFrozen(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses())
	ctx := shared.Context(t)
	leader, err := cluster.Leader(ctx)
	shared.Must(t, err)
	follower := (leader + 1) % 3
	holderCli, waiterCli := shared.ClientFor(t, cluster), shared.ClientFor(t, cluster)
	holderCli.SetEndpoints(cluster.Member(leader).Endpoint())
	waiterCli.SetEndpoints(cluster.Member(follower).Endpoint())
	holder := concurrency.NewMutex(shared.Session(t, holderCli), "lock")
	shared.Must(t, holder.Lock(ctx))
	waiter := concurrency.NewMutex(shared.Session(t, waiterCli, concurrency.WithTTL(10)), "lock")
	waiting := shared.Background(func() error { return waiter.Lock(ctx) })
	shared.AwaitKeys(ctx, t, holderCli, "lock", 2)
	waiterCli.SetEndpoints(cluster.Endpoints()...)
	shared.Must(t, cluster.Member(follower).Freeze())
	shared.Must(t, holder.Unlock(ctx))
	shared.Must(t, shared.Result(ctx, t, waiting))
	if _, err := waiter.Txn(ctx).Commit(); err != nil {
		t.Error(err)
	}
	shared.Must(t, cluster.Member(follower).Thaw())
}

// Contenders on all members of a cluster each increment a counter, by reading it and writing it under the lock, while
// the leader is frozen and another one takes over. Each loses the lock once between the read and the write, for somebody
// deletes its key. The writes of those who have lost the lock are refused, and no increment is lost.
func TestCounterUnderALockThroughALeaderChange(t *testing.T) {
	t.Parallel()
	const (
		contenders = 50
		increments = 2
	)
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := &counting{half: make(chan struct{}), goal: contenders * increments}
	clients := make([]*clientv3.Client, 3)
	for i := range clients {
		clients[i] = shared.ClientFor(t, cluster)
	}
	var wg sync.WaitGroup
	for i := range contenders {
		wg.Go(func() {
			p := &contender{counting: c, cli: clients[i%len(clients)]}
			for p.made < increments && ctx.Err() == nil {
				p.contend(ctx, t, increments)
			}
		})
	}
	select {
	case <-c.half:
	case <-ctx.Done():
		t.Fatal("no progress")
	}
	leader, err := cluster.Leader(ctx)
	shared.Must(t, err)
	shared.Must(t, cluster.Member(leader).Freeze())
	next, err := cluster.Leader(ctx)
	shared.Must(t, err)
	shared.Must(t, cluster.Member(leader).Thaw())
	wg.Wait()

	resp, err := clients[0].Get(ctx, "counter")
	shared.Must(t, err)
	var (
		count int
		token int64
	)
	_, err = fmt.Sscan(string(resp.Kvs[0].Value), &count, &token)
	shared.Must(t, err)
	t.Logf("leader %d, then %d; %d increments, %d perhaps, %d locks lost; counter %d",
		leader, next, c.done, c.maybe, c.lost, count)
	if c.done != c.goal || count < c.done || count > c.done+c.maybe {
		t.Errorf("counter is %d after %d increments and %d that may have been carried out, want %d",
			count, c.done, c.maybe, c.goal)
	}
	if c.lost < contenders {
		t.Errorf("%d locks were lost, want at least %d", c.lost, contenders)
	}
}

// counting is what has become of a counter.
type counting struct {
	goal int
	half chan struct{} // closed when half of the increments are made

	mu    sync.Mutex
	done  int // increments that had a success
	maybe int // those of which that is not known
	lost  int // locks that were lost before the write
}

// contender is one of those who increment it.
type contender struct {
	*counting
	cli    *clientv3.Client
	made   int  // increments
	robbed bool // it has lost the lock once
}

// contend makes increments in one session, until it has made n in all or has lost the session.
func (c *contender) contend(ctx context.Context, t *testing.T, n int) {
	s, err := concurrency.NewSession(c.cli, concurrency.WithTTL(3))
	if err != nil {
		return // there is no leader
	}
	defer func() { _ = s.Close() }()
	for c.made < n && s.Ctx().Err() == nil && ctx.Err() == nil {
		m := concurrency.NewMutex(s, "lock")
		if m.Lock(ctx) != nil {
			continue
		}
		err := c.increment(ctx, t, m)
		c.mu.Lock()
		switch {
		case err == nil:
			c.made++
			if c.done++; c.done == c.goal/2 {
				close(c.half)
			}
		case errors.Is(err, concurrency.ErrLockLost), errors.Is(err, concurrency.ErrSessionExpired):
			c.lost++
		case clientv3.MayHaveApplied(err):
			c.maybe++
		}
		c.mu.Unlock()
		for m.Unlock(ctx) != nil && s.Ctx().Err() == nil && ctx.Err() == nil {
		}
	}
}

// increment reads the counter and writes it, guarded by the lock. With it goes the lock's token.
func (c *contender) increment(ctx context.Context, t *testing.T, m *concurrency.Mutex) error {
	resp, err := c.cli.Get(ctx, "counter")
	if err != nil {
		return err
	}
	var (
		count  int
		before int64
	)
	if len(resp.Kvs) > 0 {
		if _, err := fmt.Sscan(string(resp.Kvs[0].Value), &count, &before); err != nil {
			return err
		}
	}
	if !c.robbed {
		_, err := c.cli.Delete(ctx, m.Key())
		c.robbed = err == nil
	}
	_, err = m.Txn(ctx).Then(clientv3.OpPut("counter", fmt.Sprint(count+1, m.Rev()))).Commit()
	if err == nil && m.Rev() <= before {
		t.Errorf("token %d after %d", m.Rev(), before)
	}
	return err
}
