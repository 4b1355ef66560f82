package resolver

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	gresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/stub"
)

// connection is a gRPC connection as its resolver sees it.
type connection struct {
	gresolver.ClientConn

	mu     sync.Mutex
	states []string
	errs   []error
}

func (c *connection) UpdateState(state gresolver.State) error {
	var addrs []string
	for _, endpoint := range state.Endpoints {
		for _, addr := range endpoint.Addresses {
			addrs = append(addrs, addr.Addr)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states = append(c.states, strings.Join(addrs, " "))
	return errors.New("of no use")
}

func (c *connection) ReportError(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, err)
}

// take returns what was reported since the last time.
func (c *connection) take() (states []string, errs []error) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	states, errs = c.states, c.errs
	c.states, c.errs = nil, nil
	return states, errs
}

func target(t *testing.T, s string) gresolver.Target {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return gresolver.Target{URL: *u}
}

func build(t *testing.T, cli *clientv3.Client, cc gresolver.ClientConn, to string) (gresolver.Resolver, error) {
	t.Helper()
	b, err := NewBuilder(cli)
	if err != nil {
		t.Fatal(err)
	}
	if b.Scheme() != "etcd" {
		t.Errorf("scheme %q", b.Scheme())
	}
	return b.Build(target(t, to), cc, gresolver.BuildOptions{})
}

func endpoint(name, addr string) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte("svc/" + name), Value: []byte(`{"Op":0,"Addr":"` + addr + `","Metadata":null}`)}
}

func listing(kvs ...*mvccpb.KeyValue) (clientv3.OpResponse, error) {
	return (&clientv3.GetResponse{Header: &pb.ResponseHeader{Revision: 9}, Kvs: kvs}).OpResponse(), nil
}

func TestConnectionIsToldOfTheEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cli := clientv3.NewCtxClient(t.Context())
		defer cli.Close()
		watcher := &stub.Watcher{}
		cli.Watcher = watcher
		cli.KV = &stub.KV{Answer: func(clientv3.Op) (clientv3.OpResponse, error) {
			return listing(endpoint("b", "B"), endpoint("c", "C"), endpoint("a", "A"))
		}}
		var cc connection
		r, err := build(t, cli, &cc, "etcd:///svc")
		if err != nil {
			t.Fatal(err)
		}
		expect := func(want ...string) {
			t.Helper()
			if states, errs := cc.take(); fmt.Sprint(states) != fmt.Sprint(want) || errs != nil {
				t.Errorf("states %q, errors %v; want %q", states, errs, want)
			}
		}
		send := func(events ...*clientv3.Event) {
			watcher.Watches()[0].Ch <- clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: 10}, Events: events}
		}
		expect("A B C")
		send(
			&clientv3.Event{Kv: endpoint("b", "B2")},
			&clientv3.Event{Type: clientv3.EventTypeDelete, Kv: endpoint("a", "")},
			&clientv3.Event{Kv: endpoint("d", "D")},
		)
		expect("B2 C D")
		r.ResolveNow(gresolver.ResolveNowOptions{})
		expect()
		send(
			&clientv3.Event{Type: clientv3.EventTypeDelete, Kv: endpoint("b", "")},
			&clientv3.Event{Type: clientv3.EventTypeDelete, Kv: endpoint("c", "")},
			&clientv3.Event{Type: clientv3.EventTypeDelete, Kv: endpoint("d", "")},
		)
		expect("")
		r.Close()
		expect()
	})
}

// As long as etcd cannot be reached the connection is told so; when it can, all is as if it always had been.
func TestResolverWaitsForEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cli := clientv3.NewCtxClient(t.Context())
		defer cli.Close()
		cli.Watcher = &stub.Watcher{}
		begin := time.Now()
		cli.KV = &stub.KV{Answer: func(clientv3.Op) (clientv3.OpResponse, error) {
			if time.Since(begin) < time.Minute {
				return clientv3.OpResponse{}, rpctypes.ErrPermissionDenied
			}
			return listing(endpoint("a", "A"))
		}}
		var cc connection
		r, err := build(t, cli, &cc, "etcd:svc")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		states, errs := cc.take()
		if len(states) != 0 || len(errs) < 10 || len(errs) > 30 || !errors.Is(errs[0], rpctypes.ErrPermissionDenied) {
			t.Errorf("in the first minute: states %v, errors %v", states, errs)
		}
		time.Sleep(10 * time.Second)
		if states, _ = cc.take(); fmt.Sprint(states) != "[A]" {
			t.Errorf("later: states %v", states)
		}
		r.Close()
	})
}

func TestResolverEndsWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cli := clientv3.NewCtxClient(t.Context())
		cli.Watcher = &stub.Watcher{}
		cli.KV = &stub.KV{Answer: func(clientv3.Op) (clientv3.OpResponse, error) {
			return clientv3.OpResponse{}, rpctypes.ErrNoLeader
		}}
		var cc, other connection
		r, err := build(t, cli, &cc, "etcd://authority/svc")
		if err != nil {
			t.Fatal(err)
		}
		still, err := build(t, cli, &other, "etcd:///svc")
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		cc.take()
		time.Sleep(time.Minute)
		if _, errs := cc.take(); errs != nil {
			t.Errorf("after Close: %v", errs)
		}
		_ = cli.Close()
		other.take()
		time.Sleep(time.Minute)
		if _, errs := other.take(); errs != nil {
			t.Errorf("long after the client was closed: %v", errs)
		}
		still.Close()
	})
}

func TestConnectionIsToldThatTheClientIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cli := clientv3.NewCtxClient(t.Context())
		cli.Watcher = &stub.Watcher{}
		cli.KV = &stub.KV{Answer: func(clientv3.Op) (clientv3.OpResponse, error) { return listing() }}
		var cc connection
		r, err := build(t, cli, &cc, "etcd:///svc")
		if err != nil {
			t.Fatal(err)
		}
		if states, errs := cc.take(); states != nil || errs != nil {
			t.Errorf("without an endpoint: %v, %v", states, errs)
		}
		_ = cli.Close()
		if _, errs := cc.take(); len(errs) != 1 {
			t.Errorf("errors %v", errs)
		}
		r.Close()
	})
}

func TestBadTargetsAreRefused(t *testing.T) {
	if _, err := build(t, nil, &connection{}, "etcd:///svc"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a client: %v", err)
	}
	cli := clientv3.NewCtxClient(t.Context())
	for _, bad := range []string{"etcd:///", "etcd://authority", "etcd:"} {
		if _, err := build(t, cli, &connection{}, bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
