package etcdtest

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReservedPortIsGivenToNobodyElse(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1", "::1"} {
		r, err := reserve(host)
		if err != nil {
			t.Fatal(err)
		}
		defer r.release()
		if c, err := net.Dial("tcp", r.addr); err == nil {
			c.Close()
			t.Errorf("%s accepts connections", r.addr)
		}
		if err := takeAnyOf(r.addr); !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, unix.ENOPROTOOPT) {
			t.Errorf("it is given to who asks for any: %v", err)
		}
		// Twice, as when a member restarts, with a connection to the first left behind.
		for range 2 {
			l, err := net.Listen("tcp", r.addr)
			if err != nil {
				t.Fatalf("the one it is for cannot have it: %v", err)
			}
			client, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			server.Close()
			client.Close()
			l.Close()
		}
		if err := takeAnyOf(r.addr); !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, unix.ENOPROTOOPT) {
			t.Errorf("it is given to who asks for any, after a use: %v", err)
		}
	}
}

func TestReservedPortIsReleased(t *testing.T) {
	t.Parallel()
	var last error
	for range 20 { // a port may be taken by somebody else as soon as it is free
		r, err := reserve("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		r.release()
		r.release()
		if last = takeAnyOf(r.addr); last == nil || errors.Is(last, unix.ENOPROTOOPT) {
			return
		}
	}
	t.Errorf("nobody can have them: %v", last)
}

// takeAnyOf listens on any free port of those that there are, which is the one in addr. Linux can limit the ports
// that a socket is given since 6.3, and says ENOPROTOOPT before.
func takeAnyOf(addr string) error {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return err
	}
	const ipLocalPortRange = 51
	only := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, ipLocalPortRange, int(port<<16|port))
		})
		return errors.Join(controlErr, err)
	}}
	l, err := only.Listen(context.Background(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return err
	}
	return l.Close()
}
