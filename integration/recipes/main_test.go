// Package recipes holds the tests of the recipes against real etcd clusters. It has no other code.
package recipes

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// TestMain closes the cluster that tests have shared, and fails if anything is still running after that.
func TestMain(m *testing.M) { goleak.VerifyTestMain(sharing{m}) }

type sharing struct{ m *testing.M }

func (s sharing) Run() int {
	code := s.m.Run()
	if shared.cluster != nil {
		if err := shared.cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return max(code, 1)
		}
	}
	return code
}

// shared is a cluster of one member for all tests that do it no harm.
var shared struct {
	once    sync.Once
	cluster *etcdtest.Cluster
	err     error
}

// env is what a test is given: a client of the shared cluster, a context that bounds it, and a prefix of its own.
type env struct {
	*clientv3.Client
	cluster *etcdtest.Cluster
	ctx     context.Context
	prefix  string
}

var prefixes atomic.Int64

func newEnv(t testing.TB) *env {
	t.Helper()
	shared.once.Do(func() { shared.cluster, shared.err = etcdtest.Start(context.Background()) })
	must(t, shared.err)
	prefix := fmt.Sprintf("test/%s/%d", t.Name(), prefixes.Add(1)) // keys of an earlier run may still be there
	return &env{
		Client: newClient(t, shared.cluster), cluster: shared.cluster, ctx: testContext(t), prefix: prefix,
	}
}

// testTimeout bounds a test's waiting by far more than it takes.
const testTimeout = 30 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// newClient returns a client of the cluster that is closed with the test.
func newClient(t testing.TB, cluster *etcdtest.Cluster, opts ...grpc.DialOption) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{
		Endpoints:   cluster.Endpoints(),
		DialOptions: opts,
		Logger:      zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
	})
	must(t, err)
	t.Cleanup(func() { _ = cli.Close() }) // a test may have closed it before
	return cli
}

// newSession returns a session that is closed with the test.
func newSession(t testing.TB, cli *clientv3.Client, opts ...concurrency.SessionOption) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(cli, opts...)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it before
	return s
}

// must ends the test if there is an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keys returns the keys with the prefix, without it, in the order in which they were created.
func (e *env) keys(t testing.TB) []string {
	t.Helper()
	resp, err := e.Get(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	must(t, err)
	var keys []string
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key)[len(e.prefix):])
	}
	return keys
}

// awaitKeys waits until there are n keys with the prefix.
func (e *env) awaitKeys(t testing.TB, prefix string, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	watch := e.Watch(ctx, prefix, clientv3.WithPrefix())
	for {
		resp, err := e.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		must(t, err)
		if resp.Count == int64(n) {
			return
		}
		if _, ok := <-watch; !ok {
			t.Fatalf("%d keys with prefix %q, want %d", resp.Count, prefix, n)
		}
	}
}

// background runs f, and returns a channel that gets its result.
func background(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// result waits for what background returned.
func (e *env) result(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-e.ctx.Done():
		t.Fatal("the call did not return")
		return nil
	}
}

// waits checks that the calls have not returned.
func waits(t testing.TB, calls ...<-chan error) {
	t.Helper()
	for i, done := range calls {
		select {
		case err := <-done:
			t.Fatalf("call %d returned %v", i, err)
		default:
		}
	}
}
