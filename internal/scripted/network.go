package scripted

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// bufferSize is what a connection in memory holds in each direction before writing waits.
const bufferSize = 64 << 10

// Network is a network in memory. A client is put on it with DialOption.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
	dials     map[string]int
}

// NewNetwork returns a network without servers.
func NewNetwork() *Network {
	return &Network{listeners: make(map[string]*bufconn.Listener), dials: make(map[string]int)}
}

// Serve starts a server at an address, of any form.
func (n *Network) Serve(t testing.TB, addr string, opts ...grpc.ServerOption) *Server {
	t.Helper()
	s := newServer("memory", addr, opts)
	s.listen = func() (net.Listener, error) {
		lis := bufconn.Listen(bufferSize)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.listeners[addr] = lis
		return lis, nil
	}
	s.start(t)
	return s
}

// DialOption makes a client's connections through the network. Where nobody listens they are refused.
func (n *Network) DialOption() grpc.DialOption {
	return grpc.WithContextDialer(n.Dial)
}

// Dial connects to the server at addr.
func (n *Network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials[addr]++
	lis := n.listeners[addr]
	n.mu.Unlock()
	if lis != nil {
		if conn, err := lis.DialContext(ctx); err == nil || ctx.Err() != nil {
			return conn, err
		}
	}
	return nil, fmt.Errorf("dial %s: connection refused", addr)
}

// Dials returns how often the address was dialled.
func (n *Network) Dials(addr string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[addr]
}

// trackingListener keeps hold of the connections of a server.
type trackingListener struct {
	net.Listener
	server *Server
}

// Accept returns the next connection that is to be served.
func (l *trackingListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tracked, mode := l.server.track(conn)
		switch mode {
		case Hanging:
		case Cutting:
			_ = tracked.Close()
		default:
			return tracked, nil
		}
	}
}

func (s *Server) track(conn net.Conn) (*trackedConn, Mode) {
	tracked := &trackedConn{Conn: conn, server: s, closed: make(chan struct{})}
	tracked.addr = &connAddr{tracked}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[tracked] = true
	s.accepted++
	return tracked, s.mode
}

// trackedConn is a connection with a remote address of its own, by which a call finds its connection.
type trackedConn struct {
	net.Conn
	server *Server
	addr   net.Addr
	once   sync.Once
	closed chan struct{}
}

func (c *trackedConn) RemoteAddr() net.Addr { return c.addr }

// Read hands on what has arrived once the server is not frozen.
func (c *trackedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.server.mu.Lock()
	thawed := c.server.thawed
	c.server.mu.Unlock()
	if thawed != nil {
		select {
		case <-thawed:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	return n, err
}

func (c *trackedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
	return c.Conn.Close()
}

type connAddr struct{ conn *trackedConn }

func (a *connAddr) Network() string { return a.conn.Conn.RemoteAddr().Network() }
func (a *connAddr) String() string  { return a.conn.Conn.RemoteAddr().String() }
