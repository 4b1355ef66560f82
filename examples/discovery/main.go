// Command discovery runs a gRPC service on servers that come and go, and calls it without knowing where they are: the
// servers write their addresses to etcd, and gRPC finds them there.
package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/examples/internal/server"
	"github.com/seed-d18e112a/clientv3/naming/endpoints"
	"github.com/seed-d18e112a/clientv3/naming/resolver"
)

const service = "services/greeter"

func main() { server.Main(run) }

func run(ctx context.Context, etcd []string) error {
	cli, err := clientv3.New(clientv3.Config{Endpoints: etcd})
	if err != nil {
		return err
	}
	defer cli.Close()

	first, err := serve(ctx, cli)
	if err != nil {
		return err
	}
	defer first.stop()
	builder, err := resolver.NewBuilder(cli)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("etcd:///"+service, grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	if err != nil {
		return err
	}
	defer conn.Close()

	if err := callUntil(ctx, conn, first.addr); err != nil {
		return err
	}
	second, err := serve(ctx, cli)
	if err != nil {
		return err
	}
	defer second.stop()
	if err := callUntil(ctx, conn, second.addr); err != nil {
		return err
	}
	first.stop()
	fmt.Printf("%s has stopped\n", first.addr)
	// Servers that stop take their address away first, so no call goes there any more once that is known.
	return callUntil(ctx, conn, second.addr)
}

// instance is a server of the service.
type instance struct {
	addr string
	stop func()
}

// serve starts a server and makes it known as long as it runs: if the program dies, until its lease ends.
func serve(ctx context.Context, cli *clientv3.Client) (*instance, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, health.NewServer()) // any service would do; this one comes with gRPC
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(listener) }) // ends with GracefulStop
	in := &instance{addr: listener.Addr().String()}
	withdraw, err := announce(ctx, cli, in.addr)
	in.stop = sync.OnceFunc(func() {
		withdraw()
		s.GracefulStop()
		serving.Wait()
	})
	if err != nil {
		in.stop()
		return nil, err
	}
	fmt.Printf("%s serves\n", in.addr)
	return in, nil
}

// announce writes the address of a server, and returns the function that takes it away.
func announce(ctx context.Context, cli *clientv3.Client, addr string) (withdraw func(), err error) {
	session, err := concurrency.NewSession(cli, concurrency.WithTTL(10))
	if err != nil {
		return func() {}, err
	}
	withdraw = func() { _ = session.Close() } // if the lease cannot be revoked it ends by itself
	manager, err := endpoints.NewManager(cli, service)
	if err != nil {
		return withdraw, err
	}
	return withdraw, manager.AddEndpoint(ctx, service+"/"+addr, endpoints.Endpoint{Addr: addr},
		clientv3.WithLease(session.Lease()))
}

// callUntil calls the service until a server has answered.
func callUntil(ctx context.Context, conn *grpc.ClientConn, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		var by peer.Peer
		_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{},
			grpc.Peer(&by), grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("no answer of %s: %w", addr, err)
		}
		if by.Addr.String() == addr {
			fmt.Printf("%s answered a call\n", addr)
			return nil
		}
		select { // not to fill the time until the address is known with calls
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("no answer of %s: %w", addr, ctx.Err())
		}
	}
}
