// Package leasing holds the tests of package leasing against real etcd. It has no other code.
package leasing

import (
	"context"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/leasing"
)

func TestMain(m *testing.M) { shared.Main(m) }

// member is a program with a leasing KV on a client of its own.
type member struct {
	clientv3.KV
	client *clientv3.Client
	close  func()
	calls  atomic.Int64 // unary ones to the key-value service
}

// join starts a program that uses the leasing keys of the prefix.
func join(t testing.TB, prefix string, endpoints []string, opts ...concurrency.SessionOption) *member {
	t.Helper()
	m := &member{}
	cfg := shared.Config(t, endpoints...)
	cfg.DialOptions = []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(m.count),
		grpc.WithChainStreamInterceptor(requireLeader(t)),
	}
	var err error
	if m.client, err = clientv3.New(cfg); err != nil {
		t.Fatal(err)
	}
	if m.KV, m.close, err = leasing.NewKV(m.client, prefix, opts...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.close()
		_ = m.client.Close()
	})
	return m
}

func (m *member) count(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	m.calls.Add(1)
	return invoker(ctx, method, req, reply, cc, opts...)
}

// requireLeader fails the test if a watch would stay with a member that is cut off from its peers, where nobody can ask
// for a key.
func requireLeader(t testing.TB) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
		streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		md, _ := metadata.FromOutgoingContext(ctx)
		if method == pb.Watch_Watch_FullMethodName && len(md.Get(rpctypes.MetadataRequireLeaderKey)) == 0 {
			t.Error("a watch does not require a leader")
		}
		return streamer(ctx, desc, cc, method, opts...)
	}
}

// during returns how many calls f makes.
func (m *member) during(f func()) int64 {
	before := m.calls.Load()
	f()
	return m.calls.Load() - before
}
