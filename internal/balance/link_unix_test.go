//go:build unix

package balance

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// heldBuffers is a pool that counts what was taken, and what was not put back.
type heldBuffers struct{ taken, held atomic.Int64 }

func (p *heldBuffers) Get(n int) *[]byte {
	p.held.Add(1)
	p.taken.Add(1)
	b := make([]byte, n)
	return &b
}

func (p *heldBuffers) Put(*[]byte) { p.held.Add(-1) }

// polled returns a link that can be polled, and its other side.
func polled(t *testing.T, network, address string) (*polledLink, net.Conn) {
	t.Helper()
	lis, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	conn, err := net.Dial(network, lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); _ = other.Close() })
	_, used := wrap(conn)
	p, ok := used.(*polledLink)
	if !ok {
		t.Fatalf("%T cannot be polled", used)
	}
	return p, other
}

// Reads of every size give what was written, hold no buffer while they wait, and end as other reads do.
func TestPolledReads(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		t.Run(network, func(t *testing.T) {
			p, other := polled(t, network, address)
			var pool heldBuffers
			write := func(s string) {
				if _, err := io.WriteString(other, s); err != nil {
					t.Error(err)
				}
			}
			read := func(size int, want string) {
				t.Helper()
				buf, n, err := p.ReadOnReady(size, &pool)
				if err != nil || string((*buf)[:n]) != want {
					t.Fatalf("%d bytes, %v; want %q", n, err, want)
				}
				pool.Put(buf)
			}
			write("abcdef")
			read(4, "abcd")
			read(4, "ef")

			if err := p.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if buf, n, err := p.ReadOnReady(4, &pool); buf != nil || n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v, %d bytes, %v; want the deadline", buf, n, err)
			}
			if err := p.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			before := pool.taken.Load()
			go func() {
				for begun := time.Now(); pool.taken.Load() == before || pool.held.Load() > 0; {
					if time.Since(begun) > 10*time.Second {
						t.Error("a buffer is held while there is nothing to read")
						break
					}
					time.Sleep(time.Millisecond)
				}
				write("late")
			}()
			read(100, "late")

			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			if buf, n, err := p.ReadOnReady(4, &pool); buf != nil || n != 0 || err != io.EOF {
				t.Errorf("%v, %d bytes, %v; want the end", buf, n, err)
			}
			if n := pool.held.Load(); n != 0 {
				t.Errorf("%d buffers held in the end", n)
			}
		})
	}
}

func TestPolledReadOfACutLinkTellsWhy(t *testing.T) {
	p, _ := polled(t, "tcp", "127.0.0.1:0")
	done := make(chan error)
	go func() {
		_, _, err := p.ReadOnReady(4, new(heldBuffers))
		done <- err
	}()
	p.cut("no answer")
	if err := <-done; err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Error(err)
	}
}

// What is no bare socket may hold data that the socket does not have any more.
func TestOtherConnectionsAreNotPolled(t *testing.T) {
	conn, _ := net.Pipe()
	t.Cleanup(func() { _ = conn.Close() })
	type dressed struct{ *net.TCPConn }
	for _, c := range []net.Conn{conn, dressed{}} {
		if _, used := wrap(c); used == nil {
			t.Error("no connection")
		} else if _, ok := used.(*polledLink); ok {
			t.Errorf("%T is polled", c)
		}
	}
}
