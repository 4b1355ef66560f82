package etcdtest

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestCertificatesAreRefused(t *testing.T) {
	t.Parallel()
	mutual := Run(t, WithMutualTLS())
	expired := Run(t, WithServerCert(CertSpec{NotAfter: time.Now().Add(-time.Minute)}))
	elsewhere := Run(t, WithServerCert(CertSpec{Hosts: []string{"etcd.example", "192.0.2.1"}}), WithChildProcesses())
	foreign, err := NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	with := func(ca *CA, spec CertSpec) *tls.Config {
		cert, err := ca.Issue(spec)
		if err != nil {
			t.Fatal(err)
		}
		cfg := mutual.ClientTLS()
		cfg.Certificates = []tls.Certificate{cert.TLS}
		return cfg
	}
	without := mutual.ClientTLS()
	without.Certificates = nil

	for _, tt := range []struct {
		name    string
		cluster *Cluster
		cfg     *tls.Config
		want    codes.Code
	}{
		{"the right one", mutual, mutual.ClientTLS(), codes.OK},
		{"another right one", mutual, with(mutual.CA(), CertSpec{CommonName: "other"}), codes.OK},
		{"none", mutual, without, codes.Unavailable},
		{"a foreign one", mutual, with(foreign, CertSpec{}), codes.Unavailable},
		{"an expired one", mutual, with(mutual.CA(), CertSpec{NotAfter: time.Now().Add(-time.Minute)}), codes.Unavailable},
		{
			"one of the future", mutual,
			with(mutual.CA(), CertSpec{NotBefore: time.Now().Add(time.Hour)}), codes.Unavailable,
		},
		{"a server's of another authority", mutual, &tls.Config{RootCAs: foreign.Pool()}, codes.Unavailable},
		{"a server's that has expired", expired, expired.ClientTLS(), codes.Unavailable},
		{"a server's for another host", elsewhere, elsewhere.ClientTLS(), codes.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn := dialEndpoint(t, tt.cluster.Endpoints()[0], tt.cfg)
			err := put(testContext(t), conn, "a", "x")
			if status.Code(err) != tt.want {
				t.Errorf("put: %v, want %v", err, tt.want)
			}
		})
	}
}

func TestCertificateFiles(t *testing.T) {
	t.Parallel()
	c := Run(t, WithMutualTLS())
	pair, err := tls.LoadX509KeyPair(c.ClientCert().CertFile, c.ClientCert().KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Subject.CommonName != "" {
		t.Errorf("the client's certificate is for user %q", leaf.Subject.CommonName)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.CA().Pool(), DNSName: "localhost", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		t.Error(err)
	}
	again, err := NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if again.CertFile() == c.CA().CertFile() || again.Pool().Equal(c.CA().Pool()) {
		t.Error("two authorities are the same")
	}

	plain := Run(t)
	if plain.CA() != nil || plain.ClientCert() != nil || plain.ClientTLS() != nil {
		t.Error("a cluster without TLS has certificates")
	}
	if oneSided := Run(t, WithTLS()); oneSided.ClientCert() != nil || len(oneSided.ClientTLS().Certificates) != 0 {
		t.Error("a cluster that asks clients for no certificate has one for them")
	}
}
