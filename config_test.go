package clientv3

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

func TestNewReturnsEveryErrorOfItsConfig(t *testing.T) {
	badLog := &zap.Config{Encoding: "bogus"}
	tests := map[string]struct {
		cfg  Config
		want []string
	}{
		"zero":             {Config{}, []string{"etcdclient: no available endpoints"}},
		"empty list":       {Config{Endpoints: []string{}}, []string{"etcdclient: no available endpoints"}},
		"malformed URL":    {Config{Endpoints: []string{"a:1", "http://%zz"}}, []string{`endpoint "http://%zz"`, "invalid URL escape"}},
		"two of them":      {Config{Endpoints: []string{"http://%zz", "", "a:1"}}, []string{`endpoint "http://%zz"`, `endpoint ""`}},
		"token and user":   {Config{Endpoints: []string{"a:1"}, Token: "t", Username: "u"}, []string{"mutually exclusive"}},
		"token and secret": {Config{Endpoints: []string{"a:1"}, Token: "t", Password: "p"}, []string{"mutually exclusive"}},
		"limits": {Config{Endpoints: []string{"a:1"}, MaxCallSendMsgSize: 100, MaxCallRecvMsgSize: 10},
			[]string{"gRPC message recv limit (10 bytes) must be greater than send limit (100 bytes)"}},
		"logger": {Config{Endpoints: []string{"a:1"}, LogConfig: badLog}, []string{`no encoder registered for name "bogus"`}},
		"everything": {
			Config{Endpoints: []string{"http://%zz"}, Token: "t", Username: "u", LogConfig: badLog,
				MaxCallSendMsgSize: 100, MaxCallRecvMsgSize: 10},
			[]string{`endpoint "http://%zz"`, "mutually exclusive", "recv limit (10 bytes)", `"bogus"`},
		},
		"everything without endpoints": {
			Config{Token: "t", Username: "u"}, []string{"no available endpoints", "mutually exclusive"},
		},
	}
	for name, tt := range tests {
		c, err := New(tt.cfg)
		if c != nil || err == nil {
			t.Fatalf("%s: client %v, error %v", name, c, err)
		}
		for _, part := range tt.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q lacks %q", name, err, part)
			}
		}
	}
}

func TestALoneErrorOfAConfigIsItself(t *testing.T) {
	if _, err := New(Config{}); err != ErrNoAvailableEndpoints { //nolint:errorlint // identity is what is promised
		t.Errorf("%#v", err)
	}
	if _, err := NewFromURLs(nil); err != ErrNoAvailableEndpoints { //nolint:errorlint // identity is what is promised
		t.Errorf("%#v", err)
	}
	_, err := New(Config{Endpoints: []string{"a:1"}, Token: "t", Username: "u"})
	if err != ErrMutuallyExclusiveCfg { //nolint:errorlint // identity is what is promised
		t.Errorf("%#v", err)
	}
	_, err = New(Config{Token: "t", Username: "u"})
	if !errors.Is(err, ErrMutuallyExclusiveCfg) || !errors.Is(err, ErrNoAvailableEndpoints) {
		t.Errorf("%v is not both", err)
	}
}

func TestConfigsThatAreFine(t *testing.T) {
	n := scripted.NewNetwork()
	for name, cfg := range map[string]Config{
		"user without password": {Username: "u"},
		"password without user": {Password: "p"},
		"token":                 {Token: "t"},
		"equal limits":          {MaxCallSendMsgSize: 10, MaxCallRecvMsgSize: 10},
		"send limit alone":      {MaxCallSendMsgSize: 1 << 30},
		"receive limit alone":   {MaxCallRecvMsgSize: 1},
		"negative values": {MaxCallSendMsgSize: -1, MaxCallRecvMsgSize: -2, BackoffWaitBetween: -1, BackoffJitterFraction: -1,
			DialKeepAliveTime: -1, DialKeepAliveTimeout: -1, DialTimeout: -1, AutoSyncInterval: -1},
		"large jitter":          {BackoffJitterFraction: 5},
		"blocking dial options": {DialTimeout: time.Second, DialOptions: []grpc.DialOption{grpc.WithBlock(), grpc.WithReturnConnectionError()}}, //nolint:staticcheck // without effect, and no reason to fail
		"bad LogConfig unused":  {Logger: zap.NewNop(), LogConfig: &zap.Config{}},
	} {
		cfg.Endpoints = []string{"http://a:1"}
		cfg.DialOptions = append(cfg.DialOptions, n.DialOption())
		start := time.Now()
		c, err := New(cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("%s: New took %v", name, took)
		}
		_ = c.Close()
	}
}

func TestNewClientConfig(t *testing.T) {
	cert, key := scripted.NewCertificate(t, "a").Files(t)
	lg := zap.NewNop()
	full := &ConfigSpec{
		Endpoints: []string{"a:1", "b:1"}, RequestTimeout: 1, DialTimeout: 2, KeepAliveTime: 3, KeepAliveTimeout: 4,
		MaxCallSendMsgSize: 5, MaxCallRecvMsgSize: 6, Auth: &AuthConfig{Username: "u", Password: "p", Token: "t"},
	}
	cfg, err := NewClientConfig(full, lg)
	want := &Config{
		Endpoints: []string{"a:1", "b:1"}, DialTimeout: 2, DialKeepAliveTime: 3, DialKeepAliveTimeout: 4,
		MaxCallSendMsgSize: 5, MaxCallRecvMsgSize: 6, Username: "u", Password: "p", Token: "t", Logger: lg,
	}
	if err != nil || !reflect.DeepEqual(cfg, want) {
		t.Errorf("%+v, error %v, want %+v", cfg, err, want)
	}
	if cfg, err := NewClientConfig(&ConfigSpec{}, nil); err != nil || !reflect.DeepEqual(cfg, &Config{}) {
		t.Errorf("of the zero spec: %+v, error %v", cfg, err)
	}
	if panicOf(func() { _, _ = NewClientConfig(nil, nil) }) == nil {
		t.Error("of nil: no panic")
	}

	secure := func(s SecureConfig) *tls.Config {
		t.Helper()
		cfg, err := NewClientConfig(&ConfigSpec{Secure: &s}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg.TLS
	}
	if got := secure(SecureConfig{}); got == nil {
		t.Error("zero SecureConfig: no TLS")
	}
	if got := secure(SecureConfig{InsecureTransport: true}); got != nil {
		t.Error("InsecureTransport alone: TLS")
	}
	for name, s := range map[string]SecureConfig{
		"InsecureSkipVerify": {InsecureTransport: true, InsecureSkipVerify: true},
		"ServerName":         {InsecureTransport: true, ServerName: "n"},
		"Cacert":             {InsecureTransport: true, Cacert: cert},
	} {
		if secure(s) == nil {
			t.Errorf("InsecureTransport beside %s: no TLS", name)
		}
	}
	if got := secure(SecureConfig{InsecureSkipVerify: true, ServerName: "n"}); !got.InsecureSkipVerify || got.ServerName != "n" || got.RootCAs != nil {
		t.Errorf("%+v", got)
	}
	if got := secure(SecureConfig{Cacert: cert}); got.RootCAs == nil || got.GetClientCertificate != nil {
		t.Errorf("with authorities: %+v", got)
	}
	got := secure(SecureConfig{Cert: cert, Key: key})
	if loaded, err := got.GetClientCertificate(nil); err != nil || len(loaded.Certificate) != 1 || got.MinVersion != tls.VersionTLS12 {
		t.Errorf("client certificate %v, error %v, minimal version %x", loaded, err, got.MinVersion)
	}
	// It is read again for each handshake.
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if _, err := got.GetClientCertificate(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with the file gone: %v", err)
	}
}

func TestNewClientConfigNamesFilesThatCannotBeUsed(t *testing.T) {
	cert, key := scripted.NewCertificate(t, "a").Files(t)
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		secure SecureConfig
		want   []string
		is     error
	}{
		"certificate without key": {SecureConfig{Cert: cert}, []string{"KeyFile and CertFile must both be present", cert}, nil},
		"key without certificate": {SecureConfig{Key: key}, []string{"KeyFile and CertFile must both be present", key}, nil},
		"no certificate file":     {SecureConfig{Cert: "/nope/c", Key: key}, []string{"/nope/c"}, fs.ErrNotExist},
		"no key file":             {SecureConfig{Cert: cert, Key: "/nope/k"}, []string{"/nope/k"}, fs.ErrNotExist},
		"no authority file":       {SecureConfig{Cacert: "/nope/ca"}, []string{"/nope/ca"}, fs.ErrNotExist},
		"junk certificate":        {SecureConfig{Cert: junk, Key: key}, []string{"failed to find any PEM data"}, nil},
		"junk authority":          {SecureConfig{Cacert: junk}, []string{junk}, nil},
	} {
		cfg, err := NewClientConfig(&ConfigSpec{Secure: &tt.secure}, nil)
		if cfg != nil || err == nil || (tt.is != nil && !errors.Is(err, tt.is)) {
			t.Errorf("%s: %v, error %v", name, cfg, err)
			continue
		}
		for _, part := range tt.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q lacks %q", name, err, part)
			}
		}
	}
}

func TestConfigSpecClone(t *testing.T) {
	if got := (*ConfigSpec)(nil).Clone(); got != nil {
		t.Errorf("of nil: %v", got)
	}
	if got := (&ConfigSpec{}).Clone(); !reflect.DeepEqual(got, &ConfigSpec{}) {
		t.Errorf("of zero: %v", got)
	}
	full := func() *ConfigSpec {
		return &ConfigSpec{
			Endpoints: []string{"a"}, RequestTimeout: 1, DialTimeout: 2, KeepAliveTime: 3, KeepAliveTimeout: 4,
			MaxCallSendMsgSize: 5, MaxCallRecvMsgSize: 6, Secure: &SecureConfig{Cert: "c"}, Auth: &AuthConfig{Token: "t"},
		}
	}
	spec := full()
	clone := spec.Clone()
	if !reflect.DeepEqual(clone, spec) {
		t.Errorf("%+v, want %+v", clone, spec)
	}
	clone.Endpoints[0], clone.Secure.Cert, clone.Auth.Token = "x", "x", "x"
	if !reflect.DeepEqual(spec, full()) {
		t.Errorf("the original has changed to %+v", spec)
	}
}

func TestAuthConfigEmpty(t *testing.T) {
	for _, tt := range []struct {
		cfg  AuthConfig
		want bool
	}{
		{AuthConfig{}, true},
		{AuthConfig{Username: "u"}, false},
		{AuthConfig{Password: "p"}, false},
		{AuthConfig{Token: "t"}, false},
	} {
		if got := tt.cfg.Empty(); got != tt.want {
			t.Errorf("%+v: %t", tt.cfg, got)
		}
	}
}

func TestDefaultsOfAConfig(t *testing.T) {
	c := newClient(t.Context(), Config{}, nil)
	defer c.cancel()
	if got := c.maxAttempts(); got != 100 {
		t.Errorf("%d attempts", got)
	}
	if c.backoff.Base != 25*time.Millisecond || c.backoff.Max != time.Second || c.backoff.Jitter != 0 {
		t.Errorf("backoff %+v", c.backoff)
	}
	edges := newClient(t.Context(), Config{BackoffWaitBetween: -1, BackoffJitterFraction: 7}, nil)
	defer edges.cancel()
	if edges.backoff.Base != 25*time.Millisecond || edges.backoff.Jitter != 1 {
		t.Errorf("backoff %+v", edges.backoff)
	}
}

func TestClientLogLevel(t *testing.T) {
	var complaints bytes.Buffer
	defer func(flags int) {
		log.SetOutput(os.Stderr)
		log.SetFlags(flags)
	}(log.Flags())
	log.SetOutput(&complaints)
	for value, want := range map[string]zapcore.Level{
		"": zapcore.InfoLevel, "true": zapcore.InfoLevel, "debug": zapcore.DebugLevel, "DEBUG": zapcore.DebugLevel,
		"info": zapcore.InfoLevel, "warn": zapcore.WarnLevel, "Warning": zapcore.WarnLevel, "error": zapcore.ErrorLevel,
		"dpanic": zapcore.DPanicLevel, "panic": zapcore.PanicLevel, "fatal": zapcore.FatalLevel,
	} {
		t.Setenv("ETCD_CLIENT_DEBUG", value)
		if got := ClientLogLevel(); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
	if complaints.Len() != 0 {
		t.Errorf("complaints about values that are fine: %s", complaints.String())
	}
	for _, value := range []string{"1", "false", "garbage"} {
		complaints.Reset()
		t.Setenv("ETCD_CLIENT_DEBUG", value)
		if got := ClientLogLevel(); got != zapcore.InfoLevel || !strings.Contains(complaints.String(), "ETCD_CLIENT_DEBUG") {
			t.Errorf("%q: %v, complaint %q", value, got, complaints.String())
		}
	}
}

func TestLoggerOfAConfig(t *testing.T) {
	own := zap.NewExample()
	if lg, err := newLogger(&Config{Logger: own, LogConfig: &zap.Config{}}); err != nil || lg != own {
		t.Errorf("Logger: %v, %v", lg, err)
	}
	quiet := zap.NewProductionConfig()
	quiet.Level = zap.NewAtomicLevelAt(zapcore.ErrorLevel)
	if lg, err := newLogger(&Config{LogConfig: &quiet}); err != nil || lg.Level() != zapcore.ErrorLevel {
		t.Errorf("LogConfig: %v, %v", lg, err)
	}
	t.Setenv("ETCD_CLIENT_DEBUG", "debug")
	if lg, err := newLogger(&Config{}); err != nil || lg.Level() != zapcore.DebugLevel || lg.Name() != "etcd-client" {
		t.Errorf("by environment: %v, %v", lg, err)
	}
}
