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
			f.dial(NewCredentials(credentials.NewTLS(&tls.Config{RootCAs: cert.Pool}), configured))
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
		f.dial(NewCredentials(credentials.NewTLS(&tls.Config{RootCAs: cert.Pool}), true))
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

func TestCredentialsClone(t *testing.T) {
	c := NewCredentials(credentials.NewTLS(nil), true)
	clone, ok := c.Clone().(*Credentials)
	if !ok || clone.unsettled == clone.plaintext {
		t.Error("the clone has forgotten that TLS is configured")
	}
	clone, ok = NewCredentials(credentials.NewTLS(nil), false).Clone().(*Credentials)
	if !ok || clone.unsettled != clone.plaintext {
		t.Error("the clone believes that TLS is configured")
	}
}
