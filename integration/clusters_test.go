package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/servers"
)

// setup is a cluster that is started when the first test asks for it and shared by all that do, one after the other.
// Such tests leave the cluster as they found it, but for keys of their own.
type setup struct {
	name string
	opts []etcdtest.Option

	once    sync.Once
	cluster *etcdtest.Cluster
	err     error
}

// calm makes elections rare on a machine that is busy with other tests.
var calm = etcdtest.WithTimings(100*time.Millisecond, 2*time.Second)

// setups are the clusters that tests of the services run on.
var setups = []*setup{
	{name: "one"},
	{name: "three", opts: []etcdtest.Option{etcdtest.WithMembers(3), calm}},
	{name: "one TLS", opts: []etcdtest.Option{etcdtest.WithTLS()}},
	{name: "three mutual TLS", opts: []etcdtest.Option{etcdtest.WithMembers(3), calm, etcdtest.WithMutualTLS()}},
	{name: "one unix", opts: []etcdtest.Option{etcdtest.WithUnixSockets()}},
	{name: "three unix", opts: []etcdtest.Option{etcdtest.WithMembers(3), calm, etcdtest.WithUnixSockets()}},
	{name: "one auth", opts: []etcdtest.Option{etcdtest.WithAuth(etcdtest.Auth{})}},
	{name: "three auth JWT", opts: []etcdtest.Option{
		etcdtest.WithMembers(3), calm, etcdtest.WithAuth(etcdtest.Auth{JWT: true, TokenTTL: 2 * time.Second}),
	}},
}

func (s *setup) start(t testing.TB) *etcdtest.Cluster {
	t.Helper()
	if strings.Contains(s.name, "unix") {
		servers.Need(t, servers.UnixSockets)
	}
	s.once.Do(func() { s.cluster, s.err = etcdtest.Start(context.Background(), s.opts...) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.cluster
}

// auth reports whether the cluster has authentication.
func (s *setup) auth() bool { return strings.Contains(s.name, "auth") }

// closeShared closes the clusters that were started.
func closeShared() (ok bool) {
	errs := make([]error, len(setups))
	var wg sync.WaitGroup
	for i, s := range setups {
		if s.cluster != nil {
			wg.Go(func() { errs[i] = s.cluster.Close() })
		}
	}
	wg.Wait()
	ok = true
	for i, err := range errs {
		if err != nil {
			fmt.Fprintf(os.Stderr, "cluster %q: %v\n", setups[i].name, err)
			ok = false
		}
	}
	return ok
}

// env is what a test on a shared cluster is given.
type env struct {
	*clientv3.Client                   // of the whole cluster
	cluster          *etcdtest.Cluster // shared
	setup            *setup
	ctx              context.Context //nolint:containedctx // bounds the test
	prefix           string          // of the test's own keys
}

// envs counts the envs that there were.
var envs atomic.Int64

// onEach runs a test on each of the shared clusters, on all of them at once.
func onEach(t *testing.T, test func(t *testing.T, e *env)) {
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			test(t, s.env(t))
		})
	}
}

// onOne runs a test on the shared cluster of one plain member. Tests that do so are not parallel.
func onOne(t *testing.T) *env {
	t.Helper()
	return setups[0].env(t)
}

// onThree runs a test on the shared cluster of three plain members. Tests that do so are not parallel.
func onThree(t *testing.T) *env {
	t.Helper()
	return setups[1].env(t)
}

func (s *setup) env(t *testing.T) *env {
	t.Helper()
	cluster := s.start(t)
	prefix := fmt.Sprintf("test/%s/%d/", t.Name(), envs.Add(1)) // its own in each run of the test, too
	e := &env{cluster: cluster, setup: s, ctx: testContext(t), prefix: prefix}
	e.Client = open(t, e.config(t))
	return e
}

// config is that of a client of the test's cluster which may do everything.
func (e *env) config(t testing.TB) clientv3.Config {
	t.Helper()
	cfg := config(t, e.cluster)
	if e.setup.auth() {
		as(etcdtest.Root, etcdtest.Root)(&cfg)
	}
	return cfg
}

// testTimeout bounds a test's waiting by far more than it takes: a machine that is shared may stand still for a while.
const testTimeout = 3 * time.Minute

// atOnce is how long it may take what happens at once, so that it is told apart from what waits for a minute or for ever.
const atOnce = 30 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// config is that of a client of the cluster.
func config(t testing.TB, cluster *etcdtest.Cluster) clientv3.Config {
	t.Helper()
	return clientv3.Config{
		Endpoints: cluster.Endpoints(),
		TLS:       cluster.ClientTLS(),
		Logger:    zaptest.NewLogger(t, zaptest.Level(zap.DebugLevel)),
	}
}

// as makes a client authenticate.
func as(user, password string) func(*clientv3.Config) {
	return func(cfg *clientv3.Config) { cfg.Username, cfg.Password = user, password }
}

// newClient returns a client of the cluster, with its configuration changed as the tweaks do, that is closed with the
// test.
func newClient(t testing.TB, cluster *etcdtest.Cluster, tweaks ...func(*clientv3.Config)) *clientv3.Client {
	t.Helper()
	cfg := config(t, cluster)
	for _, tweak := range tweaks {
		tweak(&cfg)
	}
	return open(t, cfg)
}

// open returns a client that is closed with the test.
func open(t testing.TB, cfg clientv3.Config) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() }) // a test may have closed it before
	return cli
}

// statusCode is the gRPC code of an error, which etcd's own errors have too.
func statusCode(err error) codes.Code {
	if etcdErr, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return etcdErr.Code()
	}
	return status.Code(err)
}
