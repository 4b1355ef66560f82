package etcdtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// pollInterval is how often a member is asked whether it is ready yet.
const pollInterval = 10 * time.Millisecond

// askTimeout bounds one question to one member, which may be frozen.
const askTimeout = time.Second

// Dial opens a connection to the member itself, past its proxy, so that it works and is not counted whatever is done
// to the proxy. It trusts any certificate of the member, shows the cluster's client certificate if there is one, and
// with authentication its calls are those of [Root]. It does not wait for the connection to be there. The caller
// closes it.
func (m *Member) Dial(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if m.c.ca != nil {
		//nolint:gosec // A test may have given the members a bad certificate.
		cfg := &tls.Config{InsecureSkipVerify: true}
		if m.c.clientCert != nil {
			cfg.Certificates = []tls.Certificate{m.c.clientCert.TLS}
		}
		creds = credentials.NewTLS(cfg)
	}
	base := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, m.network, m.served)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: pollInterval, Multiplier: 1.6, MaxDelay: 10 * pollInterval},
			MinConnectTimeout: askTimeout,
		}),
	}
	if m.c.opts.auth != nil {
		root := &rootAuth{m: m}
		base = append(base, grpc.WithChainUnaryInterceptor(root.unary), grpc.WithChainStreamInterceptor(root.stream))
	}
	conn, err := grpc.NewClient("passthrough:///"+m.name, append(base, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("etcdtest: dialing member %s: %w", m.name, err)
	}
	return conn, nil
}

// status asks the member how it is. The answer comes from the member alone: it needs neither a quorum nor a leader.
func (m *Member) status(ctx context.Context) (*pb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st, err := pb.NewMaintenanceClient(m.conn).Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", m.name, err)
	}
	m.setID(st.Header.MemberId)
	return st, nil
}

// askReady fails unless the member answers its clients and knows a leader.
func (m *Member) askReady(ctx context.Context) error {
	st, err := m.status(ctx)
	if err == nil && st.Leader == 0 {
		err = fmt.Errorf("member %s knows no leader", m.name)
	}
	return err
}

// askPeering fails unless the member answers its peers.
func (m *Member) askPeering(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.launch.listenPeer+"/version", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// poll calls ask, with pauses, until it succeeds. It fails when ctx ends, or the cluster, or srv, which may be nil.
func (c *Cluster) poll(ctx context.Context, srv server, ask func(context.Context) error) error {
	var done <-chan struct{}
	if srv != nil {
		done = srv.done()
	}
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		t := time.NewTimer(pollInterval)
		select {
		case <-t.C:
		case <-done:
			t.Stop()
			return srv.err()
		case <-c.closing:
			t.Stop()
			return errClosed
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		}
	}
}
