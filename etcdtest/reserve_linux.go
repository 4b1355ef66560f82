package etcdtest

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// A reservation keeps a TCP port for a member over its whole life, also while the member is down.
//
// It is a socket that is bound but does not listen. As long as it exists the kernel gives the port to nobody who asks
// for any free port, be it to listen or to connect. A server that asks for this very port gets it: both sockets have
// SO_REUSEADDR set (the net package sets it on every listener), and that lets a second one bind where the first does
// not listen.
type reservation struct {
	addr string
	fd   int
	once sync.Once
}

// reserve picks a free port on host, an IP address.
func reserve(host string) (*reservation, error) {
	ip := net.ParseIP(host)
	family := syscall.AF_INET
	var to syscall.Sockaddr
	if v4 := ip.To4(); v4 != nil {
		to = &syscall.SockaddrInet4{Addr: [4]byte(v4)}
	} else {
		family = syscall.AF_INET6
		to = &syscall.SockaddrInet6{Addr: [16]byte(ip)}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserving a port: %w", os.NewSyscallError("socket", err))
	}
	if err := bind(fd, to); err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("reserving a port on %s: %w", host, err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("reserving a port on %s: %w", host, os.NewSyscallError("getsockname", err))
	}
	port := 0
	switch a := bound.(type) {
	case *syscall.SockaddrInet4:
		port = a.Port
	case *syscall.SockaddrInet6:
		port = a.Port
	}
	return &reservation{addr: net.JoinHostPort(host, strconv.Itoa(port)), fd: fd}, nil
}

func bind(fd int, to syscall.Sockaddr) error {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("bind", syscall.Bind(fd, to))
}

func (r *reservation) release() {
	r.once.Do(func() { _ = syscall.Close(r.fd) })
}
