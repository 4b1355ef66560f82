// Package yaml reads the configuration of a client from a YAML file:
//
//	endpoints: ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]
//	dial-timeout: 5000000000
//	trusted-ca-file: /etc/etcd/ca.crt
//	cert-file: /etc/etcd/client.crt
//	key-file: /etc/etcd/client.key
//
// The keys are those that the fields of clientv3.Config have as JSON, or their Go names where they have none, such as
// MaxCallSendMsgSize; upper and lower case are the same. Durations are numbers of nanoseconds. To these come
//
//   - cert-file and key-file: the files of the client's certificate and its key, for servers that ask for one;
//   - trusted-ca-file: the file of the certificate authorities that sign servers' certificates, instead of the system's;
//   - insecure-skip-tls-verify: accept any certificate of a server;
//   - insecure-transport: no TLS, whatever else is set.
//
// Without insecure-transport, endpoints that have no scheme are reached with TLS. Other keys are ignored.
package yaml

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"

	"github.com/seed-d18e112a/clientv3"
)

type config struct {
	clientv3.Config
	InsecureTransport     bool   `json:"insecure-transport"`
	InsecureSkipTLSVerify bool   `json:"insecure-skip-tls-verify"`
	CertFile              string `json:"cert-file"`
	KeyFile               string `json:"key-file"`
	TrustedCAFile         string `json:"trusted-ca-file"`
}

// NewConfig reads a configuration from the file at a path. Files that it names are read too, once. If a file cannot be
// read the error is that of the file system, so os.IsNotExist holds.
func NewConfig(fpath string) (*clientv3.Config, error) {
	data, err := os.ReadFile(fpath)
	if err != nil {
		return nil, err
	}
	var cfg config
	if err := yaml.Unmarshal(data, &cfg); err != nil {
		return nil, err
	}
	if cfg.Config.TLS, err = cfg.tls(); err != nil {
		return nil, err
	}
	return &cfg.Config, nil
}

// tls returns the TLS configuration, or nil for none.
func (cfg *config) tls() (*tls.Config, error) {
	if cfg.InsecureTransport {
		return nil, nil
	}
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: cfg.InsecureSkipTLSVerify, //nolint:gosec // asked for
	}
	if cfg.CertFile != "" && cfg.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{cert}
	}
	if cfg.TrustedCAFile != "" {
		pem, err := os.ReadFile(cfg.TrustedCAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("yaml: no PEM certificate in %s", cfg.TrustedCAFile)
		}
	}
	return c, nil
}
