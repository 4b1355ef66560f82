// Package yaml holds the tests of package yaml against real etcd. It has no other code.
package yaml

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/yaml"
)

func TestMain(m *testing.M) { shared.Main(m) }

// connect makes a client as a file says, and a call with it.
func connect(t *testing.T, lines ...string) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client.yaml")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := yaml.NewConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = shared.Config(t).Logger
	cli, err := clientv3.New(*cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	_, err = cli.Put(shared.Context(t), "key", "value")
	return err
}

func TestClientIsAsTheFileSays(t *testing.T) {
	plain, secure := shared.Cluster(t), etcdtest.Run(t, etcdtest.WithMutualTLS())
	address := func(c *etcdtest.Cluster) string {
		_, addr, _ := strings.Cut(c.Endpoints()[0], "://")
		return "endpoints: ['" + addr + "']"
	}
	ca := "trusted-ca-file: " + secure.CA().CertFile()
	cert := "cert-file: " + secure.ClientCert().CertFile + "\nkey-file: " + secure.ClientCert().KeyFile
	for name, tt := range map[string]struct {
		lines []string
		works bool
	}{
		"plain":                         {[]string{address(plain), "insecure-transport: true"}, true},
		"TLS to a plain server":         {[]string{address(plain)}, false},
		"mutual TLS":                    {[]string{address(secure), ca, cert}, true},
		"any server certificate":        {[]string{address(secure), "insecure-skip-tls-verify: true", cert}, true},
		"unknown authority":             {[]string{address(secure), cert}, false},
		"no client certificate":         {[]string{address(secure), ca}, false},
		"plain to a server that is not": {[]string{address(secure), ca, cert, "insecure-transport: true"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			// Calls that cannot connect end soon.
			err := connect(t, append(tt.lines, "max-unary-retries: 1", "backoff-wait-between: 300000000")...)
			if (err == nil) != tt.works {
				t.Errorf("error %v", err)
			}
		})
	}
}
