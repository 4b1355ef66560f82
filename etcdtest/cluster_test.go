package etcdtest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// dialEndpoint connects as a client would that knows no more than an endpoint and its TLS configuration.
func dialEndpoint(t *testing.T, endpoint string, cfg *tls.Config) *grpc.ClientConn {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	network, address := "tcp", u.Host
	if strings.HasPrefix(u.Scheme, "unix") {
		network, address = "unix", u.Path
	}
	creds := insecure.NewCredentials()
	if u.Scheme == "https" || u.Scheme == "unixs" {
		cfg = cfg.Clone()
		if network == "unix" {
			cfg.ServerName = "localhost"
		} else {
			cfg.ServerName = u.Hostname()
		}
		creds = credentials.NewTLS(cfg)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func put(ctx context.Context, conn *grpc.ClientConn, key, value string) error {
	_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	return err
}

func get(ctx context.Context, conn *grpc.ClientConn, key string) (string, error) {
	resp, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil || len(resp.Kvs) == 0 {
		return "", err
	}
	return string(resp.Kvs[0].Value), nil
}

// testContext bounds a test's waiting by far more than it takes.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// checkNothingLeft makes temporary directories go to one of the test's own, and checks that none is left at the end.
func checkNothingLeft(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			t.Errorf("%s is left behind", e.Name())
		}
	})
}

func TestClusterServes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		scheme  string
		members int
		opts    []Option
	}{
		{"in process", "http", 1, nil},
		{"child", "http", 1, []Option{WithChildProcesses()}},
		{"three in process", "http", 3, []Option{WithMembers(3)}},
		{"three children", "http", 3, []Option{WithMembers(3), WithChildProcesses()}},
		{"proxies", "http", 3, []Option{WithMembers(3), WithProxies()}},
		{"IPv6", "http", 1, []Option{WithIPv6()}},
		{"IPv6 proxies", "http", 1, []Option{WithIPv6(), WithProxies()}},
		{"fsync", "http", 1, []Option{WithFsync()}},
		{"TLS", "https", 1, []Option{WithTLS()}},
		{"TLS child", "https", 1, []Option{WithTLS(), WithChildProcesses()}},
		{"mutual TLS", "https", 3, []Option{WithMembers(3), WithMutualTLS(), WithProxies()}},
		{"mutual TLS child", "https", 1, []Option{WithMutualTLS(), WithChildProcesses()}},
		{"unix", "unix", 3, []Option{WithMembers(3), WithUnixSockets()}},
		{"unix child", "unix", 1, []Option{WithUnixSockets(), WithChildProcesses()}},
		{"unix proxies", "unix", 1, []Option{WithUnixSockets(), WithProxies()}},
		{"unix TLS", "unixs", 1, []Option{WithUnixSockets(), WithMutualTLS()}},
		{"unix TLS child", "unixs", 1, []Option{WithUnixSockets(), WithTLS(), WithChildProcesses()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := Run(t, tt.opts...)
			ctx := testContext(t)
			endpoints := c.Endpoints()
			if len(endpoints) != tt.members || len(c.Members()) != tt.members {
				t.Fatalf("%d members, %d endpoints, want %d", len(c.Members()), len(endpoints), tt.members)
			}
			for i, ep := range endpoints {
				if !strings.HasPrefix(ep, tt.scheme+"://") {
					t.Errorf("endpoint %s, want scheme %s", ep, tt.scheme)
				}
				if got := c.Member(i).Endpoint(); got != ep {
					t.Errorf("endpoint of member %d = %s, want %s", i, got, ep)
				}
				conn := dialEndpoint(t, ep, c.ClientTLS())
				if err := put(ctx, conn, "key", ep); err != nil {
					t.Fatalf("put at %s: %v", ep, err)
				}
				if got, err := get(ctx, conn, "key"); got != ep || err != nil {
					t.Fatalf("get at %s = %q, %v", ep, got, err)
				}
			}
		})
	}
}

func TestMembersAdvertiseEndpoints(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		opts []Option
	}{
		{"direct", []Option{WithMembers(3)}},
		{"proxies", []Option{WithMembers(3), WithProxies()}},
		{"unix TLS proxies child", []Option{WithUnixSockets(), WithTLS(), WithProxies(), WithChildProcesses()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := Run(t, tt.opts...)
			conn := dialEndpoint(t, c.Endpoints()[0], c.ClientTLS())
			resp, err := pb.NewClusterClient(conn).MemberList(testContext(t), &pb.MemberListRequest{Linearizable: true})
			if err != nil {
				t.Fatal(err)
			}
			byName := make(map[string]*pb.Member)
			for _, m := range resp.Members {
				byName[m.Name] = m
			}
			for _, m := range c.Members() {
				got := byName[m.Name()]
				if got == nil || got.ID != m.ID() || len(got.ClientURLs) != 1 || got.ClientURLs[0] != m.Endpoint() {
					t.Errorf("member %s, id %x, endpoint %s is listed as %v", m.Name(), m.ID(), m.Endpoint(), got)
				}
			}
		})
	}
}

func TestOptionsReachServer(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	opts := []Option{
		WithQuota(512 << 10), WithMaxRequestBytes(2 * size), WithMaxTxnOps(3), WithMaxLearners(2), WithSnapshotCount(5),
		WithTimings(20*time.Millisecond, 200*time.Millisecond),
	}
	for _, tt := range []struct {
		name string
		opts []Option
	}{
		{"in process", opts},
		{"child", append([]Option{WithChildProcesses()}, opts...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := Run(t, tt.opts...)
			conn := dialEndpoint(t, c.Endpoints()[0], nil)
			ctx := testContext(t)
			kv := pb.NewKVClient(conn)

			err := put(ctx, conn, "large", strings.Repeat("x", 3*size))
			if rpctypes.Error(err) != rpctypes.ErrRequestTooLarge {
				t.Errorf("too large a request: %v", err)
			}
			txn := &pb.TxnRequest{}
			for range 4 {
				txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
					RequestRange: &pb.RangeRequest{Key: []byte("k")},
				}})
			}
			if _, err := kv.Txn(ctx, txn); rpctypes.Error(err) != rpctypes.ErrTooManyOps {
				t.Errorf("too many operations: %v", err)
			}
			for _, peer := range []string{"http://127.0.0.1:1", "http://127.0.0.1:2"} {
				_, err := pb.NewClusterClient(conn).MemberAdd(ctx, &pb.MemberAddRequest{
					PeerURLs: []string{peer}, IsLearner: true,
				})
				if err != nil {
					t.Errorf("learner %s: %v", peer, err)
				}
			}
			err = nil
			for i := 0; i < 20 && err == nil; i++ {
				err = put(ctx, conn, "k", strings.Repeat("x", size))
			}
			if rpctypes.Error(err) != rpctypes.ErrNoSpace {
				t.Errorf("beyond the quota: %v", err)
			}
			snaps, err := filepath.Glob(filepath.Join(c.dir, "m0", "member", "snap", "*.snap"))
			if len(snaps) == 0 || err != nil {
				t.Errorf("no raft snapshot was taken: %v", err)
			}
		})
	}
}

func TestEmbedConfigIsTweaked(t *testing.T) {
	t.Parallel()
	c := Run(t, WithEmbedConfig(func(cfg *embed.Config) { cfg.MaxTxnOps = 1 }))
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}
	conn := dialEndpoint(t, c.Endpoints()[0], nil)
	_, err := pb.NewKVClient(conn).Txn(testContext(t), &pb.TxnRequest{Success: []*pb.RequestOp{op, op}})
	if rpctypes.Error(err) != rpctypes.ErrTooManyOps {
		t.Errorf("two operations where one is allowed: %v", err)
	}
}

func TestDataDirIsKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	for i, want := range []string{"", "value"} {
		c, err := Start(t.Context(), WithDataDir(dir), WithTLS())
		if err != nil {
			t.Fatal(err)
		}
		ctx := testContext(t)
		conn := dialEndpoint(t, c.Endpoints()[0], c.ClientTLS())
		if got, err := get(ctx, conn, "key"); got != want || err != nil {
			t.Errorf("start %d: get = %q, %v, want %q", i, got, err, want)
		}
		if err := put(ctx, conn, "key", "value"); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "m0", "member")); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	checkNothingLeft(t)
	for _, opts := range [][]Option{
		{WithMembers(3), WithProxies()},
		{WithChildProcesses(), WithMutualTLS(), WithUnixSockets(), WithProxies()},
	} {
		before := goleak.IgnoreCurrent()
		c, err := Start(t.Context(), opts...)
		if err != nil {
			t.Fatal(err)
		}
		// An open stream does not hold up the end.
		conn := dialEndpoint(t, c.Endpoints()[0], c.ClientTLS())
		watch, err := pb.NewWatchClient(conn).Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
			CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")},
		}}); err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("Close took %v", took)
		}
		if _, err := watch.Recv(); err == nil {
			t.Error("the watch goes on after Close")
		}
		conn.Close()
		if err := goleak.Find(before); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if err := c.Member(0).Restart(t.Context()); !errors.Is(err, errClosed) {
			t.Errorf("Restart after Close: %v", err)
		}
		if _, err := c.AddMember(t.Context()); err == nil {
			t.Error("AddMember after Close succeeds")
		}
	}
}

func TestStartRejectsOptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want string
		opts []Option
	}{
		{"at least one member", []Option{WithMembers(0)}},
		{"5 times", []Option{WithTimings(100*time.Millisecond, 400*time.Millisecond)}},
		{"WithEmbedConfig", []Option{WithChildProcesses(), WithEmbedConfig(func(*embed.Config) {})}},
		{"WithFlags", []Option{WithFlags("--max-txn-ops=1")}},
		{"WithIPv6", []Option{WithUnixSockets(), WithIPv6()}},
		{"whole seconds", []Option{WithAuth(Auth{TokenTTL: 1500 * time.Millisecond})}},
		{`the name "root"`, []Option{WithAuth(Auth{Users: []User{{Name: Root}}})}},
	} {
		c, err := Start(t.Context(), tt.opts...)
		if err == nil {
			t.Errorf("want an error about %s", tt.want)
			c.Close()
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %q, want one about %s", err, tt.want)
		}
	}
	if _, err := Start(t.Context(), WithMembers(0), WithFlags("--x")); err == nil ||
		!strings.Contains(err.Error(), "member") || !strings.Contains(err.Error(), "WithFlags") {
		t.Errorf("error %q, want both mistakes", err)
	}
}

func TestStartFails(t *testing.T) {
	checkNothingLeft(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	script := filepath.Join(dir, "talks")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho first words\necho last words\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		name string
		opts []Option
		want []string
	}{
		{"no such binary", []Option{WithBinary("/nonexistent/etcd")}, []string{"/nonexistent/etcd", "no such file"}},
		{"binary fails", []Option{WithBinary(script)}, []string{"exit status 3", "last words"}},
		{
			"port taken in process",
			[]Option{WithEmbedConfig(func(cfg *embed.Config) { cfg.ListenClientUrls[0].Host = taken.Addr().String() })},
			[]string{"m0", "address already in use"},
		},
		{
			"port taken by child",
			[]Option{WithChildProcesses(), WithFlags("--listen-client-urls=http://" + taken.Addr().String())},
			[]string{"m0", "address already in use"},
		},
		{"unknown flag", []Option{WithChildProcesses(), WithFlags("--nonsense")}, []string{"exit status 2", "nonsense"}},
		{"bad data directory", []Option{WithDataDir(filepath.Join(file, "x"))}, []string{"not a directory"}},
		{
			"role unknown",
			[]Option{WithAuth(Auth{Users: []User{{Name: "u", Roles: []string{"none"}}}})},
			[]string{`user "u" the role "none"`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Start(t.Context(), tt.opts...)
			if err == nil {
				c.Close()
				t.Fatal("it starts")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestStartEndsWithContext(t *testing.T) {
	checkNothingLeft(t)
	for _, opts := range [][]Option{
		{WithMembers(3), WithProxies()},
		{WithMembers(3), WithChildProcesses()},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		c, err := Start(ctx, opts...)
		if err == nil {
			c.Close()
			t.Fatal("it starts")
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want context.DeadlineExceeded", err)
		}
	}
}
