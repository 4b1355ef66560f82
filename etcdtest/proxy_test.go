package etcdtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// echo serves connections that send back what they get, until the test is over.
func echo(t *testing.T, network string) (address string) {
	t.Helper()
	listen := "127.0.0.1:0"
	if network == "unix" {
		listen = filepath.Join(t.TempDir(), "echo")
	}
	l, err := net.Listen(network, listen)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// echoProxy is a proxy to an echo server. The proxy is closed first, so the server's connections end.
func echoProxy(t *testing.T, network string) *Proxy {
	t.Helper()
	p, err := NewProxy(network, echo(t, network))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func dialProxy(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial(p.network, p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// say sends text and expects it back.
func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

// silent checks that nothing comes for a while.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(make([]byte, 1))
	if ne, ok := errors.AsType[net.Error](err); n > 0 || !ok || !ne.Timeout() {
		t.Fatalf("read %d, %v, want silence", n, err)
	}
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
}

// refused checks that a new connection comes to nothing, be it that the reset is seen by the dial or after it.
func refused(t *testing.T, p *Proxy) {
	t.Helper()
	c, err := net.Dial(p.network, p.Addr())
	if err != nil {
		return
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v, from a connection that should be refused", n, err)
	}
}

// eventually waits until the proxy's counts are as wanted.
func eventually(t *testing.T, p *Proxy, good func(ProxyStats) bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !good(p.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("stats are %+v", p.Stats())
		}
	}
}

func TestProxyForwards(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			p := echoProxy(t, network)
			a, b := dialProxy(t, p), dialProxy(t, p)
			say(t, a, "hello")
			say(t, b, "you")
			say(t, a, "again")
			if got, want := p.Stats(), (ProxyStats{Accepted: 2, Open: 2, ToServer: 13, ToClient: 13}); got != want {
				t.Errorf("stats %+v, want %+v", got, want)
			}
			a.Close()
			eventually(t, p, func(s ProxyStats) bool { return s.Open == 1 })
			say(t, b, "still")
		})
	}
}

// A client that has said all it has to say still gets the answer.
func TestProxyClosesByHalves(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network string
		latency time.Duration
	}{{"tcp", 0}, {"unix", 0}, {"tcp", time.Millisecond}} {
		t.Run(tt.network, func(t *testing.T) {
			t.Parallel()
			p := echoProxy(t, tt.network)
			p.Slow(tt.latency, 0)
			c := dialProxy(t, p)
			data := make([]byte, 1<<20)
			for i := range data {
				data[i] = byte(rand.Uint32())
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := c.Write(data); err != nil {
					t.Error(err)
				}
				if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			got, err := io.ReadAll(c)
			wg.Wait()
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes came back of %d, %v", len(got), len(data), err)
			}
			eventually(t, p, func(s ProxyStats) bool { return s.Open == 0 })
		})
	}
}

func TestProxyCut(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			p := echoProxy(t, network)
			c := dialProxy(t, p)
			say(t, c, "hello")
			p.Cut()
			if n, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("read %d bytes from a connection that was cut", n)
			}
			eventually(t, p, func(s ProxyStats) bool { return s.Open == 0 })

			refused(t, p)
			eventually(t, p, func(s ProxyStats) bool { return s.Accepted == 2 && s.Open == 0 })
			p.Heal()
			say(t, dialProxy(t, p), "hello")
		})
	}
}

func TestProxyFreeze(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			p := echoProxy(t, network)
			c := dialProxy(t, p)
			say(t, c, "hello")
			p.Freeze()
			before := p.Stats()
			if _, err := io.WriteString(c, "lost?"); err != nil {
				t.Fatal(err)
			}
			silent(t, c)
			fresh := dialProxy(t, p)
			if _, err := io.WriteString(fresh, "me too"); err != nil {
				t.Fatal(err)
			}
			silent(t, fresh)
			if got := p.Stats(); got.ToServer != before.ToServer || got.Open != 2 {
				t.Errorf("stats %+v, before the freeze %+v, and a connection was added", got, before)
			}
			gone := dialProxy(t, p)
			eventually(t, p, func(s ProxyStats) bool { return s.Open == 3 })
			gone.Close()

			p.Heal()
			for conn, want := range map[net.Conn]string{c: "lost?", fresh: "me too"} {
				got := make([]byte, len(want))
				if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
					t.Errorf("after the thaw came %q, %v, want %q", got, err, want)
				}
			}
			eventually(t, p, func(s ProxyStats) bool { return s.Open == 2 })

			p.Freeze()
			p.Cut()
			if n, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("read %d bytes from a connection that was frozen, then cut", n)
			}
		})
	}
}

func TestProxySlow(t *testing.T) {
	t.Parallel()
	p := echoProxy(t, "tcp")
	c := dialProxy(t, p)
	say(t, c, "quick")
	const latency = 30 * time.Millisecond
	p.Slow(latency, 0)
	start := time.Now()
	say(t, c, "slow")
	if took := time.Since(start); took < 2*latency {
		t.Errorf("there and back took %v, want %v", took, 2*latency)
	}

	const rate, size = 1 << 20, 100 << 10
	p.Slow(0, rate)
	start = time.Now()
	say(t, c, string(make([]byte, size)))
	if took, want := time.Since(start), time.Second*size/rate; took < want {
		t.Errorf("%d bytes took %v, want %v", size, took, want)
	}
	p.Heal()
	say(t, c, "quick")
}

func TestProxyResetsWhenTargetIsGone(t *testing.T) {
	t.Parallel()
	r, err := reserve("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer r.release()
	p, err := NewProxy("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	refused(t, p)
	eventually(t, p, func(s ProxyStats) bool { return s.Accepted == 1 && s.Open == 0 })
}

func TestProxyClose(t *testing.T) {
	checkNothingLeft(t)
	for _, prepare := range []func(*Proxy){
		func(*Proxy) {},
		(*Proxy).Freeze,
		(*Proxy).Cut,
		func(p *Proxy) { p.Slow(time.Hour, 1) },
	} {
		for _, network := range []string{"tcp", "unix"} {
			p, err := NewProxy(network, echo(t, network))
			if err != nil {
				t.Fatal(err)
			}
			before := dialProxy(t, p)
			say(t, before, "hello")
			prepare(p)
			_, _ = io.WriteString(before, "more")
			after, err := net.Dial(network, p.Addr())
			if err == nil {
				defer after.Close()
				_, _ = io.WriteString(after, "more")
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, before); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a connection is open after Close")
			}
			if got := p.Stats(); got.Open != 0 {
				t.Errorf("stats %+v after Close", got)
			}
			p.Heal()
			if c, err := net.Dial(network, p.Addr()); err == nil {
				c.Close()
				t.Error("a closed proxy accepts connections")
			}
			if err := p.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
		}
	}
}

func TestNewProxyRejects(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ network, target string }{{"udp", "127.0.0.1:1"}, {"tcp", "nonsense"}} {
		if p, err := NewProxy(tt.network, tt.target); err == nil {
			p.Close()
			t.Errorf("a proxy on %s to %s", tt.network, tt.target)
		}
	}
}

// Whatever is done to the link while connections come, talk and go, the proxy neither mixes nor loses anything on a
// connection that stays whole, and nothing is left at the end.
func TestProxyUnderChange(t *testing.T) {
	t.Parallel()
	p := echoProxy(t, "tcp")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", p.Addr())
				if err != nil {
					continue // cut
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				sent, got := make([]byte, 1+rand.IntN(100<<10)), make([]byte, 100<<10)
				for i := range sent {
					sent[i] = byte(rand.Uint32())
				}
				wg.Go(func() { _, _ = c.Write(sent) })
				n, _ := io.ReadFull(c, got[:len(sent)])
				if !bytes.Equal(got[:n], sent[:n]) {
					t.Error("the bytes that came back are others")
				}
				stop()
				c.Close()
			}
		})
	}
	for ctx.Err() == nil {
		switch rand.IntN(5) {
		case 0:
			p.Cut()
		case 1:
			p.Freeze()
		case 2:
			p.Slow(time.Duration(rand.IntN(3))*time.Millisecond, int64(rand.IntN(2))<<26)
		default:
			p.Heal()
		}
		time.Sleep(time.Millisecond)
	}
	wg.Wait()
	p.Heal()
	eventually(t, p, func(s ProxyStats) bool { return s.Open == 0 })
}

// The proxy of a member does to a client what it should, and a client that asks the cluster for its members stays on
// it.
func TestMemberBehindProxy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		opts []Option
	}{
		{"in process", nil},
		{"child TLS", []Option{WithChildProcesses(), WithTLS()}},
		{"unix", []Option{WithUnixSockets()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := Run(t, append(tt.opts, WithProxies())...)
			p := c.Member(0).Proxy()
			ctx := testContext(t)
			if got := p.Stats(); got.Accepted != 0 {
				t.Errorf("stats %+v before there is a client", got)
			}
			conn := dialEndpoint(t, c.Member(0).Endpoint(), c.ClientTLS())
			if err := put(ctx, conn, "a", "x"); err != nil {
				t.Fatal(err)
			}
			if got := p.Stats(); got.Accepted != 1 || got.Open != 1 || got.ToServer == 0 || got.ToClient == 0 {
				t.Errorf("stats %+v with one client", got)
			}

			p.Freeze()
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			if err := put(short, conn, "a", "y"); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("put through a frozen link: %v", err)
			}
			if err := c.WaitReady(ctx); err != nil {
				t.Errorf("the kit goes past the proxy: %v", err)
			}
			p.Cut()
			if err := put(ctx, conn, "a", "y"); status.Code(err) != codes.Unavailable {
				t.Errorf("put through a link that is cut: %v", err)
			}
			p.Slow(20*time.Millisecond, 0)
			for put(ctx, conn, "a", "y") != nil && ctx.Err() == nil {
				time.Sleep(pollInterval) // the client's backoff
			}
			start := time.Now()
			if _, err := get(ctx, conn, "a"); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took < 40*time.Millisecond {
				t.Errorf("get through a slow link took %v", took)
			}
		})
	}
	if p := Run(t).Member(0).Proxy(); p != nil {
		t.Errorf("a proxy that nobody asked for: %v", p)
	}
}
