package clientv3

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

func TestNewDoesNotWaitForAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		m.servers[0].SetMode(scripted.Hanging)
		for _, endpoints := range [][]string{{"dead:1"}, {"m0:2379"}} {
			start := time.Now()
			c := newTestClient(t, Config{Endpoints: endpoints, DialOptions: m.config().DialOptions, DialTimeout: time.Hour})
			if took := time.Since(start); took != 0 {
				t.Errorf("%v: New took %v", endpoints, took)
			}
			if got := c.Endpoints(); !slices.Equal(got, endpoints) {
				t.Errorf("endpoints %v, want %v", got, endpoints)
			}
		}
	})
}

func TestNewDoesNotKeepItsConfig(t *testing.T) {
	m := newMembers(t, 1)
	cfg := m.config()
	c := newTestClient(t, cfg)
	cfg.Endpoints[0] = "x:1"
	if got := c.Endpoints()[0]; got != "http://m0:2379" {
		t.Errorf("endpoint %q", got)
	}
	c.Endpoints()[0] = "y:1"
	if got := c.Endpoints()[0]; got != "http://m0:2379" {
		t.Errorf("endpoint %q", got)
	}
}

func TestNewFromURL(t *testing.T) {
	s := scripted.Listen(t, "tcp", "127.0.0.1:0")
	one, err := NewFromURL(s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	two, err := NewFromURLs([]string{s.Endpoint(), "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	for _, c := range []*Client{one, two} {
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Error(err)
		}
	}
	if got := one.ActiveConnection().Target(); got != "etcd-endpoints:///"+s.Addr() {
		t.Errorf("target %q", got)
	}
}

func TestUnreachableSocketsAreNamedWithTheirDialErrors(t *testing.T) {
	c := newTestClient(t, Config{
		Endpoints: []string{"http://127.0.0.1:1", "unix:///nope/no.sock"}, Logger: zap.NewNop(),
		MaxUnaryRetries: 2, BackoffWaitBetween: 10 * time.Millisecond,
	})
	_, err := c.Put(t.Context(), "k", "v")
	for _, part := range []string{
		`"http://127.0.0.1:1" (`, "connection refused", `"unix:///nope/no.sock" (`, "no such file or directory",
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v lacks %q", err, part)
		}
	}
}

func TestEndpointsOfAllKinds(t *testing.T) {
	cert := scripted.NewCertificate(t, "localhost", "127.0.0.1", "t.sock")
	withTLS := grpc.Creds(credentials.NewServerTLSFromCert(&cert.TLS))
	t.Chdir(t.TempDir()) // paths of sockets must be short
	plain := scripted.Listen(t, "tcp", "127.0.0.1:0")
	secure := scripted.Listen(t, "tcp", "127.0.0.1:0", withTLS)
	plainSocket := scripted.Listen(t, "unix", "s.sock")
	secureSocket := scripted.Listen(t, "unix", "t.sock", withTLS)
	_, securePort, _ := strings.Cut(secure.Addr(), ":")
	trusting := clientTLS(cert)
	for name, tt := range map[string]struct {
		endpoint string
		server   *scripted.Server
		tls      bool // configured
		secured  bool // expected
	}{
		"host and port":               {plain.Addr(), plain, false, false},
		"host and port with TLS":      {secure.Addr(), secure, true, true},
		"http":                        {"http://" + plain.Addr(), plain, false, false},
		"http although TLS is there":  {"http://" + plain.Addr(), plain, true, false},
		"https":                       {"https://" + secure.Addr(), secure, true, true},
		"https by name":               {"https://localhost:" + securePort, secure, true, true},
		"unix":                        {"unix://s.sock", plainSocket, false, false},
		"unix without slashes":        {"unix:s.sock", plainSocket, false, false},
		"unix with TLS":               {"unix://t.sock", secureSocket, true, true},
		"unixs":                       {"unixs://t.sock", secureSocket, true, true},
		"scheme in another case":      {"HTTP://" + plain.Addr(), plain, false, false},
		"with a path, which is of no": {"http://" + plain.Addr() + "/path", plain, false, false},
	} {
		cfg := Config{Endpoints: []string{tt.endpoint}, Logger: zap.NewNop()}
		if tt.tls {
			cfg.TLS = trusting
		}
		c := newTestClient(t, cfg)
		tt.server.Forget()
		if _, err := c.Get(within(t, 5*time.Second), "k"); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p, _ := peer.FromContext(tt.server.Calls(pb.KV_Range_FullMethodName)[0].Context)
		if _, secured := p.AuthInfo.(credentials.TLSInfo); secured != tt.secured {
			t.Errorf("%s: secured %t, want %t", name, secured, tt.secured)
		}
		if _, err := c.Status(within(t, 5*time.Second), tt.endpoint); err != nil {
			t.Errorf("%s: Status: %v", name, err)
		}
	}
}

func TestCloseEndsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		time.Sleep(time.Second)
		if err := c.Ctx().Err(); err != nil {
			t.Errorf("context of an open client: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("first Close: %v", err)
		}
		for range 2 {
			if err := c.Close(); err != context.Canceled { //nolint:errorlint // identity is what is promised
				t.Errorf("another Close: %v", err)
			}
		}
		if err := c.Ctx().Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("context of a closed client: %v", err)
		}
		synctest.Wait()
		for _, s := range m.servers {
			if n := s.Conns(); n != 0 {
				t.Errorf("%d connections are left to %s", n, s.Addr())
			}
		}
		// What needs no connection of the client's goes on working.
		c.SetEndpoints("x:1")
		if got := c.Endpoints(); !slices.Equal(got, []string{"x:1"}) || c.ActiveConnection() == nil {
			t.Errorf("endpoints %v, connection %v", got, c.ActiveConnection())
		}
		if _, err := c.Status(t.Context(), "m0:2379"); err != nil {
			t.Errorf("Status: %v", err)
		}
	})
}

func TestCloseWaitsForWhatRunsInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMembers(t, 1).client(t)
		ended := false
		if !c.spawn(func() {
			<-c.ctx.Done()
			time.Sleep(time.Minute)
			ended = true
		}) {
			t.Fatal("an open client runs nothing in the background")
		}
		if err := c.Close(); err != nil || !ended {
			t.Errorf("error %v, ended %t", err, ended)
		}
		if c.spawn(func() {}) {
			t.Error("a closed client runs something in the background")
		}
	})
}

func TestPingsFindAConnectionThatIsDead(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		want   time.Duration // until the frozen member is given up
	}{
		"by default": {func(*Config) {}, DefaultDialKeepAliveTime + DefaultDialKeepAliveTimeout},
		"configured": {func(cfg *Config) {
			cfg.DialKeepAliveTime, cfg.DialKeepAliveTimeout = 20*time.Second, 5*time.Second
		}, 25 * time.Second},
		"turned off": {func(cfg *Config) { cfg.DialKeepAliveTime = -1 }, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 1)
				c := m.client(t, tt.change)
				if _, err := c.Get(t.Context(), "k"); err != nil {
					t.Fatal(err)
				}
				m.servers[0].Freeze()
				start := time.Now()
				_, err := c.Put(within(t, time.Hour), "k", "v")
				// The client looks at a connection once in each interval, so it may take one longer.
				if took := time.Since(start); err == nil || took < tt.want || took > 2*tt.want {
					t.Errorf("%v after %v, want the connection given up after %v", err, took, tt.want)
				}
			})
		})
	}
}

func TestDialTimeoutMayProlongAConnectionAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for timeout, want := range map[time.Duration]time.Duration{0: connectTimeout, time.Second: connectTimeout, time.Minute: time.Minute} {
			m := newMembers(t, 1)
			m.servers[0].SetMode(scripted.Hanging)
			c := m.client(t, func(cfg *Config) {
				cfg.DialTimeout, cfg.MaxUnaryRetries, cfg.BackoffWaitBetween = timeout, 1, time.Millisecond
			})
			start := time.Now()
			_, err := c.Put(t.Context(), "k", "v")
			if took := time.Since(start); status.Code(err) != codes.Unavailable || took < want || took > want+time.Second {
				t.Errorf("DialTimeout %v: %v after %v, want the attempt given up after %v", timeout, err, took, want)
			}
		}
	})
}

func TestServicesOfAClosedClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.GetStream(t.Context(), "k"); err != grpc.ErrClientConnClosing { //nolint:errorlint // identity
			t.Errorf("GetStream: %v", err)
		}
		if _, err := c.Snapshot(t.Context()); err != grpc.ErrClientConnClosing { //nolint:errorlint // identity
			t.Errorf("Snapshot: %v", err)
		}
		if _, err := c.KeepAliveOnce(t.Context(), 1); err != grpc.ErrClientConnClosing { //nolint:errorlint // identity
			t.Errorf("KeepAliveOnce: %v", err)
		}
		ch, err := c.KeepAlive(t.Context(), 1)
		var halted ErrKeepAliveHalted
		if _, open := <-ch; open || !errors.As(err, &halted) {
			t.Errorf("KeepAlive: channel open %t, error %v", open, err)
		}
		for resp := range c.Watch(t.Context(), "k") {
			if resp.Err() == nil {
				t.Errorf("Watch: %+v", resp)
			}
		}
		if err := c.Sync(t.Context()); err != grpc.ErrClientConnClosing { //nolint:errorlint // identity
			t.Errorf("Sync: %v", err)
		}
	})
}

func TestConfigContextIsTheParentOfTheClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		c := m.client(t, func(cfg *Config) { cfg.Context, cfg.AutoSyncInterval = ctx, time.Minute })
		cancel()
		if err := c.Ctx().Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("context of the client: %v", err)
		}
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Errorf("calls run under their own: %v", err)
		}
		time.Sleep(time.Hour)
		if n := m.count(pb.Cluster_MemberList_FullMethodName); n != 0 {
			t.Errorf("%d syncs after the end", n)
		}
	})
}

func TestSetEndpointsMovesCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		core, logs := observer.New(zap.WarnLevel)
		c := m.client(t, func(cfg *Config) { cfg.Endpoints, cfg.Logger = cfg.Endpoints[:1], zap.New(core) })
		get := func(want ...int) {
			t.Helper()
			m.forget()
			for range 40 {
				if _, err := c.Get(t.Context(), "k"); err != nil {
					t.Fatal(err)
				}
			}
			for i, n := range m.counts(pb.KV_Range_FullMethodName) {
				if (n > 0) != slices.Contains(want, i) {
					t.Errorf("calls %v, want them at %v", m.counts(pb.KV_Range_FullMethodName), want)
				}
			}
		}
		get(0)
		c.SetEndpoints("m1:2379", "http://m2:2379", "m1:2379")
		time.Sleep(time.Second)
		get(1, 2)
		if got := c.Endpoints(); !slices.Equal(got, []string{"m1:2379", "http://m2:2379", "m1:2379"}) {
			t.Errorf("endpoints %v", got)
		}
		if m.servers[0].Conns() != 0 || m.servers[1].Conns() != 1 {
			t.Errorf("connections: %d to the old one, %d to a new one", m.servers[0].Conns(), m.servers[1].Conns())
		}
		if logs.Len() != 0 {
			t.Errorf("logged %v", logs.All())
		}
		// One that cannot be parsed is left out, and said.
		c.SetEndpoints("http://%zz", "m1:2379")
		time.Sleep(time.Second)
		get(1)
		if n := m.servers[1].Accepted(); n != 1 {
			t.Errorf("the endpoint that stays was connected to %d times", n)
		}
		if logs.Len() != 1 {
			t.Errorf("logged %v, want one warning", logs.All())
		}
	})
}

func TestSetEndpointsToNoneAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		time.Sleep(time.Second)
		c.SetEndpoints()
		if got := c.Endpoints(); len(got) != 0 {
			t.Errorf("endpoints %v", got)
		}
		if _, err := c.Get(within(t, time.Second), "k"); err != context.DeadlineExceeded { //nolint:errorlint // bare
			t.Errorf("error %v", err)
		}
		if _, err := c.Put(t.Context(), "k", "v"); status.Code(err) != codes.Unavailable || MayHaveApplied(err) {
			t.Errorf("error %v", err)
		}
		time.AfterFunc(time.Second, func() { c.SetEndpoints("m0:2379") })
		if _, err := c.Put(t.Context(), "k", "v"); err != nil {
			t.Errorf("a call that waited for endpoints: %v", err)
		}
	})
}

func TestDialConnectsToOneEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t, func(cfg *Config) { cfg.Endpoints, cfg.Token = cfg.Endpoints[:1], "tok" })
		conn, err := c.Dial("http://m1:2379")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, tt := range []struct {
			name, method string
			call         func() error
			answer       error
			attempts     int
		}{
			{"a read that went wrong", pb.KV_Range_FullMethodName, func() error {
				_, err := NewKVFromKVClient(pb.NewKVClient(conn), nil).Get(t.Context(), "k")
				return err
			}, rpctypes.ErrGRPCLeaderChanged, 1},
			{"a call that was not carried out", pb.KV_Range_FullMethodName, func() error {
				_, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{})
				return err
			}, rpctypes.ErrGRPCRequestTooManyRequests, 2},
			{"maintenance", pb.Maintenance_Status_FullMethodName, func() error {
				_, err := RetryMaintenanceClient(c, conn).Status(t.Context(), &pb.StatusRequest{})
				return err
			}, rpctypes.ErrGRPCLeaderChanged, 2},
		} {
			before := m.counts(tt.method)
			m.handle(tt.method, scripted.FailTimes(1, tt.answer))
			if err := tt.call(); (err == nil) != (tt.attempts > 1) {
				t.Errorf("%s: %v", tt.name, err)
			}
			if got := m.counts(tt.method); got[0] != 0 || got[1]-before[1] != tt.attempts {
				t.Errorf("%s: calls %v after %v, want %d more at the second member", tt.name, got, before, tt.attempts)
			}
		}
		if got := m.last(t, pb.KV_Range_FullMethodName).Metadata().Get(rpctypes.TokenFieldNameGRPC); !slices.Equal(got, []string{"tok"}) {
			t.Errorf("token %q", got)
		}
		if _, err := c.Dial("http://%zz"); err == nil {
			t.Error("an endpoint that cannot be parsed was dialled")
		}
	})
}

// memberList makes the members answer with these.
func memberList(m *members, list ...*pb.Member) {
	m.handle(pb.Cluster_MemberList_FullMethodName, scripted.Answer(&pb.MemberListResponse{Members: list}))
}

func TestSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		before := c.Endpoints()
		voter := &pb.Member{Name: "a", ClientURLs: []string{"http://m0:2379", "http://m0:12379"}}
		learner := &pb.Member{Name: "b", IsLearner: true, ClientURLs: []string{"http://b:2379"}}
		notStarted := &pb.Member{ClientURLs: []string{"http://c:2379"}}
		second := &pb.Member{Name: "d", ClientURLs: []string{"http://d:2379"}}

		for name, list := range map[string][]*pb.Member{"none": nil, "none started": {notStarted}, "learners": {learner}} {
			memberList(m, list...)
			if err := c.Sync(t.Context()); err == nil || !slices.Equal(c.Endpoints(), before) {
				t.Errorf("%s: error %v, endpoints %v", name, err, c.Endpoints())
			}
		}
		m.handle(pb.Cluster_MemberList_FullMethodName, scripted.Fail(rpctypes.ErrGRPCPermissionDenied))
		if err := c.Sync(t.Context()); err != rpctypes.ErrPermissionDenied || !slices.Equal(c.Endpoints(), before) { //nolint:errorlint // identity
			t.Errorf("refused: error %v, endpoints %v", err, c.Endpoints())
		}
		memberList(m, learner, voter, notStarted, second)
		if err := c.Sync(t.Context()); err != nil {
			t.Error(err)
		}
		if got, want := c.Endpoints(), []string{"http://m0:2379", "http://m0:12379", "http://d:2379"}; !slices.Equal(got, want) {
			t.Errorf("endpoints %v, want %v", got, want)
		}
		if req := m.last(t, pb.Cluster_MemberList_FullMethodName).Request.(*pb.MemberListRequest); !req.Linearizable {
			t.Error("the list that was asked for may be stale")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Sync(ctx); err != context.Canceled { //nolint:errorlint // bare
			t.Errorf("under an ended context: %v", err)
		}
	})
}

func TestAutoSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		core, logs := observer.New(zap.WarnLevel)
		c := m.client(t, func(cfg *Config) {
			cfg.Endpoints, cfg.AutoSyncInterval, cfg.Logger = cfg.Endpoints[:1], time.Minute, zap.New(core)
		})
		memberList(m, &pb.Member{Name: "a", ClientURLs: []string{"http://m0:2379", "http://m1:2379"}})
		time.Sleep(59 * time.Second)
		if got := c.Endpoints(); len(got) != 1 {
			t.Errorf("endpoints %v before the first interval has passed", got)
		}
		time.Sleep(2 * time.Second)
		if got := c.Endpoints(); len(got) != 2 {
			t.Errorf("endpoints %v after the first interval", got)
		}
		// A member that hangs does not end it for good.
		m.handle(pb.Cluster_MemberList_FullMethodName, scripted.Hang)
		time.Sleep(time.Minute + 10*time.Second)
		if logs.Len() != 1 {
			t.Errorf("logged %v, want one warning", logs.All())
		}
		memberList(m, &pb.Member{Name: "a", ClientURLs: []string{"http://m1:2379"}})
		time.Sleep(time.Minute)
		if got := c.Endpoints(); !slices.Equal(got, []string{"http://m1:2379"}) {
			t.Errorf("endpoints %v after a member hung", got)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		m.forget()
		time.Sleep(time.Hour)
		if n := m.count(pb.Cluster_MemberList_FullMethodName); n != 0 {
			t.Errorf("%d syncs after Close", n)
		}
	})
}

func TestCloseEndsASyncUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		core, logs := observer.New(zap.WarnLevel)
		c := m.client(t, func(cfg *Config) { cfg.AutoSyncInterval, cfg.Logger = time.Minute, zap.New(core) })
		m.handle(pb.Cluster_MemberList_FullMethodName, scripted.Hang)
		time.Sleep(time.Minute + time.Second)
		start := time.Now()
		if err := c.Close(); err != nil || time.Since(start) != 0 || logs.Len() != 0 {
			t.Errorf("Close: %v after %v, logged %v", err, time.Since(start), logs.All())
		}
	})
}

func TestRejectOldCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			versions []string
			want     error
			contains string
		}{
			"same":            {[]string{"3.7.3"}, nil, ""},
			"one before":      {[]string{"3.6.0", "3.7.0"}, nil, ""},
			"newer":           {[]string{"3.8.0-alpha.0", "4.0.0"}, nil, ""},
			"two before":      {[]string{"3.5.17"}, ErrOldCluster, ""},
			"an old one":      {[]string{"3.7.0", "3.4.0", "3.7.0"}, ErrOldCluster, ""},
			"another age":     {[]string{"2.3.8"}, ErrOldCluster, ""},
			"not a version":   {[]string{"3.6"}, nil, `"3.6"`},
			"nothing at all":  {[]string{""}, nil, `""`},
			"not even digits": {[]string{"not decided"}, nil, "not decided"},
		} {
			m := newMembers(t, len(tt.versions))
			for i, v := range tt.versions {
				m.servers[i].Handle(pb.Maintenance_Status_FullMethodName, scripted.Answer(&pb.StatusResponse{Version: v}))
			}
			cfg := m.config()
			cfg.RejectOldCluster = true
			c, err := New(cfg)
			switch {
			case tt.contains != "":
				if err == nil || !strings.Contains(err.Error(), tt.contains) {
					t.Errorf("%s: %v", name, err)
				}
			case err != tt.want: //nolint:errorlint // identity is what is promised
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
			if (c != nil) != (err == nil) {
				t.Errorf("%s: client %v with error %v", name, c, err)
			}
			if c != nil {
				_ = c.Close()
			}
		}
	})
}

func TestRejectOldClusterAsksEveryMemberWithinDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		m.handle(pb.Maintenance_Status_FullMethodName, scripted.Answer(&pb.StatusResponse{Version: "3.7.0"}))
		m.servers[1].Handle(pb.Maintenance_Status_FullMethodName, scripted.Hang)
		cfg := m.config()
		cfg.RejectOldCluster, cfg.DialTimeout = true, 3*time.Second
		start := time.Now()
		if _, err := New(cfg); err != context.DeadlineExceeded || time.Since(start) != 3*time.Second { //nolint:errorlint // bare
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// tokens makes the members ask for tokens: t1, t2 and so on, as Authenticate hands them out. The function it returns
// makes those handed out so far invalid.
func tokens(m *members) (invalidate func()) {
	var (
		mu            sync.Mutex
		issued, valid int
	)
	m.handle(pb.Auth_Authenticate_FullMethodName, func(call *scripted.Call) (proto.Message, error) {
		if len(call.Metadata().Get(rpctypes.TokenFieldNameGRPC)) != 0 {
			// As servers before 3.5 say, which look at the token of this request too, and it is an old one.
			return nil, rpctypes.ErrGRPCInvalidAuthToken
		}
		if call.Request.(*pb.AuthenticateRequest).Password != "right" {
			return nil, rpctypes.ErrGRPCAuthFailed
		}
		mu.Lock()
		defer mu.Unlock()
		issued++
		return &pb.AuthenticateResponse{Token: fmt.Sprint("t", issued)}, nil
	})
	check := func(call *scripted.Call) (proto.Message, error) {
		mu.Lock()
		defer mu.Unlock()
		got := call.Metadata().Get(rpctypes.TokenFieldNameGRPC)
		if len(got) == 0 {
			return nil, rpctypes.ErrGRPCUserEmpty
		}
		if got[0] != fmt.Sprint("t", issued) || issued <= valid {
			return nil, rpctypes.ErrGRPCInvalidAuthToken
		}
		return nil, nil
	}
	m.handle(pb.KV_Range_FullMethodName, check)
	m.handle(pb.KV_Put_FullMethodName, check)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		valid = issued
	}
}

func withUser(password string) func(*Config) {
	return func(cfg *Config) { cfg.Username, cfg.Password = "u", password }
}

func TestNewAuthenticates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		tokens(m)
		c := m.client(t, withUser("right"))
		if got := m.count(pb.Auth_Authenticate_FullMethodName); got != 1 {
			t.Errorf("%d logins in New", got)
		}
		if got := m.last(t, pb.Auth_Authenticate_FullMethodName).Metadata().Get(rpctypes.TokenFieldNameGRPC); len(got) != 0 {
			t.Errorf("the first login carries the token %q", got)
		}
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Error(err)
		}
		if c.Username != "u" || c.Password != "right" || c.Token != "" {
			t.Errorf("fields %q, %q, %q", c.Username, c.Password, c.Token)
		}
	})
}

func TestAWrongPasswordFailsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		tokens(m)
		cfg := m.config()
		withUser("wrong")(&cfg)
		c, err := New(cfg)
		if c != nil || err != rpctypes.ErrAuthFailed { //nolint:errorlint // identity is what is promised
			t.Errorf("client %v, error %v", c, err)
		}
		if got := m.count(pb.Auth_Authenticate_FullMethodName); got != 1 {
			t.Errorf("%d logins", got)
		}
		synctest.Wait()
		if n := m.servers[0].Conns() + m.servers[1].Conns(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func TestAuthenticationThatIsNotEnabledIsFine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		m.handle(pb.Auth_Authenticate_FullMethodName, scripted.Fail(rpctypes.ErrGRPCAuthNotEnabled))
		c := m.client(t, withUser("right"))
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Error(err)
		}
		if got := m.last(t, pb.KV_Range_FullMethodName).Metadata().Get(rpctypes.TokenFieldNameGRPC); len(got) != 0 {
			t.Errorf("a call carries the token %q", got)
		}
		// Once it is enabled, calls are refused for want of a token.
		tokens(m)
		if _, err := c.Put(t.Context(), "k", "v"); err != nil {
			t.Errorf("after it was enabled: %v", err)
		}
		if got := m.count(pb.Auth_Authenticate_FullMethodName); got != 2 {
			t.Errorf("%d logins, want two", got)
		}
	})
}

func TestHalfAnIdentityIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		tokens(m)
		for _, change := range []func(*Config){
			func(cfg *Config) { cfg.Username = "u" },
			func(cfg *Config) { cfg.Password = "right" },
			func(*Config) {},
		} {
			c := m.client(t, change)
			if _, err := c.Get(t.Context(), "k"); err != rpctypes.ErrUserEmpty { //nolint:errorlint // identity
				t.Errorf("error %v", err)
			}
		}
		if n := m.count(pb.Auth_Authenticate_FullMethodName); n != 0 {
			t.Errorf("%d logins", n)
		}
	})
}

func TestARefusedTokenIsReplacedOnceForAllCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		invalidate := tokens(m)
		c := m.client(t, withUser("right"))
		for round := 1; round <= 3; round++ {
			invalidate()
			m.forget()
			var callers sync.WaitGroup
			for i := range 50 {
				callers.Go(func() {
					err := drop(c.Get(t.Context(), "k"))
					if i%2 == 0 {
						err = drop(c.Put(t.Context(), "k", "v")) // refused before anything was proposed
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			callers.Wait()
			if got := m.count(pb.Auth_Authenticate_FullMethodName); got != 1 {
				t.Errorf("round %d: %d logins for 50 callers, want one", round, got)
			}
		}
	})
}

func TestATokenThatAnOldServerRefusesIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		tokens(m)
		c := m.client(t, withUser("right"))
		m.handle(pb.Maintenance_Defragment_FullMethodName, func(call *scripted.Call) (proto.Message, error) {
			if call.Metadata().Get(rpctypes.TokenFieldNameGRPC)[0] == "t1" {
				return nil, status.Error(codes.Unknown, "auth: invalid auth token")
			}
			return nil, nil
		})
		if _, err := c.Defragment(t.Context(), c.Endpoints()[0]); err != nil {
			t.Error(err)
		}
		m.handle(pb.Maintenance_Defragment_FullMethodName, scripted.Fail(status.Error(codes.Unknown, "auth: permission denied")))
		_, err := c.Defragment(t.Context(), c.Endpoints()[0])
		if err != rpctypes.ErrPermissionDenied || MayHaveApplied(err) { //nolint:errorlint // identity
			t.Errorf("error %v", err)
		}
	})
}

func TestATokenThatOneMemberDoesNotKnowYetIsTriedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		invalidate := tokens(m)
		m.servers[0].Handle(pb.KV_Put_FullMethodName, scripted.Fail(rpctypes.ErrGRPCInvalidAuthToken))
		c := m.client(t, withUser("right"))
		time.Sleep(time.Second)
		for range 20 {
			invalidate()
			m.forget()
			if _, err := c.Put(t.Context(), "k", "v"); err != nil {
				t.Error(err)
			}
			if n := m.count(pb.Auth_Authenticate_FullMethodName); n > 2 {
				t.Errorf("%d logins for one call", n)
			}
		}
	})
}

func TestATokenThatIsAlwaysRefusedIsTheErrorOfTheCall(t *testing.T) {
	for _, refusal := range []error{
		rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCAuthOldRevision, rpctypes.ErrGRPCUserEmpty,
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMembers(t, 1)
			tokens(m)
			c := m.client(t, withUser("right"))
			for name, op := range map[string]operation{"Put": writes()["Put"], "Get": reads()["Get"]} {
				m.forget()
				m.handle(op.method, scripted.Fail(refusal))
				start := time.Now()
				if err := op.do(t.Context(), c); err != rpctypes.Error(refusal) { //nolint:errorlint // identity
					t.Errorf("%s: %v, want %v", name, err, refusal)
				}
				attempts, logins := m.count(op.method), m.count(pb.Auth_Authenticate_FullMethodName)
				if attempts < 2 || attempts > 50 || logins < 1 || logins >= attempts || time.Since(start) > 2*tokenPatience {
					t.Errorf("%s: %d attempts, %d logins in %v", name, attempts, logins, time.Since(start))
				}
			}
		})
	}
}

func TestAPasswordThatHasChangedIsTheErrorOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		invalidate := tokens(m)
		c := m.client(t, withUser("right"))
		invalidate()
		m.handle(pb.Auth_Authenticate_FullMethodName, scripted.Fail(rpctypes.ErrGRPCAuthFailed))
		if _, err := c.Get(t.Context(), "k"); err != rpctypes.ErrAuthFailed { //nolint:errorlint // identity
			t.Errorf("error %v", err)
		}
	})
}

func TestAStaticTokenIsNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		tokens(m)
		c := m.client(t, func(cfg *Config) { cfg.Token = "stale" })
		if _, err := c.Get(t.Context(), "k"); err != rpctypes.ErrInvalidAuthToken { //nolint:errorlint // identity
			t.Errorf("error %v", err)
		}
		if m.count(pb.KV_Range_FullMethodName) != 1 || m.count(pb.Auth_Authenticate_FullMethodName) != 0 {
			t.Errorf("%d attempts, %d logins", m.count(pb.KV_Range_FullMethodName), m.count(pb.Auth_Authenticate_FullMethodName))
		}
	})
}

func TestALoginThatIsRefusedATokenIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		tokens(m)
		c := m.client(t, withUser("right"))
		m.forget()
		m.handle(pb.Auth_Authenticate_FullMethodName, scripted.Fail(rpctypes.ErrGRPCInvalidAuthToken))
		if _, err := c.Authenticate(t.Context(), "u", "p"); err != rpctypes.ErrInvalidAuthToken { //nolint:errorlint // identity
			t.Errorf("error %v", err)
		}
		if n := m.count(pb.Auth_Authenticate_FullMethodName); n != 1 {
			t.Errorf("%d logins", n)
		}
	})
}

func TestDialTimeoutBoundsTheFirstLogin(t *testing.T) {
	for name, prepare := range map[string]func(*members){
		"refused":   func(m *members) { m.servers[0].Stop() },
		"no HTTP/2": func(m *members) { m.servers[0].SetMode(scripted.Hanging) },
		"no answer": func(m *members) { m.handle(pb.Auth_Authenticate_FullMethodName, scripted.Hang) },
		"always refused": func(m *members) {
			m.handle(pb.Auth_Authenticate_FullMethodName, scripted.Fail(rpctypes.ErrGRPCNoLeader))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 1)
				prepare(m)
				cfg := m.config()
				cfg.MaxUnaryRetries = 1 << 20
				withUser("right")(&cfg)
				for _, timeout := range []time.Duration{time.Second, time.Minute} {
					cfg.DialTimeout = timeout
					start := time.Now()
					c, err := New(cfg)
					if c != nil || err != context.DeadlineExceeded || time.Since(start) != timeout { //nolint:errorlint // bare
						t.Errorf("client %v, error %v after %v", c, err, time.Since(start))
					}
				}
			})
		})
	}
}

func TestNewWaitsForAMemberWithinDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		tokens(m)
		m.servers[0].Stop()
		time.AfterFunc(20*time.Second, func() { _ = m.servers[0].Start() })
		c := m.client(t, withUser("right"), func(cfg *Config) { cfg.DialTimeout = time.Minute })
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Error(err)
		}
	})
}

func TestWithoutDialTimeoutAnUnreachableClusterIsLeftToTheFirstCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		tokens(m)
		m.servers[0].Stop()
		start := time.Now()
		c := m.client(t, withUser("right"))
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("New took %v", took)
		}
		if err := m.servers[0].Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseEndsALoginUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		invalidate := tokens(m)
		c := m.client(t, withUser("right"))
		invalidate()
		m.handle(pb.Auth_Authenticate_FullMethodName, scripted.Hang)
		result := make(chan error, 1)
		go func() { result <- drop(c.Get(t.Context(), "k")) }()
		synctest.Wait()
		start := time.Now()
		if err := c.Close(); err != nil || time.Since(start) != 0 {
			t.Errorf("Close: %v after %v", err, time.Since(start))
		}
		if err := <-result; err == nil || time.Since(start) != 0 {
			t.Errorf("the call: %v after %v", err, time.Since(start))
		}
	})
}

func TestNewCtxClient(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := NewCtxClient(ctx)
	if c.Cluster != nil || c.KV != nil || c.Lease != nil || c.Watcher != nil || c.Auth != nil || c.Maintenance != nil {
		t.Error("a service is set")
	}
	if c.ActiveConnection() != nil || len(c.Endpoints()) != 0 {
		t.Errorf("connection %v, endpoints %v", c.ActiveConnection(), c.Endpoints())
	}
	if c.GetLogger().Core().Enabled(zap.FatalLevel) {
		t.Error("the default logger logs")
	}
	c.SetEndpoints("a:1")
	if got := c.Endpoints(); !slices.Equal(got, []string{"a:1"}) {
		t.Errorf("endpoints %v", got)
	}
	for name, f := range map[string]func(){
		"NewKV": func() { NewKV(c) }, "NewLease": func() { _ = NewLease(c).Close() }, "NewWatcher": func() { _ = NewWatcher(c).Close() },
		"NewCluster": func() { NewCluster(c) }, "NewAuth": func() { NewAuth(c) }, "NewMaintenance": func() { NewMaintenance(c) },
		"NewKVFromKVClient":                     func() { NewKVFromKVClient(nil, nil) },
		"NewLeaseFromLeaseClient":               func() { _ = NewLeaseFromLeaseClient(nil, nil, 0).Close() },
		"NewWatchFromWatchClient":               func() { _ = NewWatchFromWatchClient(nil, nil).Close() },
		"NewClusterFromClusterClient":           func() { NewClusterFromClusterClient(nil, nil) },
		"NewAuthFromAuthClient":                 func() { NewAuthFromAuthClient(nil, nil) },
		"NewMaintenanceFromMaintenanceClient":   func() { NewMaintenanceFromMaintenanceClient(nil, nil) },
		"NewMaintenanceFromMaintenanceClient 2": func() { NewMaintenanceFromMaintenanceClient(nil, c) },
	} {
		if got := panicOf(f); got != nil {
			t.Errorf("%s panics: %v", name, got)
		}
	}
	conn, err := c.Dial("a:1")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	cancel()
	if err := c.Ctx().Err(); !errors.Is(err, context.Canceled) {
		t.Errorf("the client has outlived its context: %v", err)
	}
	for range 2 {
		if err := c.Close(); err != context.Canceled { //nolint:errorlint // identity is what is promised
			t.Errorf("Close: %v", err)
		}
	}
}

func TestLoggerOfAClient(t *testing.T) {
	lg := zap.NewExample()
	c := NewCtxClient(t.Context(), WithZapLogger(lg))
	if c.GetLogger() != lg {
		t.Error("WithZapLogger has no effect")
	}
	other := zap.NewExample()
	if c.WithLogger(other) != c || c.GetLogger() != other {
		t.Error("WithLogger has no effect")
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		if c.WithLogger(nil).GetLogger() != nil {
			t.Error("WithLogger(nil) has no effect")
		}
		m.handle(pb.KV_Range_FullMethodName, scripted.FailTimes(1, status.Error(codes.Unavailable, "once")))
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Errorf("without logger: %v", err)
		}
		c.SetEndpoints("http://%zz")
	})
}
