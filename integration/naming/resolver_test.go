package naming

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/naming/endpoints"
	"github.com/seed-d18e112a/clientv3/naming/resolver"
)

// serve starts a gRPC server and returns its address.
func serve(t *testing.T) (addr string, stop func()) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(lis)
	}()
	stop = func() {
		server.Stop()
		<-done
	}
	t.Cleanup(stop)
	return lis.Addr().String(), stop
}

// dial returns a connection to the target, found through etcd, with all of its endpoints in turn.
func dial(t *testing.T, cli *clientv3.Client, target string) healthpb.HealthClient {
	t.Helper()
	builder, err := resolver.NewBuilder(cli)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("etcd:///"+target,
		grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return healthpb.NewHealthClient(conn)
}

// awaitServers makes calls until the latest ones were answered by exactly the given servers in turn.
func awaitServers(t *testing.T, ctx context.Context, client healthpb.HealthClient, want ...string) {
	t.Helper()
	wanted := make(map[string]bool)
	for _, addr := range want {
		wanted[addr] = true
	}
	seen := make(map[string]bool)
	for right := 0; right < 5*len(want) || len(seen) < len(want); right++ {
		var from peer.Peer
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&from), grpc.WaitForReady(true))
		if ctx.Err() != nil {
			t.Fatalf("servers %v have answered, %v are wanted", seen, want)
		}
		if err != nil || !wanted[from.Addr.String()] {
			right = -1 // a server that is stopped, or not to be used any more
			clear(seen)
			continue
		}
		seen[from.Addr.String()] = true
	}
}

// A gRPC client finds its servers through etcd, as they start, stop without a word, and are replaced.
func TestClientFindsServers(t *testing.T) {
	ctx, cli := shared.Context(t), shared.Client(t)
	target := strings.TrimSuffix(shared.Prefix(t), "/")
	m := newManager(t, cli, target)
	client := dial(t, cli, target) // before there is a server

	register := func(addr string) clientv3.LeaseID {
		t.Helper()
		lease, err := cli.Grant(ctx, 60)
		if err != nil {
			t.Fatal(err)
		}
		err = m.AddEndpoint(ctx, target+"/"+addr, endpoints.Endpoint{Addr: addr}, clientv3.WithLease(lease.ID))
		if err != nil {
			t.Fatal(err)
		}
		return lease.ID
	}
	first, stopFirst := serve(t)
	second, _ := serve(t)
	firstLease := register(first)
	awaitServers(t, ctx, client, first)
	register(second)
	awaitServers(t, ctx, client, first, second)

	stopFirst()
	if _, err := cli.Revoke(ctx, firstLease); err != nil {
		t.Fatal(err)
	}
	awaitServers(t, ctx, client, second)
	third, _ := serve(t)
	err := m.Update(ctx, []*endpoints.UpdateWithOpts{
		endpoints.NewDeleteUpdateOpts(target + "/" + second),
		endpoints.NewAddUpdateOpts(target+"/"+third, endpoints.Endpoint{Addr: third}),
	})
	if err != nil {
		t.Fatal(err)
	}
	awaitServers(t, ctx, client, third)

	if err := m.DeleteEndpoint(ctx, target+"/"+third); err != nil {
		t.Fatal(err)
	}
	for err == nil { // until the last one is gone
		_, err = client.Check(ctx, &healthpb.HealthCheckRequest{})
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("without a server: %v", err)
	}
}

// The connection is made while etcd is away. Calls that do not wait are told why; once etcd is there they are answered.
func TestClientWaitsForEtcd(t *testing.T) {
	ctx := shared.Context(t)
	cluster := etcdtest.Run(t, etcdtest.WithProxies())
	cfg := shared.Config(t, cluster.Endpoints()...)
	cfg.MaxUnaryRetries, cfg.BackoffWaitBetween = 1, time.Millisecond // give up soon
	cli, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	addr, _ := serve(t)
	if err := newManager(t, cli, "svc").AddEndpoint(ctx, "svc/a", endpoints.Endpoint{Addr: addr}); err != nil {
		t.Fatal(err)
	}
	cluster.Member(0).Proxy().Cut()
	client := dial(t, cli, "svc")
	_, err = client.Check(ctx, &healthpb.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "endpoints cannot be found") {
		t.Errorf("without etcd: %v", err)
	}
	cluster.Member(0).Proxy().Heal()
	awaitServers(t, ctx, client, addr)
}
