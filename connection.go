package clientv3

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

// connection is the client's connection, which is made when it is needed first: much of what a client costs is that. All
// methods are safe for concurrent use.
type connection struct {
	dial func() (*grpc.ClientConn, error)
	made atomic.Pointer[grpc.ClientConn]

	mu     sync.Mutex // held while it is made, and closed
	closed bool
}

// get returns the connection. One that is made after close is closed, so that calls on it say so.
func (c *connection) get() (*grpc.ClientConn, error) {
	if conn := c.made.Load(); conn != nil {
		return conn, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.made.Load(); conn != nil {
		return conn, nil
	}
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	if c.closed {
		_ = conn.Close() // nobody has used it
	}
	c.made.Store(conn)
	return conn, nil
}

// close closes the connection, now or when it is made. From the second time on it returns grpc.ErrClientConnClosing.
func (c *connection) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	again := c.closed
	c.closed = true
	if conn := c.made.Load(); conn != nil {
		return conn.Close()
	}
	if again {
		return grpc.ErrClientConnClosing //nolint:staticcheck // what a connection's Close returns
	}
	return nil
}

// Invoke makes a unary call on the connection.
func (c *connection) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	conn, err := c.get()
	if err != nil {
		return err
	}
	return conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream opens a stream on the connection.
func (c *connection) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	conn, err := c.get()
	if err != nil {
		return nil, err
	}
	return conn.NewStream(ctx, desc, method, opts...)
}
