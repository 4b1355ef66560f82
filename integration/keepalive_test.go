package integration

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// closes waits until a channel of KeepAlive is closed, having read what is in it.
func closes(t *testing.T, ctx context.Context, ch <-chan *clientv3.LeaseKeepAliveResponse) {
	t.Helper()
	for {
		select {
		case _, open := <-ch:
			if !open {
				return
			}
		case <-ctx.Done():
			t.Fatal("the channel is not closed: ", ctx.Err())
		}
	}
}

func TestKeepAlive(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		lease, err := e.Grant(e.ctx, 3)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(e.ctx)
		kept, err := e.KeepAlive(ctx, lease.ID)
		if err != nil {
			t.Fatal(err)
		}
		shared, err := e.KeepAlive(e.ctx, lease.ID)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			resp := <-kept
			if resp == nil || resp.ID != lease.ID || resp.TTL != 3 || resp.GetRevision() == 0 {
				t.Fatalf("%+v", resp)
			}
		}
		cancel() // ends the one and not the other
		closes(t, e.ctx, kept)
		if resp := <-shared; resp == nil {
			t.Fatal("the other caller's channel was closed too")
		}
		if _, err := e.Revoke(e.ctx, lease.ID); err != nil {
			t.Fatal(err)
		}
		closes(t, e.ctx, shared)
	})
}

func TestKeepAliveOfAnUnknownLease(t *testing.T) {
	e := onOne(t)
	kept, err := e.KeepAlive(e.ctx, 4711)
	if err != nil {
		t.Fatal(err)
	}
	closes(t, e.ctx, kept)
	if _, err := e.KeepAliveOnce(e.ctx, 4711); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("once: %v", err)
	}
}

func TestKeepAliveAfterClose(t *testing.T) {
	e := onOne(t)
	lease, err := e.Grant(e.ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := e.KeepAlive(e.ctx, lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Lease.Close(); err != nil {
		t.Fatal(err)
	}
	closes(t, e.ctx, kept)
	after, err := e.KeepAlive(e.ctx, lease.ID)
	var halted clientv3.ErrKeepAliveHalted
	if !errors.As(err, &halted) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	closes(t, e.ctx, after)
	if left, err := e.TimeToLive(e.ctx, lease.ID); err != nil || left.TTL <= 0 {
		t.Errorf("the lease itself: %+v, %v", left, err)
	}
}

// A member that hangs costs no lease: the stream moves to another.
func TestKeepAliveLeavesAFrozenMember(t *testing.T) {
	t.Parallel()
	for _, which := range []string{"follower", "leader"} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses())
			ctx := testContext(t)
			leader, err := cluster.Leader(ctx)
			if err != nil {
				t.Fatal(err)
			}
			victim := leader
			if which == "follower" {
				victim = (leader + 1) % 3
			}
			// The stream is opened on the victim, the only endpoint at first.
			cli := newClient(t, cluster, func(cfg *clientv3.Config) {
				cfg.Endpoints = []string{cluster.Member(victim).Endpoint()}
			})
			lease, err := cli.Grant(ctx, 15)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := cli.Put(ctx, "session", "alive", clientv3.WithLease(lease.ID)); err != nil {
				t.Fatal(err)
			}
			kept, err := cli.KeepAlive(ctx, lease.ID)
			if err != nil {
				t.Fatal(err)
			}
			<-kept
			cli.SetEndpoints(cluster.Endpoints()...)
			if err := cluster.Member(victim).Freeze(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cluster.Member(victim).Thaw() })

			// Well beyond the TTL. The other members are asked directly, by a client that does not know the victim.
			var others []string
			for i, m := range cluster.Members() {
				if i != victim {
					others = append(others, m.Endpoint())
				}
			}
			observer := newClient(t, cluster, func(cfg *clientv3.Config) { cfg.Endpoints = others })
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
				select {
				case resp := <-kept:
					if resp == nil {
						t.Fatal("the lease was given up")
					}
				case <-time.After(time.Second):
				}
			}
			if got, err := observer.Get(ctx, "session"); err != nil || len(got.Kvs) != 1 {
				t.Errorf("the key of the lease: %v, %v", got, err)
			}
		})
	}
}

const manyLeases = 10_000 / scale

// Ten thousand leases are kept alive without a goroutine each and with little memory, and none is lost in an outage
// shorter than its TTL.
func TestManyLeases(t *testing.T) {
	cluster := etcdtest.Run(t, etcdtest.WithChildProcesses(), etcdtest.WithProxies())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cli := quietClient(t, cluster)
	if _, err := cli.Leases(ctx); err != nil { // connects
		t.Fatal(err)
	}
	heap, goroutines := live()
	kept := make([]<-chan *clientv3.LeaseKeepAliveResponse, manyLeases)
	var wg sync.WaitGroup
	for opener := range openers {
		wg.Go(func() {
			for i := opener; i < manyLeases; i += openers {
				lease, err := cli.Grant(ctx, 10)
				if err != nil {
					t.Error(err)
					return
				}
				if kept[i], err = cli.KeepAlive(ctx, lease.ID); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i := range kept {
		if resp := <-kept[i]; resp == nil {
			t.Fatalf("lease %d was not renewed", i)
		}
	}
	heapAfter, goroutinesAfter := live()
	each := (heapAfter - heap) / manyLeases
	t.Logf("%d bytes of heap a lease, %d goroutines more", each, goroutinesAfter-goroutines)
	if each > 1229 && scale == 1 {
		t.Errorf("a lease takes %d bytes, want at most 1.2 KiB", each)
	}
	if goroutinesAfter >= goroutines+manyLeases/20 {
		t.Errorf("%d goroutines with %d leases, %d without", goroutinesAfter, manyLeases, goroutines)
	}

	cluster.Member(0).Proxy().Cut()
	time.Sleep(2 * time.Second) // the outage
	cluster.Member(0).Proxy().Heal()
	time.Sleep(13 * time.Second) // longer than a lease lives by itself
	for i := range kept {
		for open := true; open && len(kept[i]) > 0; {
			if _, open = <-kept[i]; !open {
				t.Fatalf("lease %d was lost", i)
			}
		}
		select {
		case _, open := <-kept[i]:
			if !open {
				t.Fatalf("lease %d was lost", i)
			}
		default:
		}
	}
	var left *clientv3.LeaseLeasesResponse
	var err error
	if left, err = cli.Leases(ctx); err != nil || len(left.Leases) != manyLeases {
		t.Fatalf("%d leases on the server, %v", len(left.Leases), err)
	}
}
