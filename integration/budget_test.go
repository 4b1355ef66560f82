package integration

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// meter is a proxy that counts the requests that pass through it, by the HTTP/2 frames that begin them.
type meter struct {
	listener net.Listener
	target   string
	requests atomic.Int64
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
}

// newMeter returns a meter before the endpoint. It is closed with the test.
func newMeter(t *testing.T, endpoint string) *meter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &meter{listener: l, target: hostPort(endpoint)}
	m.wg.Go(m.accept)
	t.Cleanup(m.close)
	return m
}

func (m *meter) endpoint() string { return m.listener.Addr().String() }

func (m *meter) close() {
	_ = m.listener.Close() // accept returns, whatever this does
	m.mu.Lock()
	m.closed = true
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

func (m *meter) accept() {
	for {
		client, err := m.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", m.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		m.mu.Lock()
		m.conns = append(m.conns, client, server)
		closed := m.closed
		m.mu.Unlock()
		if closed {
			_ = client.Close()
			_ = server.Close()
			return
		}
		pr, pw := io.Pipe()
		m.wg.Go(func() { m.count(pr) })
		m.wg.Go(func() {
			_, err := io.Copy(io.MultiWriter(server, pw), client)
			_ = pw.CloseWithError(errors.Join(io.EOF, err))
			_ = server.Close()
		})
		m.wg.Go(func() {
			_, _ = io.Copy(client, server) // ends with either connection
			_ = client.Close()
		})
	}
}

// count reads what a client sends. What it cannot read it drops, so as not to hold up the connection.
func (m *meter) count(r io.Reader) {
	defer func() { _, _ = io.Copy(io.Discard, r) }()
	if _, err := io.ReadFull(r, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(io.Discard, r)
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return
		}
		if f.Header().Type == http2.FrameHeaders {
			m.requests.Add(1)
		}
	}
}

const (
	callers    = 10
	outage     = 5 * time.Second
	budgetHeld = 10 // retries that a client has to start with, without those it has earned
)

// callFor lets the callers make calls, one after the other, until time is up. It returns how many they made.
func callFor(ctx context.Context, d time.Duration, call func(context.Context) error) (made int64) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var count atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				count.Add(1)
				_ = call(ctx) // it is the load that counts
			}
		})
	}
	wg.Wait()
	return count.Load()
}

// With two of three members down and the third without a leader, every request is refused at once. The callers that
// retry send no more than the budget allows.
func TestRetriesStayWithinTheBudget(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses())
	ctx := clientv3.WithRequireLeader(testContext(t))
	var meters []*meter
	var endpoints []string
	for _, m := range cluster.Members() {
		meters = append(meters, newMeter(t, m.Endpoint()))
		endpoints = append(endpoints, meters[len(meters)-1].endpoint())
	}
	total := func() (n int64) {
		for _, m := range meters {
			n += m.requests.Load()
		}
		return n
	}
	for i := range 2 {
		if err := cluster.Member(i).Kill(); err != nil {
			t.Fatal(err)
		}
	}
	alone := open(t, clientv3.Config{Endpoints: cluster.Endpoints()[2:], MaxUnaryRetries: 1})
	for {
		short, cancel := context.WithTimeout(ctx, time.Second)
		err := second(alone.Put(short, "key", ""))
		cancel()
		if err == rpctypes.ErrNoLeader {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the member does not notice that it is alone: %v", err)
		}
	}

	for name, call := range map[string]func(context.Context, *clientv3.Client) error{
		"reads":  func(ctx context.Context, c *clientv3.Client) error { return second(c.Get(ctx, "key")) },
		"writes": func(ctx context.Context, c *clientv3.Client) error { return second(c.Put(ctx, "key", "")) },
	} {
		t.Run(name, func(t *testing.T) {
			cli := open(t, clientv3.Config{Endpoints: endpoints})
			before := total()
			start := time.Now()
			made := callFor(ctx, outage, func(ctx context.Context) error { return call(ctx, cli) })
			sent := total() - before
			allowed := made + budgetHeld + made/10 + int64(time.Since(start)/time.Second)
			t.Logf("%d requests for %d calls", sent, made)
			if sent > allowed {
				t.Errorf("%d requests for %d calls, want at most %d", sent, made, allowed)
			}
			if sent < callers {
				t.Errorf("%d requests of %d callers: they are not counted", sent, callers)
			}
		})
	}
}

// With all members gone, callers cause no more connections than one that waits: each endpoint is dialed with backoff.
func TestCallersDoNotCauseConnections(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithProxies(), etcdtest.WithChildProcesses())
	cli := newClient(t, cluster)
	ctx := testContext(t)
	if _, err := cli.Put(ctx, "key", ""); err != nil {
		t.Fatal(err)
	}
	before := make([]int64, 3)
	for i, m := range cluster.Members() {
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		before[i] = m.Proxy().Stats().Accepted
	}
	var failed atomic.Int64
	callFor(ctx, outage, func(ctx context.Context) error {
		err := second(cli.Put(ctx, "key", ""))
		if status.Code(err) == codes.Unavailable {
			failed.Add(1)
		}
		return err
	})
	for i, m := range cluster.Members() {
		// 0.2 s, then 1.6 times that and so on, each a fifth more or less.
		if n := m.Proxy().Stats().Accepted - before[i]; n > 10 {
			t.Errorf("%d connections to %s in %v", n, m.Name(), outage)
		}
	}
	if n := failed.Load(); n == 0 {
		t.Error("nobody was told that the cluster is gone")
	}
}
