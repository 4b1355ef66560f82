package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

// A Member is one etcd server of a [Cluster]. Its methods are safe for concurrent use. Stop, Restart, Freeze and Thaw
// wait for each other; Kill waits for none of them.
type Member struct {
	c      *Cluster
	name   string
	launch launch
	log    *memberLog
	conn   *grpc.ClientConn // for the kit's own questions
	id     atomic.Uint64

	network, served string         // where the server itself listens for clients
	ports           []*reservation // on which the server listens
	proxy           *Proxy         // before network and served, or nil

	ctl sync.Mutex // held while the server is started or stopped; taken before mu

	mu     sync.Mutex
	srv    server // nil before the first start
	frozen bool
	closed bool
}

// Name is the member's name in the cluster: m0, m1 and so on, in the order in which they came.
func (m *Member) Name() string { return m.name }

// ID is the member's id in the cluster, or 0 as long as it was never ready.
func (m *Member) ID() uint64 { return m.id.Load() }

func (m *Member) setID(id uint64) { m.id.Store(id) }

// Endpoint is the URL at which a client reaches the member, such as http://127.0.0.1:34567, https://127.0.0.1:34567,
// unix:///tmp/dir/m0.sock or unixs:///tmp/dir/m0.sock. With [WithProxies] it is that of the member's proxy. It stays
// the same for the member's life.
func (m *Member) Endpoint() string { return m.launch.advertiseClient }

// Proxy is what clients reach the member through, or nil without [WithProxies].
func (m *Member) Proxy() *Proxy { return m.proxy }

// LogTail returns the last lines of the member's log, at most a hundred, also of runs before the last restart.
func (m *Member) LogTail() []string { return m.log.lines() }

// Running reports whether the member's server is there, frozen or not.
func (m *Member) Running() bool {
	srv, _ := m.server()
	return srv != nil
}

// server returns the member's server, or nil when there is none or it has ended, and whether it is frozen.
func (m *Member) server() (_ server, frozen bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.srv == nil {
		return nil, false
	}
	select {
	case <-m.srv.done():
		return nil, false
	default:
		return m.srv, m.frozen
	}
}

// Stop asks the member's server to shut down, as an operator would, and waits until it has. A leader first hands over
// its leadership, which takes seconds if no other member answers. When ctx ends first, the server is ended at once
// and the context's error returned. A member that is down already is left so.
func (m *Member) Stop(ctx context.Context) error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	return m.stop(ctx)
}

func (m *Member) stop(ctx context.Context) error {
	srv, frozen := m.server()
	if srv == nil {
		return nil
	}
	if frozen {
		// It would not notice that it is asked to stop.
		if err := m.halt(false); err != nil {
			return err
		}
	}
	if err := srv.stop(ctx); err != nil {
		return fmt.Errorf("etcdtest: stopping member %s: %w", m.name, err)
	}
	return nil
}

// Restart starts the member's server again, with the same data, ports and settings, after shutting it down as
// [Member.Stop] does if it is running. It does not wait until the server is ready, for it may take other members for
// that: see [Member.WaitReady].
func (m *Member) Restart(ctx context.Context) error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if err := m.stop(ctx); err != nil {
		return err
	}
	return m.start()
}

// start starts the server. It is called with ctl held, or before the member is known to anybody else.
func (m *Member) start() error {
	m.mu.Lock()
	closed := m.closed
	m.mu.Unlock()
	if closed {
		return fmt.Errorf("etcdtest: starting member %s: %w", m.name, errClosed)
	}
	m.log.begin()
	begin := startInProcess
	if m.launch.children {
		begin = startChild
	}
	srv, err := begin(&m.launch, m.log)
	if err != nil {
		return m.explain(fmt.Errorf("etcdtest: member %s: %w", m.name, err))
	}

	m.mu.Lock()
	m.srv, m.frozen = srv, false
	closed = m.closed
	m.mu.Unlock()
	if closed {
		// The cluster was closed meanwhile, and close saw no server to end.
		srv.kill()
		return fmt.Errorf("etcdtest: starting member %s: %w", m.name, errClosed)
	}
	return nil
}

var errClosed = errors.New("the cluster is closed")

// Kill ends the member's process at once, as a crash would. It is for child processes only. A member that is down
// already is left so.
func (m *Member) Kill() error {
	c, err := m.child("kill")
	if c != nil {
		c.kill()
	}
	return err
}

// Freeze halts the member's process, as a long pause of its machine would: its connections stay, and nothing comes
// from it. It is for child processes only. A frozen member can still be thawed, stopped, killed and restarted.
func (m *Member) Freeze() error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	return m.halt(true)
}

// Thaw lets a frozen member run on. It is for child processes only.
func (m *Member) Thaw() error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	return m.halt(false)
}

// halt freezes or thaws the server. It is called with ctl held.
func (m *Member) halt(frozen bool) error {
	verb := "thaw"
	if frozen {
		verb = "freeze"
	}
	c, err := m.child(verb)
	if err != nil {
		return err
	}
	if c == nil {
		return fmt.Errorf("etcdtest: cannot %s member %s: it is down", verb, m.name)
	}
	if _, already := m.server(); already == frozen {
		return nil
	}
	if err := c.halt(frozen); err != nil {
		return fmt.Errorf("etcdtest: cannot %s member %s: %w", verb, m.name, err)
	}
	m.mu.Lock()
	m.frozen = frozen
	m.mu.Unlock()
	return nil
}

// child returns the member's server process, or nil when it is down.
func (m *Member) child(verb string) (*child, error) {
	if !m.launch.children {
		return nil, fmt.Errorf("etcdtest: cannot %s member %s: it is not a child process", verb, m.name)
	}
	srv, _ := m.server()
	c, _ := srv.(*child)
	return c, nil
}

// WaitReady waits until the member answers its clients and knows a leader. It fails as soon as the member's server
// has ended.
func (m *Member) WaitReady(ctx context.Context) error {
	if err := m.poll(ctx, m.askReady); err != nil {
		return m.explain(fmt.Errorf("etcdtest: waiting for member %s: %w", m.name, err))
	}
	return nil
}

// waitPeering waits until the member answers its peers.
func (m *Member) waitPeering(ctx context.Context) error {
	if err := m.poll(ctx, m.askPeering); err != nil {
		return m.explain(fmt.Errorf("etcdtest: waiting for member %s: %w", m.name, err))
	}
	return nil
}

// poll asks until the answer is good. It fails when the member's server has ended, or ctx.
func (m *Member) poll(ctx context.Context, ask func(context.Context) error) error {
	m.mu.Lock()
	srv := m.srv
	m.mu.Unlock()
	if srv == nil {
		return errors.New("it was never started")
	}
	return m.c.poll(ctx, srv, ask)
}

// explain adds what the member's log says to an error.
func (m *Member) explain(err error) error {
	lines := m.log.excerpt()
	if len(lines) == 0 {
		return err
	}
	return fmt.Errorf("%w; from its log:\n\t%s", err, strings.Join(lines, "\n\t"))
}

// close ends the member for good.
func (m *Member) close() error {
	m.mu.Lock()
	m.closed = true
	srv := m.srv
	m.mu.Unlock()
	if m.launch.peers != nil {
		m.launch.peers.Cut()
	}
	if srv != nil {
		srv.kill()
	}
	// Somebody may be starting it this moment, and ends it again seeing that it is closed.
	m.ctl.Lock()
	defer m.ctl.Unlock()
	var errs []error
	if m.conn != nil {
		errs = append(errs, m.conn.Close())
	}
	for _, p := range []*Proxy{m.proxy, m.launch.peers} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	for _, p := range m.ports {
		p.release()
	}
	return errors.Join(errs...)
}
