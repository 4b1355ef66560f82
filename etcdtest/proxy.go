package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// A Proxy forwards connections to a server and does to them what a network might: it can be cut, frozen, slowed and
// healed, at any time, for the connections that there are and those to come. Each of these replaces the one before. A
// new proxy is healthy. Its methods are safe for concurrent use.
//
// It knows bytes only, no protocol, so it stands before any server on TCP or a unix socket.
type Proxy struct {
	network, target string
	listener        net.Listener
	dir             string // holds the unix socket it listens on, if that is its own
	wg              sync.WaitGroup
	carries         func(route) bool // between members: which connections get through; nil for other proxies

	accepted, open, toServer, toClient atomic.Int64

	mu      sync.Mutex
	link    link
	changed chan struct{} // closed, and replaced, when link changes
	conns   map[*proxied]struct{}
	closed  bool
}

// link is the state of a proxy. The zero value is a healthy one.
type link struct {
	cut, frozen bool
	Impairment
}

// An Impairment is what a bad network does to a link. The zero value does nothing.
type Impairment struct {
	// Latency is how long each byte takes, in each direction, so that a round trip takes twice that.
	Latency time.Duration
	// Jitter is how much longer it may take, at random. What follows does not overtake: it waits.
	Jitter time.Duration
	// BytesPerSecond is how much gets through each way of each connection. 0 is no limit.
	BytesPerSecond int64
	// Loss is the share of packets that get lost, at least 0 and less than 1. A lost packet is sent again, as TCP does:
	// it arrives after another 200 ms, another 400 ms if it is lost again and so on up to 10 s, and all behind it on
	// its connection with it.
	Loss float64
}

// The time until TCP sends a lost packet again begins with firstResend and doubles up to lastResend.
const (
	firstResend = 200 * time.Millisecond
	lastResend  = 10 * time.Second
)

// delay returns how long a packet takes, the time at the link's rate apart.
func (i Impairment) delay() time.Duration {
	d := i.Latency
	if i.Jitter > 0 {
		d += rand.N(i.Jitter)
	}
	for resend := firstResend; i.Loss > 0 && rand.Float64() < i.Loss; resend = min(2*resend, lastResend) {
		d += resend
	}
	return d
}

// ProxyStats counts what went through a [Proxy] since it was made.
type ProxyStats struct {
	// Accepted is the number of connections that clients made, those included which a cut proxy reset at once.
	Accepted int64
	// Open is the number of connections that are open now.
	Open int64
	// ToServer and ToClient are the bytes delivered each way.
	ToServer, ToClient int64
}

// NewProxy starts a proxy to the server at target. The network is "tcp", with a host:port as the target, or "unix",
// with the path of a socket. On TCP the proxy listens on a free port of the loopback interface, otherwise on a socket
// in a temporary directory. The caller closes the proxy.
func NewProxy(network, target string) (*Proxy, error) {
	switch network {
	case "tcp":
		host, _, err := net.SplitHostPort(target)
		if err != nil {
			return nil, fmt.Errorf("etcdtest: the target of a proxy: %w", err)
		}
		listen := "127.0.0.1:0"
		if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
			listen = "[::1]:0"
		}
		return newProxy(network, listen, target, nil)
	case "unix":
		dir, err := os.MkdirTemp("", "etcdtest")
		if err != nil {
			return nil, fmt.Errorf("etcdtest: %w", err)
		}
		p, err := newProxy(network, filepath.Join(dir, "proxy.sock"), target, nil)
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		p.dir = dir
		return p, nil
	default:
		return nil, fmt.Errorf("etcdtest: a proxy cannot be on the network %q, only on tcp or unix", network)
	}
}

func newProxy(network, listen, target string, carries func(route) bool) (*Proxy, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), network, listen)
	if err != nil {
		return nil, fmt.Errorf("etcdtest: starting a proxy: %w", err)
	}
	p := &Proxy{
		network:  network,
		target:   target,
		listener: l,
		carries:  carries,
		changed:  make(chan struct{}),
		conns:    make(map[*proxied]struct{}),
	}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is the address that the proxy listens on: host:port, or the path of a socket.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut resets all connections, and each new one as soon as it is made.
func (p *Proxy) Cut() { p.set(link{cut: true}) }

// Freeze lets nothing through any more, in either direction, while connections stay open and new ones are accepted,
// as when a network drops every packet. As there, what was sent meanwhile arrives once the link is healed; and a
// client that hangs up is not noticed by the server before that.
func (p *Proxy) Freeze() { p.set(link{frozen: true}) }

// Slow is [Proxy.Impair] with a latency and a limit of bytes per second only.
func (p *Proxy) Slow(latency time.Duration, bytesPerSecond int64) {
	p.set(link{Impairment: Impairment{Latency: latency, BytesPerSecond: bytesPerSecond}})
}

// Impair makes the link a bad one. Up to 4 MiB are on their way in each direction of a connection; beyond, the sender
// waits. It returns an error, and changes nothing, if the impairment is none that there can be.
func (p *Proxy) Impair(i Impairment) error {
	if i.Latency < 0 || i.Jitter < 0 || i.BytesPerSecond < 0 || !(i.Loss >= 0 && i.Loss < 1) {
		return fmt.Errorf("etcdtest: impairing a link: %+v: nothing may be negative, and Loss must be less than 1", i)
	}
	p.set(link{Impairment: i})
	return nil
}

// Heal makes the link a healthy one again. Connections that were cut stay so, and what is on its way over a slow link
// takes its time.
func (p *Proxy) Heal() { p.set(link{}) }

// Stats returns the counts as they are now.
func (p *Proxy) Stats() ProxyStats {
	return ProxyStats{
		Accepted: p.accepted.Load(),
		Open:     p.open.Load(),
		ToServer: p.toServer.Load(),
		ToClient: p.toClient.Load(),
	}
}

// Close stops listening, resets all connections, and waits until all is gone. It may be called more than once.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	p.set(link{cut: true})
	p.wg.Wait()
	if p.dir != "" {
		err = errors.Join(err, os.RemoveAll(p.dir))
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Proxy) set(l link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		l = link{cut: true}
	}
	p.link = l
	close(p.changed)
	p.changed = make(chan struct{})
	if l.cut {
		p.dropLocked()
	}
}

// drop resets all connections. New ones are as good as before.
func (p *Proxy) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked()
}

func (p *Proxy) dropLocked() {
	for c := range p.conns {
		c.reset()
	}
}

// dropRefused resets the connections between members that are not to get through any more.
func (p *Proxy) dropRefused() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if !p.carries(c.route) {
			c.reset()
		}
	}
}

// state returns the link and a channel that is closed when it changes.
func (p *Proxy) state() (link, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.link, p.changed
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of file descriptors, most likely: that passes.
			_, changed := p.state()
			select {
			case <-time.After(pollInterval):
			case <-changed:
			}
			continue
		}
		p.accepted.Add(1)
		if c := p.admit(client); c != nil {
			p.wg.Go(c.serve)
		}
	}
}

// admit takes a new connection in, or resets it when the proxy is cut.
func (p *Proxy) admit(client net.Conn) *proxied {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link.cut {
		reset(client)
		return nil
	}
	c := &proxied{p: p, client: client}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	p.conns[c] = struct{}{}
	p.open.Add(1)
	return c
}

// proxied is a connection through a proxy.
type proxied struct {
	p      *Proxy
	ctx    context.Context // ends when the connection is reset
	cancel context.CancelFunc
	client net.Conn
	route  route // between members; guarded by p.mu

	mu     sync.Mutex
	server net.Conn // nil before the server is dialed
}

// serve owns the connection: when it returns, nothing is left of it.
func (c *proxied) serve() {
	defer func() {
		c.p.mu.Lock()
		delete(c.p.conns, c)
		c.p.mu.Unlock()
		c.cancel()
		_ = c.client.Close()
		c.p.open.Add(-1)
	}()
	if !c.pass() {
		return
	}
	head, ok := c.begin()
	if !ok {
		reset(c.client)
		return
	}
	var d net.Dialer
	server, err := d.DialContext(c.ctx, c.p.network, c.p.target)
	if err != nil {
		reset(c.client)
		return
	}
	defer func() { _ = server.Close() }()
	c.mu.Lock()
	c.server = server
	c.mu.Unlock()
	if c.ctx.Err() != nil {
		// Cut between the dial and here, where reset saw no server connection to close.
		reset(server)
	}

	var other sync.WaitGroup
	other.Go(func() { c.forward(server, c.client, head, &c.p.toServer) })
	c.forward(c.client, server, nil, &c.p.toClient)
	other.Wait()
}

// begin reads, between members, what the connection is for, and reports whether it is to get through.
func (c *proxied) begin() (head []byte, ok bool) {
	if c.p.carries == nil {
		return nil, true
	}
	head, r, err := readRoute(c.client)
	if err != nil {
		return nil, false
	}
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	// Under the lock, so that a cut from now on finds the route, and one before is seen here.
	c.route = r
	return head, c.p.carries(r)
}

// forward carries one direction until its end, with what has been read of it before, and ends the other with it if it
// did not end in order.
func (c *proxied) forward(dst, src net.Conn, head []byte, count *atomic.Int64) {
	f := flow{c: c, dst: dst, src: src, head: head, count: count}
	if err := f.run(); err != nil {
		c.reset()
	}
}

// reset breaks the connection off, both ways and at once.
func (c *proxied) reset() {
	c.cancel()
	reset(c.client)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil {
		reset(c.server)
	}
}

// pass waits while the link is frozen. It reports false when the connection has been reset.
func (c *proxied) pass() bool {
	for {
		l, changed := c.p.state()
		if !l.frozen {
			return c.ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return false
		}
	}
}

// reset closes a connection without the goodbye: on TCP, the other side sees it reset.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
