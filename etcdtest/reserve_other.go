//go:build !linux

package etcdtest

import (
	"context"
	"fmt"
	"net"
)

// A reservation is a TCP port that was free a moment ago. On systems other than Linux nothing keeps it free.
type reservation struct{ addr string }

// reserve picks a free port on host, an IP address.
func reserve(host string) (*reservation, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("reserving a port: %w", err)
	}
	defer l.Close()
	return &reservation{addr: l.Addr().String()}, nil
}

func (r *reservation) release() {}
