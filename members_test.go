package clientv3

import (
	"context"
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

// members is a cluster of scripted servers on a network in memory, at m0:2379 and so on. Most tests use it in a
// synctest bubble, where waits cost nothing and take exactly as long as they should.
type members struct {
	*scripted.Network
	servers []*scripted.Server
}

func newMembers(t testing.TB, n int) *members {
	t.Helper()
	m := &members{Network: scripted.NewNetwork()}
	for i := range n {
		m.servers = append(m.servers, m.Serve(t, fmt.Sprintf("m%d:2379", i)))
	}
	return m
}

// config returns a configuration for a client of all members.
func (m *members) config() Config {
	cfg := Config{DialOptions: []grpc.DialOption{m.DialOption()}, Logger: zap.NewNop()}
	for _, s := range m.servers {
		cfg.Endpoints = append(cfg.Endpoints, s.Endpoint())
	}
	return cfg
}

// client returns a client of all members, with the changes to its configuration, which connects at once.
func (m *members) client(t testing.TB, changes ...func(*Config)) *Client {
	t.Helper()
	cfg := m.config()
	for _, change := range changes {
		change(&cfg)
	}
	c := newTestClient(t, cfg)
	c.ActiveConnection().Connect()
	return c
}

// newTestClient returns a client that is closed with the test.
func newTestClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// handle sets what answers a method on all members. They take turns: a handler that counts counts them all.
func (m *members) handle(method string, handler scripted.Unary) {
	for _, s := range m.servers {
		s.Handle(method, handler)
	}
}

// stream sets what serves a streaming method on all members.
func (m *members) stream(method string, handler scripted.Stream) {
	for _, s := range m.servers {
		s.HandleStream(method, handler)
	}
}

// counts returns how many calls of a method have arrived at each member.
func (m *members) counts(method string) []int {
	counts := make([]int, len(m.servers))
	for i, s := range m.servers {
		counts[i] = s.Count(method)
	}
	return counts
}

// count returns how many calls of a method have arrived.
func (m *members) count(method string) int {
	total := 0
	for _, n := range m.counts(method) {
		total += n
	}
	return total
}

// last returns the call of a method that has arrived last, of one member only.
func (m *members) last(t testing.TB, method string) *scripted.Call {
	t.Helper()
	var calls []*scripted.Call
	for _, s := range m.servers {
		calls = append(calls, s.Calls(method)...)
	}
	if len(calls) == 0 {
		t.Fatalf("no call of %s has arrived", method)
	}
	return calls[len(calls)-1]
}

// forget sets all counts back.
func (m *members) forget() {
	for _, s := range m.servers {
		s.Forget()
	}
}

// within returns a context that ends after d.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// clientTLS returns a configuration that trusts the certificate.
func clientTLS(cert *scripted.Certificate) *tls.Config {
	return &tls.Config{RootCAs: cert.Pool, MinVersion: tls.VersionTLS12}
}
