package balance

import (
	"net"
	"sync/atomic"
)

// link is a connection that can be cut with a reason, which the calls on it then see. It stands below TLS: closing that
// would wait to say goodbye.
type link struct {
	net.Conn
	reason atomic.Pointer[cutError]
}

type cutError string

func (e *cutError) Error() string { return string(*e) }

// cut closes the connection, if it is not closed already.
func (l *link) cut(reason string) {
	err := cutError(reason)
	l.reason.CompareAndSwap(nil, &err)
	_ = l.Close() // it is given up; whether it had to be closed is of no interest
}

func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	return n, l.explain(err)
}

func (l *link) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	return n, l.explain(err)
}

// explain replaces "use of closed network connection" by the reason for which it was closed.
func (l *link) explain(err error) error {
	if err == nil {
		return nil
	}
	if reason := l.reason.Load(); reason != nil {
		return reason
	}
	return err
}
