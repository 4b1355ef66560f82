package etcdtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// awaitStatus waits until the member's own view of the cluster is as wanted.
func awaitStatus(ctx context.Context, m *Member, want string, good func(leader uint64) bool) error {
	return m.poll(ctx, func(ctx context.Context) error {
		st, err := m.status(ctx)
		if err == nil && !good(st.Leader) {
			err = fmt.Errorf("its leader is %x, want %s", st.Leader, want)
		}
		return err
	})
}

func TestMembersAreCutFromPeers(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]Option{
		"in process":     nil,
		"children":       {WithChildProcesses(), WithPeerProxies()},
		"children, IPv6": {WithChildProcesses(), WithPeerProxies(), WithIPv6()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Run(t, append(opts, WithMembers(3))...)
			ctx := testContext(t)
			for _, d := range []Direction{Both, Inbound, Outbound} {
				lead, err := c.Leader(ctx)
				if err != nil {
					t.Fatal(err)
				}
				cut := (lead + 1) % 3
				if d == Outbound {
					cut = lead // of a follower that cannot be heard nobody takes notice
				}
				m := c.Member(cut)
				if err := m.CutPeers(d); err != nil {
					t.Fatal(err)
				}
				if d == Outbound {
					if err := await(ctx, c, func(now int) bool { return now != cut }); err != nil {
						t.Errorf("a leader that is not heard: %v", err)
					}
				} else {
					if err := awaitStatus(ctx, m, "none", func(l uint64) bool { return l == 0 }); err != nil {
						t.Errorf("a follower cut in direction %d: %v", d, err)
					}
					if now, err := c.Leader(ctx); now != lead || err != nil {
						t.Errorf("the others follow %d, %v, want %d", now, err, lead)
					}
				}
				if err := m.HealPeers(); err != nil {
					t.Fatal(err)
				}
				if err := c.WaitReady(ctx); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// await waits until the cluster has a leader as wanted.
func await(ctx context.Context, c *Cluster, good func(leader int) bool) error {
	return c.poll(ctx, nil, func(ctx context.Context) error {
		lead, err := c.askLeader(ctx)
		if err == nil && !good(lead) {
			err = fmt.Errorf("the leader is %d", lead)
		}
		return err
	})
}

func TestCutFromPeersOutlivesRestart(t *testing.T) {
	t.Parallel()
	c := Run(t, WithMembers(3))
	ctx := testContext(t)
	lead, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m := c.Member((lead + 1) % 3)
	if err := m.CutPeers(Both); err != nil {
		t.Fatal(err)
	}
	if err := m.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := m.WaitReady(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ready without its peers: %v", err)
	}
	if err := m.HealPeers(); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitReady(ctx); err != nil {
		t.Error(err)
	}
}

func TestCutPeersNeedsProxies(t *testing.T) {
	t.Parallel()
	c := Run(t, WithChildProcesses())
	if err := c.Member(0).CutPeers(Both); err == nil || !strings.Contains(err.Error(), "no proxies") {
		t.Errorf("without proxies: %v", err)
	}
	if p := c.Member(0).PeerProxy(); p != nil {
		t.Errorf("peer proxy %v", p.Addr())
	}
}

// A connection between members is taken for what its first request says.
func TestRoutes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, request string
		want          route
	}{
		{"a message", "POST /raft HTTP/1.1\r\nHost: m\r\nX-Server-From: 8e9e05c52164694d\r\n\r\nbody", route{peer: 0x8e9e05c52164694d}},
		{"a snapshot", "POST /raft/snapshot HTTP/1.1\r\nHost: m\r\nX-Server-From: 1\r\n\r\n", route{peer: 1}},
		{"a stream", "GET /raft/stream/msgapp/2 HTTP/1.1\r\nHost: m\r\nx-server-from: 1\r\n\r\n", route{peer: 1, stream: true}},
		{"a question", "GET /version HTTP/1.1\r\nHost: m\r\n\r\n", route{}},
		{"a question by nobody", "GET /version HTTP/1.1\r\nHost: m\r\nX-Server-From: me\r\n\r\n", route{}},
	} {
		client, server := net.Pipe()
		go func() {
			for _, b := range []byte(tt.request) {
				_, _ = client.Write([]byte{b})
			}
			_ = client.Close()
		}()
		head, got, err := readRoute(server)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", tt.name, got, err, tt.want)
			continue
		}
		rest, err := io.ReadAll(server)
		if err != nil {
			t.Fatal(err)
		}
		all := string(head) + string(rest)
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(all)))
		if err != nil {
			t.Fatal(err)
		}
		if last := tt.want.peer == 0; req.Close != last {
			t.Errorf("%s: passed on as %q", tt.name, all)
		} else if !last && all != tt.request {
			t.Errorf("%s: passed on as %q, want it unchanged", tt.name, all)
		}
	}
}

func TestOddRequestsOfPeersAreRefused(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"no request": "hello\r\n\r\n", "cut off": "POST /raft HTTP/1.1\r\nHost",
		"endless": "POST /raft HTTP/1.1\r\nX: " + strings.Repeat("x", 2*maxHead),
	} {
		client, server := net.Pipe()
		go func() {
			_, _ = client.Write([]byte(request))
			_ = client.Close()
		}()
		if _, r, err := readRoute(server); err == nil {
			t.Errorf("%s: taken for %+v", name, r)
		}
		// What is left unread ends with the connection, not before.
		if err := server.Close(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	}
}
