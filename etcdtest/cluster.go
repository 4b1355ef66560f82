package etcdtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// startTimeout bounds a start whose context has no deadline.
const startTimeout = time.Minute

// A Cluster is a running etcd cluster. Its methods are safe for concurrent use.
type Cluster struct {
	opts       *options
	dir        string
	temporary  bool
	out        *logOutput
	ca         *CA   // nil without TLS
	serverCert *Cert // nil without TLS
	clientCert *Cert // nil without mutual TLS
	authToken  string

	authEnabled atomic.Bool
	raft        raftLinks

	mu      sync.Mutex
	members []*Member
	named   int // members that there ever were

	closing chan struct{} // closed when Close begins

	once     sync.Once
	closeErr error
}

// Run starts a cluster for a test, waits until it is ready, and closes it when the test and its subtests are over. It
// ends the test when the cluster does not start.
func Run(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Start starts a cluster and waits until it is ready: each member answers its clients and knows a leader. The context
// bounds the start only, and no start takes longer than a minute; the cluster runs until it is closed. When Start
// fails, nothing is left behind, and the error has the last log lines of a member that did not start.
func Start(ctx context.Context, opts ...Option) (*Cluster, error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, fmt.Errorf("etcdtest: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	c := &Cluster{opts: o, out: &logOutput{w: o.logs}, closing: make(chan struct{})}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.prepare(); err != nil {
		return err
	}
	for range c.opts.members {
		m, err := c.newMember()
		if err != nil {
			return err
		}
		if err := c.admit(m); err != nil {
			return errors.Join(err, m.close())
		}
	}
	members := c.Members()
	initial := make([]string, len(members))
	for i, m := range members {
		initial[i] = m.name + "=" + m.launch.advertisePeer
	}
	for _, m := range members {
		m.launch.initialCluster = strings.Join(initial, ",")
	}
	// One after the other: members that start at the same time each wait a second for each other's answer to the
	// question whether there is a cluster already, which none gives before it has asked the others.
	for _, m := range members {
		if err := m.start(); err != nil {
			return err
		}
		if err := m.waitPeering(ctx); err != nil {
			return err
		}
	}
	if err := each(members, func(_ int, m *Member) error { return m.WaitReady(ctx) }); err != nil {
		return err
	}
	if c.opts.auth != nil {
		return c.enableAuth(ctx)
	}
	return nil
}

// prepare makes what all members share: the directory and the certificates.
func (c *Cluster) prepare() (err error) {
	c.dir = c.opts.dataDir
	if c.dir == "" {
		// Not the test's own temporary directory: the path of a unix socket has to be short.
		c.temporary = true
		if c.dir, err = os.MkdirTemp("", "etcdtest"); err != nil {
			return fmt.Errorf("etcdtest: %w", err)
		}
	}
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return fmt.Errorf("etcdtest: %w", err)
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("etcdtest: %w", err)
	}
	if c.opts.auth != nil {
		if c.authToken, err = c.opts.auth.token(c.dir); err != nil {
			return err
		}
	}
	if !c.opts.tls {
		return nil
	}
	certs := filepath.Join(c.dir, "certs")
	if err := os.MkdirAll(certs, 0o700); err != nil {
		return fmt.Errorf("etcdtest: %w", err)
	}
	if c.ca, err = NewCA(certs); err != nil {
		return err
	}
	if c.serverCert, err = c.ca.Issue(c.opts.serverCrt); err != nil {
		return err
	}
	if c.opts.clientTLS {
		c.clientCert, err = c.ca.Issue(CertSpec{})
	}
	return err
}

// newMember makes a member ready to be started, except for launch.initialCluster. It is not on the list yet.
func (c *Cluster) newMember() (_ *Member, err error) {
	c.mu.Lock()
	name := fmt.Sprintf("m%d", c.named)
	c.named++
	c.mu.Unlock()

	m := &Member{c: c, name: name, log: &memberLog{name: name, out: c.out}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("etcdtest: member %s: %w", name, err), m.close())
		}
	}()
	m.launch = launch{
		options:   c.opts,
		name:      name,
		dir:       filepath.Join(c.dir, name),
		token:     filepath.Base(c.dir),
		cert:      c.serverCert,
		authToken: c.authToken,
	}
	if c.clientCert != nil {
		m.launch.caFile = c.ca.CertFile()
	}
	if err := m.addressPeers(); err != nil {
		return nil, err
	}
	if err := m.addressClients(); err != nil {
		return nil, err
	}
	if m.conn, err = m.Dial(); err != nil {
		return nil, err
	}

	return m, nil
}

// admit puts a member on the list. From then on Close ends it; before, whoever made it does.
func (c *Cluster) admit(m *Member) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closing:
		return fmt.Errorf("etcdtest: member %s: %w", m.name, errClosed)
	default:
		c.members = append(c.members, m)
		return nil
	}
}

// addressPeers chooses where the member listens for its peers, and what it tells them.
func (m *Member) addressPeers() error {
	addr, err := m.reserve()
	if err != nil {
		return err
	}
	m.launch.listenPeer = "http://" + addr
	if m.c.opts.peerProxies || !m.c.opts.children {
		// Between members in process there always is one, to break their connections off at the end. Left to
		// themselves, some stay for five seconds: an HTTP server that wants to stop reading sets a read deadline in the
		// past, and etcd's connections put theirs in its place.
		listen := net.JoinHostPort(m.c.opts.host, "0")
		if m.launch.peers, err = newProxy("tcp", listen, addr, m.carries); err != nil {
			return err
		}
		addr = m.launch.peers.Addr()
	}
	m.launch.advertisePeer = "http://" + addr
	return nil
}

// addressClients chooses where the member listens for clients, and what it tells them.
func (m *Member) addressClients() (err error) {
	scheme, proxied := "http", net.JoinHostPort(m.c.opts.host, "0")
	m.network = "tcp"
	if m.c.opts.unix {
		scheme, proxied = "unix", filepath.Join(m.c.dir, m.name+"-proxy.sock")
		m.network, m.served = "unix", filepath.Join(m.c.dir, m.name+".sock")
	} else if m.served, err = m.reserve(); err != nil {
		return err
	}
	if m.c.ca != nil {
		scheme += "s"
	}
	m.launch.listenClient = scheme + "://" + m.served
	m.launch.advertiseClient = m.launch.listenClient
	if m.c.opts.proxies {
		if m.proxy, err = newProxy(m.network, proxied, m.served, nil); err != nil {
			return err
		}
		m.launch.advertiseClient = scheme + "://" + m.proxy.Addr()
	}
	return nil
}

// reserve takes a port for the member's life.
func (m *Member) reserve() (addr string, err error) {
	r, err := reserve(m.c.opts.host)
	if err != nil {
		return "", err
	}
	m.ports = append(m.ports, r)
	return r.addr, nil
}

// Members returns the cluster's members. The slice is the caller's.
func (c *Cluster) Members() []*Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Member(nil), c.members...)
}

// Member returns the i-th member, counted from 0. It panics when there is none.
func (c *Cluster) Member(i int) *Member { return c.Members()[i] }

// Endpoints returns the members' URLs for clients, in order. See [Member.Endpoint] for their forms.
func (c *Cluster) Endpoints() []string {
	var eps []string
	for _, m := range c.Members() {
		eps = append(eps, m.Endpoint())
	}
	return eps
}

// CA returns the authority that the members' and clients' certificates come from, or nil without TLS. More
// certificates can be had of it.
func (c *Cluster) CA() *CA { return c.ca }

// ClientCert returns a certificate which the members accept from clients, or nil without mutual TLS.
func (c *Cluster) ClientCert() *Cert { return c.clientCert }

// ClientTLS returns a new configuration for clients of the cluster, or nil without TLS. It trusts the cluster's
// authority and, with mutual TLS, has a client certificate.
func (c *Cluster) ClientTLS() *tls.Config {
	if c.ca == nil {
		return nil
	}
	cfg := &tls.Config{RootCAs: c.ca.Pool(), MinVersion: tls.VersionTLS12}
	if c.clientCert != nil {
		cfg.Certificates = []tls.Certificate{c.clientCert.TLS}
	}
	return cfg
}

// WaitReady waits until each member answers its clients and knows a leader. Those that are down or frozen are not
// waited for.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return each(c.Members(), func(_ int, m *Member) error {
		srv, frozen := m.server()
		if srv == nil || frozen {
			return nil
		}
		return m.WaitReady(ctx)
	})
}

// Close ends all members at once, closes the proxies and removes the cluster's files, unless they are in a directory
// given by [WithDataDir]. It may be called more than once; each call waits for the end and returns the same error.
func (c *Cluster) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		close(c.closing)
		members := c.members
		c.mu.Unlock()
		err := each(members, func(_ int, m *Member) error { return m.close() })
		c.out.close()
		if c.temporary && c.dir != "" {
			err = errors.Join(err, os.RemoveAll(c.dir))
		}
		if err != nil {
			c.closeErr = fmt.Errorf("etcdtest: closing the cluster: %w", err)
		}
	})
	return c.closeErr
}

// each calls f for all members at once and waits.
func each(members []*Member, f func(int, *Member) error) error {
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = f(i, m) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
