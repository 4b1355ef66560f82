// Package concurrency holds the tests of sessions, locks, elections and software transactional memory against real etcd
// clusters. It has no other code.
package concurrency

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestMain(m *testing.M) { shared.Main(m) }

// env is what a test is given: a client of the shared cluster, a context that bounds it, and a prefix of its own.
type env struct {
	*clientv3.Client
	cluster *etcdtest.Cluster
	ctx     context.Context
	prefix  string
}

func newEnv(t testing.TB) *env {
	t.Helper()
	return &env{
		Client: shared.Client(t), cluster: shared.Cluster(t), ctx: shared.Context(t),
		prefix: strings.TrimSuffix(shared.Prefix(t), "/"),
	}
}

// wantIs fails the test if err is none of the kinds.
func wantIs(t testing.TB, err error, kinds ...error) {
	t.Helper()
	for _, kind := range kinds {
		if !errors.Is(err, kind) {
			t.Errorf("error %v, want one that is %v", err, kind)
		}
	}
}

// keys returns the keys with the prefix.
func (e *env) keys(t testing.TB, prefix string) []string {
	t.Helper()
	resp, err := e.Get(e.ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	shared.Must(t, err)
	var keys []string
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// awaitEnd waits until the context ends and returns why.
func awaitEnd(ctx context.Context, t testing.TB, ends context.Context) error {
	t.Helper()
	select {
	case <-ends.Done():
		return context.Cause(ends)
	case <-ctx.Done():
		t.Fatal("the context did not end")
		return nil
	}
}
