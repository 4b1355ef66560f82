// Package recipes holds the tests of the recipes against real etcd clusters. It has no other code.
package recipes

import (
	"context"
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

// keys returns the keys with the prefix, without it, in the order in which they were created.
func (e *env) keys(t testing.TB) []string {
	t.Helper()
	resp, err := e.Get(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	shared.Must(t, err)
	var keys []string
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key)[len(e.prefix):])
	}
	return keys
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
