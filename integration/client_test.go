package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/servers"
)

func TestNewDoesNotWaitForTheCluster(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{0, testTimeout} {
		start := time.Now()
		cli := open(t, clientv3.Config{
			Endpoints:   []string{nowhere, elsewhere},
			DialTimeout: timeout,
			DialOptions: []grpc.DialOption{grpc.WithBlock()}, //nolint:staticcheck // no more than a wish, as officially
		})
		if took := time.Since(start); took > atOnce {
			t.Errorf("New took %v with a DialTimeout of %v", took, timeout)
		}
		if cli.ActiveConnection() == nil {
			t.Error("no connection")
		}
	}
}

// DialTimeout bounds what New itself does: authenticating, and the check for old members.
func TestDialTimeoutBoundsNew(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]clientv3.Config{
		"authentication": {Username: "u", Password: "p"},
		"old cluster":    {RejectOldCluster: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.Endpoints = []string{nowhere}
			cfg.DialTimeout = 300 * time.Millisecond
			start := time.Now()
			cli, err := clientv3.New(cfg)
			took := time.Since(start)
			if err != context.DeadlineExceeded || cli != nil {
				t.Errorf("client %v, error %v", cli, err)
			}
			if took < cfg.DialTimeout || took > atOnce {
				t.Errorf("New took %v", took)
			}
		})
	}
}

// A client made while the cluster is away works once it is there.
func TestClientOfAClusterThatComesLater(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithProxies(), etcdtest.WithAuth(etcdtest.Auth{}))
	proxy := cluster.Member(0).Proxy()
	proxy.Cut()
	cli := newClient(t, cluster, as(etcdtest.Root, etcdtest.Root), func(cfg *clientv3.Config) { cfg.MaxUnaryRetries = 20 })
	if err := second(cli.Put(testContext(t), "key", "")); status.Code(err) != codes.Unavailable ||
		clientv3.MayHaveApplied(err) {
		t.Errorf("put: %v", err)
	}
	proxy.Heal()
	var err error
	for range 20 { // each waits half a second
		if _, err = cli.Put(testContext(t), "key", ""); err == nil {
			return
		}
	}
	t.Error(err)
}

// A client that has made calls and makes none holds little: above all, not the buffers that its connection reads into.
func TestIdleClientsHoldLittle(t *testing.T) {
	const clients = 100 / scale
	cluster := etcdtest.Run(t, etcdtest.WithChildProcesses())
	ctx := testContext(t)
	before, _ := live()
	for range clients {
		if _, err := quietClient(t, cluster).Get(ctx, "key"); err != nil {
			t.Fatal(err)
		}
	}
	after, _ := live()
	each := (after - before) / clients
	t.Logf("%d bytes of heap a client", each)
	if each > 80<<10 && scale == 1 {
		t.Errorf("a client holds %d bytes, want at most 80 KiB", each)
	}
}

func TestNewFromURLs(t *testing.T) {
	e := onThree(t)
	for name, open := range map[string]func() (*clientv3.Client, error){
		"one": func() (*clientv3.Client, error) { return clientv3.NewFromURL(e.cluster.Endpoints()[1]) },
		"all": func() (*clientv3.Client, error) { return clientv3.NewFromURLs(e.cluster.Endpoints()) },
	} {
		cli, err := open()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := cli.Get(e.ctx, "key"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := cli.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClose(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		cfg := e.config(t)
		cli, err := clientv3.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cli.Get(e.ctx, e.prefix); err != nil {
			t.Fatal(err)
		}
		if err := cli.Ctx().Err(); err != nil {
			t.Errorf("an open client's context: %v", err)
		}
		if err := cli.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := cli.Close(); err != context.Canceled {
			t.Errorf("second Close: %v", err)
		}
		if err := cli.Ctx().Err(); err != context.Canceled {
			t.Errorf("a closed client's context: %v", err)
		}
		alone := []string{"status", "hash", "defragment"} // these have connections of their own
		for name, call := range calls(cli, cfg.Endpoints[0]) {
			if slices.Contains(alone, name) {
				continue
			}
			start := time.Now()
			err := call(e.ctx)
			if !clientv3.IsConnCanceled(err) || clientv3.MayHaveApplied(err) {
				t.Errorf("%s of a closed client: %v", name, err)
			}
			if took := time.Since(start); took > atOnce {
				t.Errorf("%s of a closed client took %v", name, took)
			}
		}
	})
}

// Close ends calls that are under way, and those that wait.
func TestCloseEndsCallsUnderWay(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithProxies())
	count := newAttempts()
	frozen := newClient(t, cluster, count.watch)
	ctx := testContext(t)
	if _, err := frozen.Get(ctx, "key"); err != nil {
		t.Fatal(err)
	}
	cluster.Member(0).Proxy().Freeze()
	waiting := open(t, clientv3.Config{Endpoints: []string{nowhere}, MaxUnaryRetries: 100_000})
	for name, cli := range map[string]*clientv3.Client{"frozen": frozen, "waiting": waiting} {
		errs := make(chan error, 2)
		go func() { errs <- second(cli.Get(ctx, "key")) }()
		go func() { errs <- second(cli.Put(ctx, "key", "")) }()
		if cli == frozen {
			for method, n := range map[string]int{pb.KV_Range_FullMethodName: 2, pb.KV_Put_FullMethodName: 1} {
				if err := count.await(ctx, method, n); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cli.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-errs; !clientv3.IsConnCanceled(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestConfigContextEndsTheBackground(t *testing.T) {
	e := onOne(t)
	ctx, cancel := context.WithCancel(e.ctx)
	cfg := e.config(t)
	cfg.Context = ctx
	cli := open(t, cfg)
	cancel()
	<-cli.Ctx().Done()
}

func TestSetEndpoints(t *testing.T) {
	e := onThree(t)
	endpoints := e.cluster.Endpoints()
	cli := e.clientOf(t, endpoints[0])
	for i, ep := range endpoints {
		cli.SetEndpoints(ep)
		if got := cli.Endpoints(); !slices.Equal(got, []string{ep}) {
			t.Errorf("endpoints %q after SetEndpoints(%q)", got, ep)
		}
		for range 5 {
			got, err := cli.Get(e.ctx, "key")
			if err != nil || got.Header.MemberId != e.cluster.Member(i).ID() {
				t.Errorf("at %s: %v, %v", ep, got, err)
			}
		}
	}
	cli.SetEndpoints(endpoints...)
	answered := make(map[uint64]bool)
	for range 200 {
		got, err := cli.Get(e.ctx, "key")
		if err != nil {
			t.Fatal(err)
		}
		answered[got.Header.MemberId] = true
		if len(answered) == 3 {
			break
		}
	}
	if len(answered) != 3 {
		t.Errorf("%d members answered, want all", len(answered))
	}

	got := cli.Endpoints()
	got[0] = "changed"
	if cli.Endpoints()[0] == "changed" {
		t.Error("the list returned is not the caller's own")
	}

	cli.SetEndpoints()
	ctx, cancel := context.WithTimeout(e.ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := cli.Get(ctx, "key"); err != context.DeadlineExceeded {
		t.Errorf("without endpoints: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- second(cli.Get(e.ctx, "key")) }()
	cli.SetEndpoints(endpoints[0])
	if err := <-done; err != nil {
		t.Errorf("a call that waited for endpoints: %v", err)
	}
}

// Endpoints change under load without a call that fails.
func TestSetEndpointsUnderLoad(t *testing.T) {
	e := onThree(t)
	endpoints := e.cluster.Endpoints()
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				if _, err := e.Get(e.ctx, e.prefix); err != nil {
					t.Error(err)
					return
				}
				if _, err := e.Put(e.ctx, fmt.Sprint(e.prefix, i), fmt.Sprint(n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 60 {
		e.SetEndpoints(endpoints[i%3], endpoints[(i+1)%3])
		if _, err := e.Get(e.ctx, e.prefix); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}

func TestSync(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		all := e.cluster.Endpoints()
		cli := e.clientOf(t, all[len(all)-1])
		if err := cli.Sync(e.ctx); err != nil {
			t.Fatal(err)
		}
		got := cli.Endpoints()
		slices.Sort(got)
		slices.Sort(all)
		if !slices.Equal(got, all) {
			t.Errorf("endpoints %q, want %q", got, all)
		}
		if _, err := cli.Put(e.ctx, e.prefix, "v"); err != nil {
			t.Error(err)
		}
		cancelled, cancel := context.WithCancel(e.ctx)
		cancel()
		if err := cli.Sync(cancelled); err != context.Canceled || len(cli.Endpoints()) != len(all) {
			t.Errorf("with a cancelled context: %v, endpoints %q", err, cli.Endpoints())
		}
	})
}

func TestAutoSync(t *testing.T) {
	e := onThree(t)
	cfg := e.config(t)
	cfg.Endpoints = cfg.Endpoints[:1]
	cfg.AutoSyncInterval = 50 * time.Millisecond
	cli := open(t, cfg)
	for len(cli.Endpoints()) != 3 {
		select {
		case <-e.ctx.Done():
			t.Fatalf("endpoints %q", cli.Endpoints())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestDial(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		for i, ep := range e.cluster.Endpoints() {
			conn, err := e.Dial(ep)
			if err != nil {
				t.Fatal(err)
			}
			got, err := pb.NewKVClient(conn).Range(e.ctx, &pb.RangeRequest{Key: []byte("key")})
			if err != nil || got.Header.MemberId != e.cluster.Member(i).ID() {
				t.Errorf("%s: %v, %v", ep, got, err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// Stubs on the client's connection are balanced and authenticated as the client's calls, and return bare gRPC errors.
func TestActiveConnectionAndStubs(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		for name, kv := range map[string]pb.KVClient{
			"connection": pb.NewKVClient(e.ActiveConnection()),
			"stub":       clientv3.RetryKVClient(e.Client),
		} {
			if _, err := kv.Range(e.ctx, &pb.RangeRequest{Key: []byte("key")}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			_, err := kv.Range(e.ctx, &pb.RangeRequest{})
			if errors.Is(err, rpctypes.ErrEmptyKey) || rpctypes.Error(err) != rpctypes.ErrEmptyKey {
				t.Errorf("%s: %v is not the bare error", name, err)
			}
		}
		kv := clientv3.NewKVFromKVClient(clientv3.RetryKVClient(e.Client), e.Client)
		if _, err := kv.Get(e.ctx, ""); err != rpctypes.ErrEmptyKey {
			t.Errorf("a KV on the stub: %v", err)
		}
	})
}

func TestRejectOldCluster(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		cfg := e.config(t)
		cfg.RejectOldCluster = true
		cfg.DialTimeout = testTimeout
		cli, err := clientv3.New(cfg)
		if servers.Before(t, "3.6") {
			if err != clientv3.ErrOldCluster {
				t.Errorf("%v, want %v", err, clientv3.ErrOldCluster)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := cli.Close(); err != nil {
			t.Error(err)
		}
	})
}

// oldServer says that it is of some version.
type oldServer struct {
	pb.UnimplementedMaintenanceServer
	version string
}

func (s oldServer) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Version: s.version}, nil
}

func TestRejectOldClusterFindsOneOldMember(t *testing.T) {
	e := onOne(t)
	tooOld := servers.Before(t, "3.6") // the real member
	for version, want := range map[string]error{
		"3.5.17":        clientv3.ErrOldCluster,
		"2.3.8":         clientv3.ErrOldCluster,
		"3.6.0":         nil,
		"3.8.0-alpha.0": nil,
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := grpc.NewServer()
		pb.RegisterMaintenanceServer(srv, oldServer{version: version})
		go func() { _ = srv.Serve(l) }()
		cfg := e.config(t)
		cfg.Endpoints = append(cfg.Endpoints, l.Addr().String())
		cfg.RejectOldCluster = true
		cfg.DialTimeout = testTimeout
		if tooOld {
			want = clientv3.ErrOldCluster
		}
		cli, err := clientv3.New(cfg)
		if err != want {
			t.Errorf("%s: %v, want %v", version, err, want)
		}
		if cli != nil {
			_ = cli.Close() // only to end it
		}
		srv.Stop()
	}
}
