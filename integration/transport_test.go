package integration

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/servers"
)

// works checks that a client of the configuration can write and read, and ask the endpoint itself.
func works(t *testing.T, cfg clientv3.Config) {
	t.Helper()
	cli := open(t, cfg)
	ctx := testContext(t)
	if _, err := cli.Put(ctx, "key", "value"); err != nil {
		t.Error(err)
		return
	}
	if got, err := cli.Get(ctx, "key"); err != nil || len(got.Kvs) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := cli.Status(ctx, cfg.Endpoints[0]); err != nil {
		t.Errorf("status: %v", err)
	}
}

// fails returns the error of a call of a client of the configuration, which must be about the connection.
func fails(t *testing.T, cfg clientv3.Config) error {
	t.Helper()
	cfg.MaxUnaryRetries = 20 // half a second
	err := second(open(t, cfg).Put(testContext(t), "key", "value"))
	if status.Code(err) != codes.Unavailable || clientv3.MayHaveApplied(err) {
		t.Errorf("%v, want an error that says that nobody could be reached", err)
	}
	return err
}

func hostPort(endpoint string) string {
	_, addr, _ := strings.Cut(endpoint, "://")
	return addr
}

// endpoint is one in some form, and what a client of it has to have.
type endpoint struct {
	url string
	tls *tls.Config
}

func (e endpoint) test(t *testing.T) {
	t.Helper()
	name := e.url
	if e.tls != nil {
		name += " with TLS"
	}
	t.Run(name, func(t *testing.T) { works(t, clientv3.Config{Endpoints: []string{e.url}, TLS: e.tls}) })
}

func TestEndpointForms(t *testing.T) {
	plain := setups[0].start(t)
	secured := setups[2].start(t)
	ipv6 := etcdtest.Run(t, etcdtest.WithIPv6())

	addr := hostPort(plain.Endpoints()[0])
	port := addr[strings.LastIndexByte(addr, ':'):]
	tlsAddr := hostPort(secured.Endpoints()[0])
	tlsPort := tlsAddr[strings.LastIndexByte(tlsAddr, ':'):]
	for _, ep := range []endpoint{
		{addr, nil},
		{"localhost" + port, nil},
		{port, nil},
		{"http://" + addr, nil},
		{"HTTP://" + addr, nil},
		{"http://localhost" + port, nil},
		{"http://user@" + addr + "/path", nil},
		{"http://" + addr, secured.ClientTLS()}, // the scheme wins
		{tlsAddr, secured.ClientTLS()},
		{"localhost" + tlsPort, secured.ClientTLS()},
		{"https://" + tlsAddr, secured.ClientTLS()},
		{"https://localhost" + tlsPort, secured.ClientTLS()},
		{"https://" + tlsAddr, &tls.Config{InsecureSkipVerify: true}}, //nolint:gosec // what is tested
		{hostPort(ipv6.Endpoints()[0]), nil},
		{ipv6.Endpoints()[0], nil},
	} {
		ep.test(t)
	}
	if !strings.HasPrefix(hostPort(ipv6.Endpoints()[0]), "[::1]:") {
		t.Errorf("%s is not an IPv6 endpoint", ipv6.Endpoints()[0])
	}
}

func TestUnixEndpointForms(t *testing.T) {
	servers.Need(t, servers.UnixSockets)
	plain := setups[4].start(t)
	secured := etcdtest.Run(t, etcdtest.WithUnixSockets(), etcdtest.WithServerCert(etcdtest.CertSpec{
		Hosts: []string{"localhost", "m0.sock"}, // a socket is verified by the name of its file
	}))
	path, tlsPath := hostPort(plain.Endpoints()[0]), hostPort(secured.Endpoints()[0])
	t.Chdir(filepath.Dir(path))
	for _, ep := range []endpoint{
		{"unix://" + path, nil},
		{"unix:" + path, nil},
		{"unix:" + filepath.Base(path), nil},
		{"unix:./" + filepath.Base(path), nil},
		{"unix://" + filepath.Base(path), nil},
		{"unixs://" + tlsPath, secured.ClientTLS()},
		{"unixs:" + tlsPath, secured.ClientTLS()},
		{"unix://" + tlsPath, secured.ClientTLS()},
	} {
		ep.test(t)
	}
}

// Endpoints of both kinds stand in one list.
func TestMixedEndpoints(t *testing.T) {
	secured := setups[2].start(t)
	plain := setups[0].start(t)
	for name, endpoints := range map[string]func(*testing.T) []string{
		"dead TLS first":   func(*testing.T) []string { return []string{"https://127.0.0.1:1", plain.Endpoints()[0]} },
		"dead plain first": func(*testing.T) []string { return []string{nowhere, secured.Endpoints()[0]} },
		"dead socket": func(*testing.T) []string {
			return []string{"unix:///no/such/socket", plain.Endpoints()[0], "unixs:///none"}
		},
		"socket": func(t *testing.T) []string { return []string{nowhere, setups[4].start(t).Endpoints()[0]} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := clientv3.Config{Endpoints: endpoints(t)}
			if name == "dead plain first" {
				cfg.TLS = secured.ClientTLS()
			}
			cli := open(t, cfg)
			if _, err := cli.Put(testContext(t), "key", ""); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is wrong with a certificate is in the error of the call.
func TestCertificatesThatAreNotTrusted(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, opts ...etcdtest.Option) (*etcdtest.Cluster, clientv3.Config) {
		t.Helper()
		cluster := etcdtest.Run(t, opts...)
		return cluster, config(t, cluster)
	}
	other, err := etcdtest.NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}

	t.Run("unknown authority", func(t *testing.T) {
		_, cfg := run(t, etcdtest.WithTLS())
		cfg.TLS.RootCAs = other.Pool()
		if err := fails(t, cfg); !strings.Contains(err.Error(), "unknown authority") {
			t.Error(err)
		}
		// The default configuration does not know it either.
		cfg.TLS = nil
		if err := fails(t, cfg); !strings.Contains(err.Error(), "unknown authority") {
			t.Error(err)
		}
	})
	t.Run("expired", func(t *testing.T) {
		_, cfg := run(t, etcdtest.WithServerCert(etcdtest.CertSpec{NotAfter: time.Now().Add(-time.Minute)}))
		if err := fails(t, cfg); !strings.Contains(err.Error(), "expired") {
			t.Error(err)
		}
	})
	t.Run("other host", func(t *testing.T) {
		cluster, cfg := run(t, etcdtest.WithServerCert(etcdtest.CertSpec{Hosts: []string{"etcd.example"}}))
		if err := fails(t, cfg); !strings.Contains(err.Error(), "127.0.0.1") {
			t.Error(err)
		}
		cfg.TLS = cluster.ClientTLS()
		cfg.TLS.ServerName = "etcd.example"
		works(t, cfg)
	})
	t.Run("plaintext to TLS", func(t *testing.T) {
		cluster, cfg := run(t, etcdtest.WithTLS())
		cfg.Endpoints, cfg.TLS = []string{hostPort(cluster.Endpoints()[0])}, nil
		fails(t, cfg)
	})
	t.Run("TLS to plaintext", func(t *testing.T) {
		cluster, cfg := run(t)
		cfg.Endpoints = []string{"https://" + hostPort(cluster.Endpoints()[0])}
		if err := fails(t, cfg); !strings.Contains(err.Error(), "handshake") {
			t.Error(err)
		}
	})
	t.Run("client without certificate", func(t *testing.T) {
		_, cfg := run(t, etcdtest.WithMutualTLS())
		cfg.TLS.Certificates = nil
		fails(t, cfg)
	})
	t.Run("client of another authority", func(t *testing.T) {
		_, cfg := run(t, etcdtest.WithMutualTLS())
		cert, err := other.Issue(etcdtest.CertSpec{})
		if err != nil {
			t.Fatal(err)
		}
		cfg.TLS.Certificates = []tls.Certificate{cert.TLS}
		fails(t, cfg)
	})
}

// A client certificate that is renewed in place is in use from the next connection on.
func TestClientCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithMutualTLS())
	other, err := etcdtest.NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	bad, err := other.Issue(etcdtest.CertSpec{})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientv3.NewClientConfig(&clientv3.ConfigSpec{
		Endpoints: cluster.Endpoints(),
		Secure:    &clientv3.SecureConfig{Cacert: cluster.CA().CertFile(), Cert: bad.CertFile, Key: bad.KeyFile},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxUnaryRetries = 1000
	cli := open(t, *cfg)
	done := make(chan error, 1)
	ctx := testContext(t)
	go func() { done <- second(cli.Put(ctx, "key", "")) }()
	good := cluster.ClientCert()
	for from, to := range map[string]string{good.CertFile: bad.CertFile, good.KeyFile: bad.KeyFile} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("a call that waited for the new certificate: %v", err)
	}
}

// A dialer of the user's own is asked for every connection.
func TestOwnDialer(t *testing.T) {
	e := onOne(t)
	dialed := make(chan string, 100)
	cfg := e.config(t)
	target := hostPort(cfg.Endpoints[0])
	cfg.Endpoints = []string{"http://etcd.invalid:2379"}
	cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		dialed <- addr
		return new(net.Dialer).DialContext(ctx, "tcp", target)
	})}
	works(t, cfg)
	if addr := <-dialed; addr != "etcd.invalid:2379" {
		t.Errorf("asked for %q", addr)
	}
}
