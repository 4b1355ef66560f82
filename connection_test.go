package clientv3

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestNewCostsNothingThatIsNotUsed(t *testing.T) {
	before := runtime.NumGoroutine()
	clients := make([]*Client, 10)
	for i := range clients {
		clients[i] = newTestClient(t, Config{Endpoints: []string{"127.0.0.1:1"}, Logger: zap.NewNop()})
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines of %d unused clients", n-before, len(clients))
	}
	c := clients[0]
	c.SetEndpoints("127.0.0.1:2")
	if states := c.EndpointStates(); len(states) != 1 || states[0].Health != EndpointConnecting {
		t.Errorf("endpoints %v", states)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closing an unused client: %v", err)
	}
	if err := c.Close(); !errors.Is(err, context.Canceled) {
		t.Errorf("closing it again: %v", err)
	}
	if _, err := c.Get(t.Context(), "k"); status.Code(err) != codes.Canceled && !errors.Is(err, context.Canceled) {
		t.Errorf("a call on it: %v", err)
	}
	if conn := c.ActiveConnection(); conn == nil || !errors.Is(conn.Close(), grpc.ErrClientConnClosing) { //nolint:staticcheck // what it returns
		t.Error("its connection is not closed")
	}
}

func TestConnectionIsMadeOnceForAll(t *testing.T) {
	m := newMembers(t, 1)
	cfg := m.config()
	cfg.DialOptions = nil
	c := newTestClient(t, cfg)
	var wg sync.WaitGroup
	conns := make([]*grpc.ClientConn, 8)
	for i := range conns {
		wg.Go(func() { conns[i] = c.ActiveConnection() })
	}
	wg.Wait()
	for _, conn := range conns {
		if conn == nil || conn != conns[0] {
			t.Fatalf("connections %v", conns)
		}
	}
}

// What gRPC says about options is told by New, not by the first call.
func TestNewTellsOfBadDialOptions(t *testing.T) {
	_, err := New(Config{
		Endpoints: []string{"127.0.0.1:1"}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithDefaultServiceConfig("{")},
	})
	if err == nil || !strings.Contains(err.Error(), "service config") {
		t.Errorf("%v", err)
	}
}
