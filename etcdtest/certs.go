package etcdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// A CA is a certificate authority for tests. It is safe for concurrent use.
type CA struct {
	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial atomic.Int64
}

// NewCA makes an authority that keeps its certificate, and those it issues, as PEM files in dir, which must exist.
// Two authorities may not share a directory. An authority besides that of a cluster is of use to make certificates
// which the cluster does not trust.
func NewCA(dir string) (*CA, error) {
	ca := &CA{dir: dir}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("etcdtest: making a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(ca.serial.Add(1)),
		Subject:               pkix.Name{CommonName: "etcdtest authority"},
		NotBefore:             time.Now().Add(-certAge),
		NotAfter:              time.Now().Add(certLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("etcdtest: making an authority: %w", err)
	}
	ca.key = key
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("etcdtest: making an authority: %w", err)
	}
	if err := writePEM(ca.CertFile(), "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return ca, nil
}

// Certificates are valid from an hour ago, in case clocks differ, and for longer than any test runs.
const (
	certAge  = time.Hour
	certLife = 7 * 24 * time.Hour
)

// CertFile is the path of the authority's own certificate, in PEM.
func (ca *CA) CertFile() string { return filepath.Join(ca.dir, "ca.crt") }

// Pool returns a new pool with the authority's certificate in it.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// A CertSpec says what is in a certificate. The zero value is good for any member and any client.
type CertSpec struct {
	// CommonName is the subject's name. An etcd server with authentication and mutual TLS takes the common name of a
	// client's certificate for its user name. The default is none.
	CommonName string
	// Hosts are the host names and IP addresses that the certificate is for. The default is localhost, 127.0.0.1 and
	// ::1.
	Hosts []string
	// NotBefore and NotAfter bound the time in which the certificate is valid. The defaults are an hour ago and a
	// week ahead.
	NotBefore, NotAfter time.Time
}

// A Cert is a certificate with its key.
type Cert struct {
	// CertFile and KeyFile are the paths of the certificate and its key, in PEM.
	CertFile, KeyFile string
	// TLS is the same, ready for a tls.Config.
	TLS tls.Certificate
}

// Issue makes a certificate, good for servers and for clients, and writes its files.
func (ca *CA) Issue(spec CertSpec) (*Cert, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("etcdtest: making a key: %w", err)
	}
	serial := ca.serial.Add(1)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: spec.CommonName},
		NotBefore:    spec.NotBefore,
		NotAfter:     spec.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(certLife)
	}
	if template.NotBefore.IsZero() {
		// Before NotAfter also when that is in the past.
		template.NotBefore = time.Now().Add(-certAge)
		if !template.NotBefore.Before(template.NotAfter) {
			template.NotBefore = template.NotAfter.Add(-certAge)
		}
	}
	hosts := spec.Hosts
	if hosts == nil {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}

	certDER, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("etcdtest: issuing a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("etcdtest: issuing a certificate: %w", err)
	}
	cert := &Cert{
		CertFile: filepath.Join(ca.dir, fmt.Sprintf("%d.crt", serial)),
		KeyFile:  filepath.Join(ca.dir, fmt.Sprintf("%d.key", serial)),
		TLS:      tls.Certificate{Certificate: [][]byte{certDER}, PrivateKey: key},
	}
	if err := writePEM(cert.CertFile, "CERTIFICATE", certDER); err != nil {
		return nil, err
	}
	if err := writePEM(cert.KeyFile, "PRIVATE KEY", keyDER); err != nil {
		return nil, err
	}
	return cert, nil
}

func writePEM(path, kind string, der []byte) error {
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("etcdtest: writing a certificate: %w", err)
	}
	return nil
}
