package yaml

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

// read returns the configuration of a file with the content.
func read(t *testing.T, content string) (*clientv3.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return NewConfig(path)
}

func TestEveryFieldIsRead(t *testing.T) {
	cfg, err := read(t, `
# a comment
endpoints: ["http://a:1", b]
auto-sync-interval: 1
dial-timeout: 5000000000
dial-keep-alive-time: 3
dial-keep-alive-timeout: 4
MaxCallSendMsgSize: 5
maxcallrecvmsgsize: 6
username: u
password: p
token: t
reject-old-cluster: true
permit-without-stream: true
max-unary-retries: 7
backoff-wait-between: 8
backoff-jitter-fraction: 0.5
LogConfig: {level: debug, encoding: console}
insecure-transport: true
something else: ignored
`)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.LogConfig == nil || cfg.LogConfig.Level.Level() != zapcore.DebugLevel || cfg.LogConfig.Encoding != "console" {
		t.Errorf("log configuration %+v", cfg.LogConfig)
	}
	cfg.LogConfig = nil
	want := clientv3.Config{
		Endpoints: []string{"http://a:1", "b"}, AutoSyncInterval: 1, DialTimeout: 5 * time.Second, DialKeepAliveTime: 3,
		DialKeepAliveTimeout: 4, MaxCallSendMsgSize: 5, MaxCallRecvMsgSize: 6, Username: "u", Password: "p", Token: "t",
		RejectOldCluster: true, PermitWithoutStream: true, MaxUnaryRetries: 7, BackoffWaitBetween: 8,
		BackoffJitterFraction: 0.5,
	}
	if !reflect.DeepEqual(*cfg, want) {
		t.Errorf("got  %+v\nwant %+v", *cfg, want)
	}
}

func TestTransportIsSecureUnlessToldOtherwise(t *testing.T) {
	certFile, keyFile := scripted.NewCertificate(t, "localhost").Files(t)
	pair := "cert-file: " + certFile + "\nkey-file: " + keyFile + "\n"
	for _, tt := range []struct {
		content             string
		tls                 bool
		skip, roots, client bool
	}{
		{"", true, false, false, false},
		{"endpoints: [a]", true, false, false, false},
		{"insecure-skip-tls-verify: true", true, true, false, false},
		{"trusted-ca-file: " + certFile, true, false, true, false},
		{pair, true, false, false, true},
		{pair + "trusted-ca-file: " + certFile + "\ninsecure-skip-tls-verify: true", true, true, true, true},
		{"cert-file: " + certFile, true, false, false, false},
		{"insecure-transport: true", false, false, false, false},
		{"insecure-transport: true\ninsecure-skip-tls-verify: true\n" + pair, false, false, false, false},
		{"insecure-transport: true\ntrusted-ca-file: /none\nTLS: {ServerName: x}", false, false, false, false},
	} {
		cfg, err := read(t, tt.content)
		if err != nil {
			t.Errorf("%q: %v", tt.content, err)
			continue
		}
		c := cfg.TLS
		if (c != nil) != tt.tls {
			t.Errorf("%q: TLS configuration %v", tt.content, c)
		}
		if c != nil && (c.InsecureSkipVerify != tt.skip || (c.RootCAs != nil) != tt.roots ||
			(len(c.Certificates) == 1) != tt.client || c.MinVersion != tls.VersionTLS12) {
			t.Errorf("%q: TLS configuration %+v", tt.content, c)
		}
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewConfig(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("missing file: %v", err)
	}
	for content, want := range map[string]string{
		"trusted-ca-file: /none":                     "/none",
		"cert-file: /none\nkey-file: " + junk:        "/none",
		"trusted-ca-file: " + junk:                   "no PEM certificate",
		"cert-file: " + junk + "\nkey-file: " + junk: "PEM",
		"endpoints: a":                               "endpoints",
		"dial-timeout: 5s":                           "dial-timeout",
		"max-unary-retries: -1":                      "max-unary-retries",
		"- a":                                        "array",
		"a: b: c":                                    "YAML",
		"insecure-transport: 1":                      "insecure-transport",
		"password: 12345 # numbers are to be put in quotes": "password",
	} {
		if cfg, err := read(t, content); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", content, cfg, err)
		}
	}
}

func FuzzNewConfig(f *testing.F) {
	f.Add("endpoints: [a]\ndial-timeout: 1")
	f.Add("{\"LogConfig\": {\"level\": \"info\"}}")
	f.Add("&a [*a]")
	f.Fuzz(func(t *testing.T, content string) {
		if strings.Contains(content, "-file") {
			return // no reading of files
		}
		cfg, err := read(t, content)
		if (cfg == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", content, cfg, err)
		}
	})
}
