package naming

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/naming/endpoints"
)

func newManager(t *testing.T, cli *clientv3.Client, target string) endpoints.Manager {
	t.Helper()
	m, err := endpoints.NewManager(cli, target)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// view is what a program that applies all updates knows.
type view struct {
	t       *testing.T
	ctx     context.Context
	updates endpoints.WatchChannel
	addrs   map[string]string
}

func newView(t *testing.T, ctx context.Context, m endpoints.Manager) *view {
	t.Helper()
	updates, err := m.NewWatchChannel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &view{t: t, ctx: ctx, updates: updates, addrs: make(map[string]string)}
}

// await applies updates until the addresses are as wanted.
func (v *view) await(want ...string) {
	v.t.Helper()
	got := func() []string { return slices.Sorted(maps.Values(v.addrs)) }
	for !slices.Equal(got(), want) {
		batch, open := <-v.updates
		if !open {
			v.t.Fatalf("the channel was closed at %v, not at %v", got(), want)
		}
		for _, u := range batch {
			if u.Op == endpoints.Delete {
				delete(v.addrs, u.Key)
			} else {
				v.addrs[u.Key] = u.Endpoint.Addr
			}
		}
	}
}

func TestEndpointsComeAndGo(t *testing.T) {
	ctx, cli := shared.Context(t), shared.Client(t)
	target := strings.TrimSuffix(shared.Prefix(t), "/")
	m, neighbour := newManager(t, cli, target), newManager(t, cli, target+"2")
	if err := neighbour.AddEndpoint(ctx, target+"2/x", endpoints.Endpoint{Addr: "foreign"}); err != nil {
		t.Fatal(err)
	}
	if err := m.AddEndpoint(ctx, target+"/a", endpoints.Endpoint{Addr: "A", Metadata: []string{"m"}}); err != nil {
		t.Fatal(err)
	}
	v := newView(t, ctx, m)
	v.await("A")

	lease, err := cli.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	err = m.AddEndpoint(ctx, target+"/b", endpoints.Endpoint{Addr: "B"}, clientv3.WithLease(lease.ID))
	if err != nil {
		t.Fatal(err)
	}
	v.await("A", "B")
	err = m.Update(ctx, []*endpoints.UpdateWithOpts{
		endpoints.NewDeleteUpdateOpts(target + "/a"),
		endpoints.NewAddUpdateOpts(target+"/c", endpoints.Endpoint{Addr: "C"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	v.await("B", "C")
	all, err := m.List(ctx)
	if err != nil || len(all) != 2 || all[target+"/b"].Addr != "B" || all[target+"/c"].Addr != "C" {
		t.Errorf("listed %v, %v", all, err)
	}
	if _, err := cli.Revoke(ctx, lease.ID); err != nil {
		t.Fatal(err)
	}
	v.await("C")
	if err := m.DeleteEndpoint(ctx, target+"/c"); err != nil {
		t.Fatal(err)
	}
	v.await()
}

// The connection is cut, endpoints change, and the history of the changes is compacted before the connection is back: the
// watch cannot go on where it was.
func TestWatchChannelOutlivesReconnectAndCompaction(t *testing.T) {
	for _, compact := range []bool{false, true} {
		t.Run(fmt.Sprintf("compacted %t", compact), func(t *testing.T) {
			ctx := shared.Context(t)
			cluster := etcdtest.Run(t, etcdtest.WithProxies())
			conn, err := cluster.Member(0).Dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			direct := clientv3.NewCtxClient(ctx)
			direct.KV = clientv3.NewKVFromKVClient(pb.NewKVClient(conn), direct)
			defer direct.Close()

			there := newManager(t, direct, "svc")
			update := func(updates ...*endpoints.UpdateWithOpts) {
				t.Helper()
				if err := there.Update(ctx, updates); err != nil {
					t.Fatal(err)
				}
			}
			add := func(name, addr string) *endpoints.UpdateWithOpts {
				return endpoints.NewAddUpdateOpts("svc/"+name, endpoints.Endpoint{Addr: addr})
			}
			update(add("a", "A"), add("b", "B"), add("c", "C"))
			v := newView(t, ctx, newManager(t, shared.ClientOf(t, cluster.Endpoints()...), "svc"))
			v.await("A", "B", "C")

			cluster.Member(0).Proxy().Cut()
			update(add("b", "B2"), endpoints.NewDeleteUpdateOpts("svc/c"))
			update(add("d", "D"))
			if compact {
				resp, err := direct.Get(ctx, "svc")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := direct.Compact(ctx, resp.Header.Revision); err != nil {
					t.Fatal(err)
				}
			}
			cluster.Member(0).Proxy().Heal()
			v.await("A", "B2", "D")
			update(endpoints.NewDeleteUpdateOpts("svc/a"))
			v.await("B2", "D")
		})
	}
}
