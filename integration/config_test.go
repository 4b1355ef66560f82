package integration

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

func TestNewRefusesBadConfigs(t *testing.T) {
	e := onOne(t)
	live := e.cluster.Endpoints()[0]
	for _, tt := range []struct {
		name string
		cfg  clientv3.Config
		want []string
	}{
		{"no endpoints", clientv3.Config{}, []string{clientv3.ErrNoAvailableEndpoints.Error()}},
		{"empty endpoint", clientv3.Config{Endpoints: []string{""}}, []string{`""`}},
		{"no host", clientv3.Config{Endpoints: []string{"http://"}}, []string{`"http://"`, "host"}},
		{"malformed URL", clientv3.Config{Endpoints: []string{live, "http://a b:1"}}, []string{`"http://a b:1"`}},
		{"bad escape", clientv3.Config{Endpoints: []string{"http://%zz"}}, []string{`"http://%zz"`, "invalid URL escape"}},
		{"no URL", clientv3.Config{Endpoints: []string{"://"}}, []string{`"://"`, "not a URL"}},
		{
			"user and token", clientv3.Config{Endpoints: []string{live}, Username: "u", Password: "p", Token: "t"},
			[]string{clientv3.ErrMutuallyExclusiveCfg.Error()},
		},
		{
			"limits", clientv3.Config{Endpoints: []string{live}, MaxCallSendMsgSize: 100, MaxCallRecvMsgSize: 10},
			[]string{"10 bytes", "100 bytes"},
		},
		{
			"all at once",
			clientv3.Config{Endpoints: []string{"://", "http://"}, Username: "u", Token: "t"},
			[]string{`"://"`, `"http://"`, clientv3.ErrMutuallyExclusiveCfg.Error()},
		},
	} {
		cli, err := clientv3.New(tt.cfg)
		if err == nil || cli != nil {
			t.Errorf("%s: client %v, error %v", tt.name, cli, err)
			continue
		}
		for _, s := range tt.want {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q is not in %q", tt.name, s, err)
			}
		}
	}
	if _, err := clientv3.New(clientv3.Config{Endpoints: []string{}}); err != clientv3.ErrNoAvailableEndpoints {
		t.Errorf("no endpoints: %v", err)
	}
	_, err := clientv3.New(clientv3.Config{Endpoints: []string{live}, Username: "u", Token: "t"})
	if err != clientv3.ErrMutuallyExclusiveCfg {
		t.Errorf("user and token: %v", err)
	}
}

// A Config from files connects as one made by hand, and a file that cannot be used is named.
func TestClientConfigFromFiles(t *testing.T) {
	e := setups[3].env(t)
	if e.cluster.ClientCert() == nil {
		t.Fatal("not the cluster with mutual TLS")
	}
	ca, cert, key := e.cluster.CA().CertFile(), e.cluster.ClientCert().CertFile, e.cluster.ClientCert().KeyFile
	spec := clientv3.ConfigSpec{
		Endpoints:   e.cluster.Endpoints(),
		DialTimeout: 5 * time.Second,
		Secure:      &clientv3.SecureConfig{Cacert: ca, Cert: cert, Key: key},
	}
	cfg, err := clientv3.NewClientConfig(&spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, *cfg).Put(e.ctx, e.prefix, "v"); err != nil {
		t.Error(err)
	}

	nowhere := filepath.Join(t.TempDir(), "missing.pem")
	for name, secure := range map[string]clientv3.SecureConfig{
		"CA":          {Cacert: nowhere},
		"certificate": {Cacert: ca, Cert: nowhere, Key: key},
		"key":         {Cacert: ca, Cert: cert, Key: nowhere},
	} {
		spec.Secure = &secure
		_, err := clientv3.NewClientConfig(&spec, nil)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), nowhere) {
			t.Errorf("missing %s: %v", name, err)
		}
	}
	spec.Secure = &clientv3.SecureConfig{Cert: cert}
	if _, err := clientv3.NewClientConfig(&spec, nil); err == nil || !strings.Contains(err.Error(), cert) {
		t.Errorf("a certificate without key: %v", err)
	}
}

func TestClientConfigAuth(t *testing.T) {
	e := setups[6].env(t)
	spec := clientv3.ConfigSpec{
		Endpoints: e.cluster.Endpoints(),
		Auth:      &clientv3.AuthConfig{Username: etcdtest.Root, Password: etcdtest.Root},
	}
	cfg, err := clientv3.NewClientConfig(&spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, *cfg).UserList(e.ctx); err != nil {
		t.Error(err)
	}
}

// A request over the limit does not leave the client; a response over it comes after the request was carried out.
func TestMessageLimits(t *testing.T) {
	e := onOne(t)
	const limit = 10_000
	value := strings.Repeat("v", 2*limit)

	count := newAttempts()
	cfg := e.config(t)
	cfg.MaxCallSendMsgSize = limit
	count.watch(&cfg)
	err := second(open(t, cfg).Put(e.ctx, e.prefix, value))
	if status.Code(err) != codes.ResourceExhausted || clientv3.MayHaveApplied(err) ||
		!strings.Contains(err.Error(), "10000") {
		t.Errorf("request over the limit: %v", err)
	}
	if n := count.of(pb.KV_Put_FullMethodName); n != 0 || len(e.get(t, e.prefix).Kvs) != 0 {
		t.Errorf("it was sent %d times", n)
	}

	e.put(t, e.prefix, value)
	cfg = e.config(t)
	cfg.MaxCallRecvMsgSize = limit
	count = newAttempts()
	count.watch(&cfg)
	cli := open(t, cfg)
	err = second(cli.Get(e.ctx, e.prefix))
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "10000") {
		t.Errorf("response over the limit: %v", err)
	}
	err = second(cli.Put(e.ctx, e.prefix, "new", clientv3.WithPrevKV()))
	if status.Code(err) != codes.ResourceExhausted || !clientv3.MayHaveApplied(err) {
		t.Errorf("response to a write over the limit: %v", err)
	}
	if got := e.value(t, e.prefix); got != "new" {
		t.Errorf("the write whose response was too large left %d bytes", len(got))
	}
	if n := count.all(); n != 2 {
		t.Errorf("%d requests for two calls", n)
	}
}
