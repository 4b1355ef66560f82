// Package shared gives the tests of one package a cluster of one member that they share, and clients of it. Each test
// keeps to keys of its own.
package shared

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

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// testTimeout bounds a test's waiting by far more than it takes.
const testTimeout = 30 * time.Second

var cluster struct {
	once sync.Once
	*etcdtest.Cluster
	err error
}

// Main runs the tests of a package, closes the cluster, and fails if anything is still running after that.
func Main(m *testing.M) { goleak.VerifyTestMain(runner{m}) }

type runner struct{ m *testing.M }

func (r runner) Run() int {
	code := r.m.Run()
	if cluster.Cluster != nil {
		if err := cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return max(code, 1)
		}
	}
	return code
}

// Cluster returns the cluster, which is started when it is asked for first.
func Cluster(t testing.TB) *etcdtest.Cluster {
	t.Helper()
	cluster.once.Do(func() { cluster.Cluster, cluster.err = etcdtest.Start(context.Background()) })
	if cluster.err != nil {
		t.Fatal(cluster.err)
	}
	return cluster.Cluster
}

var prefixes atomic.Int64

// Prefix returns a prefix of keys that no other test, and no other run of this one, has.
func Prefix(t testing.TB) string {
	return fmt.Sprintf("test/%s/%d/", t.Name(), prefixes.Add(1))
}

// Context returns a context that bounds the test.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// Client returns a client of the shared cluster that is closed with the test.
func Client(t testing.TB) *clientv3.Client {
	t.Helper()
	return ClientOf(t, Cluster(t).Endpoints()...)
}

// ClientOf returns a client of the endpoints that is closed with the test.
func ClientOf(t testing.TB, endpoints ...string) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(Config(t, endpoints...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() }) // a test may have closed it before
	return cli
}

// Config returns the configuration of a client of the endpoints which logs to the test.
func Config(t testing.TB, endpoints ...string) clientv3.Config {
	t.Helper()
	return clientv3.Config{Endpoints: endpoints, Logger: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))}
}
