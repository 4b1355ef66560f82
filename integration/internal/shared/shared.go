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
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// Timeout bounds a test's waiting by far more than it takes.
const Timeout = 3 * time.Minute

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
	c, err := Start()
	Must(t, err)
	return c
}

// Start is Cluster for examples.
func Start() (*etcdtest.Cluster, error) {
	cluster.once.Do(func() { cluster.Cluster, cluster.err = etcdtest.Start(context.Background()) })
	return cluster.Cluster, cluster.err
}

var prefixes atomic.Int64

// Prefix returns a prefix of keys that no other test, and no other run of this one, has.
func Prefix(t testing.TB) string {
	return fmt.Sprintf("test/%s/%d/", t.Name(), prefixes.Add(1))
}

// Context returns a context that bounds the test.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
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
	return ClientWith(t, Config(t, endpoints...))
}

// ClientFor returns a client of all members of a cluster, dialled with the options, that is closed with the test.
func ClientFor(t testing.TB, c *etcdtest.Cluster, opts ...grpc.DialOption) *clientv3.Client {
	t.Helper()
	cfg := Config(t, c.Endpoints()...)
	cfg.DialOptions = opts
	return ClientWith(t, cfg)
}

// ClientWith returns a client with the configuration that is closed with the test.
func ClientWith(t testing.TB, cfg clientv3.Config) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(cfg)
	Must(t, err)
	t.Cleanup(func() { _ = cli.Close() }) // a test may have closed it before
	return cli
}

// Session returns a session that is closed with the test.
func Session(t testing.TB, cli *clientv3.Client, opts ...concurrency.SessionOption) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(cli, opts...)
	Must(t, err)
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it before
	return s
}

// Config returns the configuration of a client of the endpoints which logs to the test.
func Config(t testing.TB, endpoints ...string) clientv3.Config {
	t.Helper()
	return clientv3.Config{Endpoints: endpoints, Logger: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))}
}
