//go:build unix

package balance

import (
	"errors"
	"io"
	"net"
	"syscall"

	"google.golang.org/grpc/mem"
)

// polledLink is a link that can wait for data without a buffer to put it in: gRPC, which looks for the method
// ReadOnReady, then holds the buffer of a plaintext connection only while there is data in it. Only one goroutine reads.
type polledLink struct {
	*link
	raw  syscall.RawConn
	poll func(fd uintptr) bool // tryRead, made once

	// Of the read under way.
	size int
	pool mem.BufferPool
	buf  *[]byte
	n    int
	err  error
}

// wrap returns a link, and what is to be used of it as the connection.
func wrap(conn net.Conn) (*link, net.Conn) {
	l := &link{Conn: conn}
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn: // any other may hold data that the file descriptor has not
	default:
		return l, l
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return l, l
	}
	p := &polledLink{link: l, raw: raw}
	p.poll = p.tryRead
	return l, p
}

// ReadOnReady waits for data, and then reads up to size bytes into a buffer of the pool, which is the caller's to put
// back.
func (p *polledLink) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	p.size, p.pool = size, pool
	err := p.raw.Read(p.poll)
	buf, n := p.buf, p.n
	if err == nil {
		err = p.err
	}
	p.pool, p.buf, p.n, p.err = nil, nil, 0, nil
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil && buf != nil {
		pool.Put(buf)
		buf = nil
	}
	return buf, n, p.explain(err)
}

// tryRead reads what there is. It reports whether that was something, an error or the end.
func (p *polledLink) tryRead(fd uintptr) bool {
	p.buf = p.pool.Get(p.size)
	for {
		p.n, p.err = syscall.Read(int(fd), *p.buf)
		if !errors.Is(p.err, syscall.EINTR) {
			break
		}
	}
	if p.err == nil {
		return true
	}
	p.pool.Put(p.buf)
	p.buf, p.n = nil, 0
	return !errors.Is(p.err, syscall.EAGAIN)
}
