package mockserver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
)

var networks = []string{"tcp", "unix"}

func start(t *testing.T, count int, network string) *MockServers {
	t.Helper()
	ms, err := StartMockServersOnNetwork(count, network)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ms.Stop)
	return ms
}

// open returns a client of the servers.
func open(t *testing.T, ms *MockServers) *clientv3.Client {
	t.Helper()
	var cfg clientv3.Config
	for _, server := range ms.Servers {
		cfg.Endpoints = append(cfg.Endpoints, server.ResolverAddress().Addr)
	}
	cli, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	return cli
}

func TestEveryCallIsAnswered(t *testing.T) {
	for _, network := range networks {
		cli := open(t, start(t, 2, network))
		ctx := t.Context()
		calls := map[string]func() error{
			"get":     func() error { _, err := cli.Get(ctx, "a"); return err },
			"put":     func() error { _, err := cli.Put(ctx, "a", "b"); return err },
			"delete":  func() error { _, err := cli.Delete(ctx, "a"); return err },
			"txn":     func() error { _, err := cli.Txn(ctx).Then(clientv3.OpPut("a", "b")).Commit(); return err },
			"compact": func() error { _, err := cli.Compact(ctx, 1); return err },
			"stream": func() error {
				stream, err := cli.GetStream(ctx, "a")
				if err != nil {
					return err
				}
				_, err = clientv3.GetStreamToGetResponse(stream)
				return err
			},
			"grant":  func() error { _, err := cli.Grant(ctx, 5); return err },
			"revoke": func() error { _, err := cli.Revoke(ctx, 5); return err },
			"ttl":    func() error { _, err := cli.TimeToLive(ctx, 5); return err },
			"leases": func() error { _, err := cli.Leases(ctx); return err },
		}
		for name, call := range calls {
			if err := call(); err != nil {
				t.Errorf("%s, %s: %v", network, name, err)
			}
		}
	}
}

func TestServersStopAndStartAgain(t *testing.T) {
	for _, network := range networks {
		ms := start(t, 2, network)
		conn, err := grpc.NewClient(ms.Servers[1].ResolverAddress().Addr,
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		call := func(opts ...grpc.CallOption) error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{}, opts...)
			return err
		}
		if err := call(); err != nil {
			t.Errorf("%s: %v", network, err)
		}
		ms.StopAt(1)
		ms.StopAt(1)
		if err := call(); status.Code(err) != codes.Unavailable || ms.Servers[1].GRPCServer != nil {
			t.Errorf("%s, stopped: %v", network, err)
		}
		addr := ms.Servers[1].Address
		for range 2 {
			if err := ms.StartAt(1); err != nil || ms.Servers[1].Address != addr {
				t.Fatalf("%s: %v, at %s and not %s", network, err, ms.Servers[1].Address, addr)
			}
		}
		if err := call(grpc.WaitForReady(true)); err != nil {
			t.Errorf("%s, started again: %v", network, err)
		}
		ms.Stop()
		if err := call(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s, all stopped: %v", network, err)
		}
		if network == "unix" {
			if _, err := os.Stat(addr); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("socket left behind: %v", err)
			}
		}
	}
}

func TestStartReportsWhatFails(t *testing.T) {
	if ms, err := StartMockServersOnNetwork(1, "carrier pigeon"); err == nil || ms != nil {
		t.Errorf("unknown network: %v, %v", ms, err)
	}
	t.Setenv("TMPDIR", t.TempDir()+"/none")
	if ms, err := StartMockServersOnNetwork(1, "unix"); !errors.Is(err, fs.ErrNotExist) || ms != nil {
		t.Errorf("no place for a socket: %v, %v", ms, err)
	}
	ms := start(t, 2, "tcp")
	ms.StopAt(1)
	ms.Servers[1].Address = ms.Servers[0].Address
	if err := ms.StartAt(1); err == nil {
		t.Error("an address that is taken")
	}
}
