package balance

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

// securedBy returns, for each endpoint that a call reaches, whether its connection is secured.
func securedBy(t *testing.T, server *scripted.Server) bool {
	t.Helper()
	calls := server.Calls(put)
	if len(calls) == 0 {
		t.Fatalf("no call has reached %s", server.Addr())
	}
	p, _ := peer.FromContext(calls[0].Context)
	_, secured := p.AuthInfo.(credentials.TLSInfo)
	return secured
}

func TestEachEndpointIsSecuredAsItWants(t *testing.T) {
	cert := scripted.NewCertificate(t, "secure", "open", "127.0.0.1")
	for _, configured := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			network := scripted.NewNetwork()
			withTLS := grpc.Creds(credentials.NewServerTLSFromCert(&cert.TLS))
			plain := network.Serve(t, "plain:1")
			secure := network.Serve(t, "secure:1", withTLS)
			var openOpts []grpc.ServerOption
			if configured {
				openOpts = append(openOpts, withTLS)
			}
			open := network.Serve(t, "open:1", openOpts...)
			f := &fixture{t: t, network: network, Set: NewSet(parse(t, "http://plain:1", "https://secure:1", "open:1"))}
			f.dial(credentials.NewTLS(&tls.Config{RootCAs: cert.Pool}), configured)
			time.Sleep(time.Second)
			synctest.Wait()
			for range 60 {
				if _, err := f.put(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if securedBy(t, plain) {
				t.Error("the http endpoint is secured")
			}
			if !securedBy(t, secure) {
				t.Error("the https endpoint is not secured")
			}
			if got := securedBy(t, open); got != configured {
				t.Errorf("the open endpoint is secured: %t, configured: %t", got, configured)
			}
		})
	}
}

func TestServersAreVerifiedByTheNameOfTheirEndpoint(t *testing.T) {
	cert := scripted.NewCertificate(t, "right")
	synctest.Test(t, func(t *testing.T) {
		network := scripted.NewNetwork()
		withTLS := grpc.Creds(credentials.NewServerTLSFromCert(&cert.TLS))
		network.Serve(t, "wrong:1", withTLS)
		right := network.Serve(t, "right:1", withTLS)
		f := &fixture{t: t, network: network, Set: NewSet(parse(t, "https://wrong:1", "https://right:1"))}
		f.dial(credentials.NewTLS(&tls.Config{RootCAs: cert.Pool}), true)
		time.Sleep(time.Second)
		synctest.Wait()
		for range 10 {
			if _, err := f.put(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !securedBy(t, right) {
			t.Error("not secured")
		}
		var hostErr x509.HostnameError
		if st := f.Statuses()[0]; !errors.As(st.Err, &hostErr) && st.Err == nil {
			t.Errorf("the wrong name: %+v, want an error of its certificate", st)
		}
	})
}

func TestAConfiguredServerNameIsTheOneToVerify(t *testing.T) {
	cert := scripted.NewCertificate(t, "right")
	synctest.Test(t, func(t *testing.T) {
		network := scripted.NewNetwork()
		server := network.Serve(t, "another:1", grpc.Creds(credentials.NewServerTLSFromCert(&cert.TLS)))
		f := &fixture{t: t, network: network, Set: NewSet(parse(t, "https://another:1"))}
		f.dial(credentials.NewTLS(&tls.Config{RootCAs: cert.Pool, ServerName: "right"}), true)
		if _, err := f.put(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Calls are addressed to the endpoint all the same.
		if got := server.Calls(put)[0].Metadata().Get(":authority"); len(got) != 1 || got[0] != "another:1" {
			t.Errorf("authority %q", got)
		}
	})
}

func TestCredentialsTellTheStrongestProtection(t *testing.T) {
	for _, tt := range []struct {
		endpoints  []string
		configured bool
		want       string
	}{
		{[]string{"http://a:1"}, false, "insecure"},
		{[]string{"http://a:1"}, true, "insecure"},
		{[]string{"a:1", "unix:s"}, false, "insecure"},
		{[]string{"a:1"}, true, "tls"},
		{[]string{"http://a:1", "https://b:1"}, false, "tls"},
		{[]string{"unixs://s"}, false, "tls"},
		{nil, false, "insecure"},
	} {
		c := NewSet(parse(t, tt.endpoints...)).Credentials(credentials.NewTLS(nil), tt.configured)
		for _, c := range []credentials.TransportCredentials{c, c.Clone()} {
			if got := c.Info().SecurityProtocol; got != tt.want {
				t.Errorf("%v, configured %t: %q, want %q", tt.endpoints, tt.configured, got, tt.want)
			}
		}
	}
}
