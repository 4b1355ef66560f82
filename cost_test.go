//go:build !race

// With the race detector sync.Pool drops things at random, so allocations say nothing.

package clientv3

import (
	"context"
	"net"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// staticKV answers every call with the same responses.
type staticKV struct {
	pb.UnimplementedKVServer
	rangeResponse *pb.RangeResponse
	putResponse   *pb.PutResponse
}

func (s *staticKV) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	return s.rangeResponse, nil
}

func (s *staticKV) Put(context.Context, *pb.PutRequest) (*pb.PutResponse, error) {
	return s.putResponse, nil
}

// startStaticKV starts a server that costs as little as a server can, and returns the option to dial it.
func startStaticKV(t testing.TB) grpc.DialOption {
	t.Helper()
	header := &pb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: 3, RaftTerm: 4}
	server := grpc.NewServer()
	pb.RegisterKVServer(server, &staticKV{
		rangeResponse: &pb.RangeResponse{
			Header: header, Count: 1, Kvs: []*mvccpb.KeyValue{{Key: []byte("key"), Value: []byte("value"), Version: 1}},
		},
		putResponse: &pb.PutResponse{Header: header},
	})
	lis := bufconn.Listen(1 << 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(lis)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) })
}

// contenders are the client and the bare stub, each with a Get and a Put.
func contenders(t testing.TB) map[string][2]func() error {
	t.Helper()
	dial := startStaticKV(t)
	c := newTestClient(t, Config{
		Endpoints: []string{"http://member:2379"}, DialOptions: []grpc.DialOption{dial}, Logger: zap.NewNop(),
	})
	conn, err := grpc.NewClient("passthrough:///member:2379", dial, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stub := pb.NewKVClient(conn)
	ctx := context.Background()
	return map[string][2]func() error{
		"Get": {
			func() error { return drop(c.Get(ctx, "key")) },
			func() error { return drop(stub.Range(ctx, &pb.RangeRequest{Key: []byte("key")})) },
		},
		"Put": {
			func() error { return drop(c.Put(ctx, "key", "value")) },
			func() error { return drop(stub.Put(ctx, &pb.PutRequest{Key: []byte("key"), Value: []byte("value")})) },
		},
	}
}

// allocations returns the median number of allocations of a call, on both its sides, over several rounds: what the
// connection does now and then, and the garbage collector when it empties pools, does not count.
func allocations(t *testing.T, call func() error) float64 {
	t.Helper()
	rounds := make([]float64, 15)
	for i := range rounds {
		rounds[i] = testing.AllocsPerRun(100, func() {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		})
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2]
}

func TestAUnaryCallAllocatesLittleMoreThanTheBareStub(t *testing.T) {
	for name, calls := range contenders(t) {
		client, stub := allocations(t, calls[0]), allocations(t, calls[1])
		t.Logf("%s: %.0f allocations, of the bare stub %.0f", name, client, stub)
		if client > stub+3 {
			t.Errorf("%s: %.0f allocations, of the bare stub %.0f: more than 3 above it", name, client, stub)
		}
	}
}

// health are two clients of two endpoints, with the health logic and without, each with a Get and a Put under a context
// that can end, as callers' contexts do.
func health(t testing.TB) map[string][2]func() error {
	t.Helper()
	dial := startStaticKV(t)
	calls := make(map[string][2]func() error)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	for name, disabled := range map[string]bool{"on": false, "off": true} {
		c := newTestClient(t, Config{
			Endpoints: []string{"http://a:2379", "http://b:2379"}, DialOptions: []grpc.DialOption{dial}, Logger: zap.NewNop(),
			Health: HealthConfig{Disabled: disabled},
		})
		calls[name] = [2]func() error{
			func() error { return drop(c.Get(ctx, "key")) },
			func() error { return drop(c.Put(ctx, "key", "value")) },
		}
	}
	return calls
}

// What the health logic adds is the metadata by which a leader is required, on both sides. A hedge that is not needed
// allocates nothing.
func TestHealthAllocatesLittle(t *testing.T) {
	calls := health(t)
	for i, name := range []string{"Get", "Put"} {
		on, off := allocations(t, calls["on"][i]), allocations(t, calls["off"][i])
		t.Logf("%s: %.0f allocations, without the health logic %.0f", name, on, off)
		if on > off+4 {
			t.Errorf("%s: %.0f allocations, without the health logic %.0f: more than 4 above it", name, on, off)
		}
	}
}

func BenchmarkHealth(b *testing.B) {
	calls := health(b)
	for i, name := range []string{"Get", "Put"} {
		for _, state := range []string{"on", "off"} {
			b.Run(name+"/"+state, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := calls[state][i](); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkUnary(b *testing.B) {
	for name, calls := range contenders(b) {
		for i, kind := range []string{"client", "stub"} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := calls[i](); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
