package etcdtest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// A Direction tells which messages between a member and its peers are meant. The zero value means none.
type Direction int

const (
	// Outbound is what the member sends to the others.
	Outbound Direction = 1 << iota
	// Inbound is what the others send to the member.
	Inbound
	// Both is all there is between the member and the others.
	Both = Outbound | Inbound
)

// CutPeers cuts the member from all other members in the direction given, and heals the other direction: connections
// that carry such messages are reset, and new ones refused, until [Member.HealPeers] or another CutPeers. Its clients
// still reach the member. It takes members in process, or [WithPeerProxies], and a member that has been ready once.
//
// A member cut in both directions loses its leader within an election timeout, or stops leading. One that is cut from
// what the others send keeps asking for votes, which they ignore while they have a leader (raft's pre-vote); a leader
// that is, steps down. One whose messages do not arrive, a leader say, is replaced by the others.
func (m *Member) CutPeers(d Direction) error {
	if m.launch.peers == nil {
		return fmt.Errorf("etcdtest: cannot cut member %s from its peers: there are no proxies between them", m.name)
	}
	id := m.ID()
	if id == 0 {
		return fmt.Errorf("etcdtest: cannot cut member %s from its peers: it has not been ready yet", m.name)
	}
	m.c.raft.set(id, d)
	for _, other := range m.c.Members() {
		other.launch.peers.dropRefused()
	}
	return nil
}

// HealPeers undoes [Member.CutPeers].
func (m *Member) HealPeers() error { return m.CutPeers(0) }

// PeerProxy is what the other members reach this one through, or nil without [WithPeerProxies] if the member is a
// child process. It carries what they send to this member, and, on the streams that they open, also what it sends to
// them.
func (m *Member) PeerProxy() *Proxy { return m.launch.peers }

// raftLinks knows which messages between members get through.
type raftLinks struct {
	mu  sync.Mutex
	cut map[uint64]Direction // by member id
}

func (l *raftLinks) set(id uint64, d Direction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut == nil {
		l.cut = make(map[uint64]Direction)
	}
	l.cut[id] = d
}

// carries reports whether messages between two members get through.
func (l *raftLinks) carries(from, to uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut[from]&Outbound == 0 && l.cut[to]&Inbound == 0
}

// carries reports whether what a connection to the member's peer port carries gets through.
func (m *Member) carries(r route) bool {
	switch {
	case r.peer == 0:
		return true
	case r.stream:
		return m.c.raft.carries(m.ID(), r.peer)
	default:
		return m.c.raft.carries(r.peer, m.ID())
	}
}

// route is what a connection to a member's peer port is for. The zero value is for no raft messages.
type route struct {
	peer   uint64 // the member that opened it
	stream bool   // messages go to that member; otherwise they come from it
}

// maxHead bounds the head of a request between members, in bytes. It is a few hundred.
const maxHead = 16 << 10

// readRoute reads the head of a connection's first request, in which the member that asks names itself as X-Server-From
// (etcd's server/etcdserver/api/rafthttp). On a stream, which is an endless response, messages go to the member that
// asks; in all other requests they come from it, and all requests that follow on a connection are of the same kind.
// Requests without the name are questions, as for the version, and might be followed by any other; so they are made
// the last of their connections.
//
// The head is returned as it is to be passed on.
func readRoute(conn net.Conn) (head []byte, r route, err error) {
	end := -1
	for buf := make([]byte, 1<<10); end < 0; {
		if len(head) > maxHead {
			return nil, route{}, fmt.Errorf("the head of a request between members is longer than %d bytes", maxHead)
		}
		n, err := conn.Read(buf)
		head = append(head, buf[:n]...)
		if end = bytes.Index(head, []byte("\r\n\r\n")); end < 0 && err != nil {
			return nil, route{}, err
		}
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return nil, route{}, err
	}
	peer := memberID(req.Header.Get("X-Server-From"))
	if peer == 0 {
		last := append(head[:end:end], "\r\nConnection: close"...)
		return append(last, head[end:]...), route{}, nil
	}
	return head, route{peer: peer, stream: strings.HasPrefix(req.URL.Path, "/raft/stream/")}, nil
}

// memberID returns 0, which no member has, for what is no id.
func memberID(text string) uint64 {
	id, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return 0
	}
	return id
}
