//go:build !unix

package balance

import "net"

// wrap returns a link, and what is to be used of it as the connection.
func wrap(conn net.Conn) (*link, net.Conn) {
	l := &link{Conn: conn}
	return l, l
}
