package concurrency

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// lossy is between a client and its connection, and does to single transactions what a network and frozen members do.
type lossy struct {
	mu      sync.Mutex
	pending func(ctx context.Context, invoke func(context.Context) error) error
	counted chan struct{} // gets a token with each transaction
}

func newLossy() *lossy { return &lossy{counted: make(chan struct{}, 1000)} }

// option puts it between.
func (l *lossy) option() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		call := func(ctx context.Context) error { return invoke(ctx, method, req, reply, conn, opts...) }
		if method != pb.KV_Txn_FullMethodName {
			return call(ctx)
		}
		l.mu.Lock()
		pending := l.pending
		l.pending = nil
		l.mu.Unlock()
		defer func() { l.counted <- struct{}{} }()
		if pending != nil {
			return pending(ctx, call)
		}
		return call(ctx)
	})
}

// next lets the next transaction through, then calls f, and makes its error that of the call.
func (l *lossy) next(f func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = func(ctx context.Context, call func(context.Context) error) error {
		if err := call(ctx); err != nil {
			return err
		}
		return f(ctx)
	}
}

// responses is what loses a response: as the connection does that breaks before it is there.
func responses(context.Context) error { return status.Error(codes.Unavailable, "connection lost") }

// nextLate holds back the next transaction, calls cancel, which is to end its context, and fails it. The function that it
// returns carries the transaction out all the same.
func (l *lossy) nextLate(cancel context.CancelFunc) (release func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make(chan func() error, 1)
	l.pending = func(ctx context.Context, call func(context.Context) error) error {
		held <- func() error { return call(context.WithoutCancel(ctx)) }
		cancel()
		return status.FromContextError(context.Canceled).Err()
	}
	return func() error { return (<-held)() }
}

// count returns a function that waits until n transactions have been made since.
func (l *lossy) count() (wait func(ctx context.Context, t testing.TB, n int)) {
	for len(l.counted) > 0 {
		<-l.counted
	}
	return l.await
}

func (l *lossy) await(ctx context.Context, t testing.TB, n int) {
	t.Helper()
	for range n {
		select {
		case <-l.counted:
		case <-ctx.Done():
			t.Fatal("too few transactions were made")
		}
	}
}

// counted counts the unary requests.
func counted(n *atomic.Int64) grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		n.Add(1)
		return invoke(ctx, method, req, reply, conn, opts...)
	})
}
