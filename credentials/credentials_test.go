package credentials

import (
	"crypto/tls"
	"sync"
	"testing"

	"google.golang.org/grpc/test/bufconn"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

func TestBundleCarriesItsPresentToken(t *testing.T) {
	bundle := NewPerRPCCredentialBundle()
	creds := bundle.PerRPCCredentials()
	if creds.RequireTransportSecurity() {
		t.Error("tokens need a secure transport")
	}
	check := func(want string) {
		t.Helper()
		md, err := creds.GetRequestMetadata(t.Context(), "uri")
		if err != nil || md["token"] != want || (want == "") != (len(md) == 0) {
			t.Errorf("metadata %v, error %v, want the token %q", md, err, want)
		}
	}
	check("")
	for _, token := range []string{"a", "b", "", "c"} {
		bundle.UpdateAuthToken(token)
		check(token)
	}
}

func TestBundleMayBeUpdatedDuringCalls(t *testing.T) {
	bundle := NewPerRPCCredentialBundle()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				bundle.UpdateAuthToken("a")
				if md, err := bundle.PerRPCCredentials().GetRequestMetadata(t.Context()); err != nil || md["token"] != "a" {
					t.Errorf("%v, %v", md, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestTransportCredential(t *testing.T) {
	if got := NewTransportCredential(nil).Info().SecurityProtocol; got != "tls" {
		t.Errorf("protocol %q", got)
	}
	cert := scripted.NewCertificate(t, "member")
	cfg := &tls.Config{RootCAs: cert.Pool, MinVersion: tls.VersionTLS12}
	creds := NewTransportCredential(cfg)
	cfg.RootCAs = nil // it has a copy
	for name, want := range map[string]bool{"member:2379": true, "stranger:2379": false} {
		lis := bufconn.Listen(64 << 10)
		done := make(chan struct{})
		go func() {
			defer close(done)
			server, err := lis.Accept()
			if err != nil {
				return
			}
			defer server.Close()
			conn := tls.Server(server, &tls.Config{
				Certificates: []tls.Certificate{cert.TLS}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
			})
			_ = conn.HandshakeContext(t.Context()) // the client's side is what is looked at
		}()
		client, err := lis.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = creds.ClientHandshake(t.Context(), name, client)
		if (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
		_ = client.Close()
		<-done
	}
}
