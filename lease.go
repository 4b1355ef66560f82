package clientv3

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3/internal/renew"
)

// LeaseRevokeResponse is the wire's message under another name.
type LeaseRevokeResponse pb.LeaseRevokeResponse

// LeaseID identifies a lease in the cluster.
type LeaseID int64

// NoLease is the id of no lease.
const NoLease LeaseID = 0

// MaxLeaseTTL is the largest time to live in seconds that servers grant.
const MaxLeaseTTL = 9000000000

// LeaseResponseChSize is the number of responses that a channel of KeepAlive holds. When it is full further ones are
// dropped; the lease is renewed all the same. It is read when KeepAlive is called.
var LeaseResponseChSize = 16

// LeaseGrantResponse is the response to a Grant.
type LeaseGrantResponse struct {
	*pb.ResponseHeader
	ID    LeaseID
	TTL   int64 // in seconds; the server may have chosen another than was asked for
	Error string
}

// LeaseKeepAliveResponse is the response to a renewal.
type LeaseKeepAliveResponse struct {
	*pb.ResponseHeader
	ID  LeaseID
	TTL int64 // in seconds, from the renewal on
}

// LeaseTimeToLiveResponse is the response to a TimeToLive.
type LeaseTimeToLiveResponse struct {
	*pb.ResponseHeader
	ID LeaseID `json:"id"`
	// TTL is the time left in seconds; the lease ends within TTL+1 seconds. It is -1 if there is no such lease.
	TTL int64 `json:"ttl"`
	// GrantedTTL is the time to live in seconds that the lease was granted, and gets with each renewal.
	GrantedTTL int64 `json:"granted-ttl"`
	// Keys are the keys attached to the lease, with WithAttachedKeys.
	Keys [][]byte `json:"keys"`
}

// LeaseStatus is a lease in a list of leases.
type LeaseStatus struct {
	ID LeaseID `json:"id"`
}

// LeaseLeasesResponse is the response to a Leases.
type LeaseLeasesResponse struct {
	*pb.ResponseHeader
	Leases []LeaseStatus `json:"leases"`
}

// LeaseOp is what LeaseOptions set.
type LeaseOp struct {
	attachedKeys bool
}

// LeaseOption is an option of TimeToLive.
type LeaseOption func(*LeaseOp)

// WithAttachedKeys makes TimeToLive return the keys attached to the lease.
func WithAttachedKeys() LeaseOption {
	return func(op *LeaseOp) { op.attachedKeys = true }
}

type leaseIDKey struct{}

// WithLeaseID returns a context in which Grant asks for a lease with the given id instead of leaving the choice to the
// server. If there is such a lease already, Grant fails with rpctypes.ErrLeaseExist; so a Grant of which nobody knows
// whether it was carried out can be repeated. NoLease leaves the choice to the server.
func WithLeaseID(ctx context.Context, id LeaseID) context.Context {
	return context.WithValue(ctx, leaseIDKey{}, id)
}

// ErrKeepAliveHalted is what KeepAlive returns once the client's renewals have ended for good.
type ErrKeepAliveHalted struct {
	Reason error
}

// Error returns the message with the reason.
func (e ErrKeepAliveHalted) Error() string {
	s := "etcdclient: leases keep alive halted"
	if e.Reason != nil {
		s += ": " + e.Reason.Error()
	}
	return s
}

// Unwrap returns the reason.
func (e ErrKeepAliveHalted) Unwrap() error { return e.Reason }

// Lease grants leases and keeps them alive. A lease is a time to live that keys can be attached to (WithLease); when it
// ends, they are deleted. Its methods are safe for concurrent use; retries and errors of the unary ones are those of
// KV.
type Lease interface {
	// Grant makes a lease with the given time to live in seconds.
	Grant(ctx context.Context, ttl int64) (*LeaseGrantResponse, error)

	// Revoke ends a lease and deletes its keys. The channels of KeepAlive for it, of this Lease, are closed then.
	Revoke(ctx context.Context, id LeaseID) (*LeaseRevokeResponse, error)

	// TimeToLive returns how long a lease has left. That there is no such lease is told by a TTL of -1.
	TimeToLive(ctx context.Context, id LeaseID, opts ...LeaseOption) (*LeaseTimeToLiveResponse, error)

	// Leases lists all leases.
	Leases(ctx context.Context) (*LeaseLeasesResponse, error)

	// KeepAlive renews the lease until ctx ends, without waiting for the server. The channel, of LeaseResponseChSize
	// places, gets the responses; a program that does not read it loses nothing but these. It is closed when ctx has
	// ended, the lease is gone (then without the responses that were not read yet), its time to live has passed without
	// a renewal that succeeded, or Close was called.
	// After Close it returns ErrKeepAliveHalted and a closed channel.
	KeepAlive(ctx context.Context, id LeaseID) (<-chan *LeaseKeepAliveResponse, error)

	// KeepAliveOnce renews the lease once. If there is no such lease it returns rpctypes.ErrLeaseNotFound.
	KeepAliveOnce(ctx context.Context, id LeaseID) (*LeaseKeepAliveResponse, error)

	// Close ends all renewals, without revoking a lease, and returns when their goroutines have ended.
	Close() error
}

type lessor struct {
	client   *Client // nil for a Lease on a stub of the caller's
	remote   pb.LeaseClient
	callOpts []grpc.CallOption
	engine   *renew.Engine
	unfollow func() bool // ends following the client's context; nil without client
}

// NewLease returns the Lease of a client, as the one in its field Lease at first. It must be closed unless it replaces
// that one.
func NewLease(c *Client) Lease {
	// The official client's bound for the first renewal: the time to connect and a second.
	return newLessor(RetryLeaseClient(c), c, c, c.cfg.DialTimeout+time.Second)
}

// NewLeaseFromLeaseClient returns a Lease on the given stub. Its unary calls are made once. KeepAliveTimeout is how
// long a lease is kept trying whose first renewal is not answered; 0, and 1 s, mean 5 s. The Lease must be closed; it
// ends with the client too. The client's limits on message sizes are passed to the stub; c may be nil.
func NewLeaseFromLeaseClient(remote pb.LeaseClient, c *Client, keepAliveTimeout time.Duration) Lease {
	return newLessor(remote, nil, c, keepAliveTimeout)
}

// newLessor returns a lessor on the stub. Connected is the client if the stub is on its connection, owner the client
// whose configuration and lifetime are shared.
func newLessor(remote pb.LeaseClient, connected, owner *Client, keepAliveTimeout time.Duration) *lessor {
	l := &lessor{client: connected, remote: remote}
	cfg := renew.Config{Client: remote, FirstTimeout: keepAliveTimeout}
	if keepAliveTimeout == time.Second {
		cfg.FirstTimeout = 0 // the engine's default
	}
	if owner != nil {
		cfg.Logger = owner.GetLogger()
	}
	if connected != nil {
		cfg.Reauthenticate = connected.reauthenticator()
		cfg.NoLeaderLimit = connected.endpoints.Size
	} else {
		l.callOpts = owner.callOptions()
		cfg.CallOptions = l.callOpts
	}
	l.engine = renew.New(cfg)
	if owner != nil {
		l.unfollow = context.AfterFunc(owner.ctx, func() { _ = l.engine.Close() })
	}
	return l
}

func (l *lessor) Grant(ctx context.Context, ttl int64) (*LeaseGrantResponse, error) {
	id, _ := ctx.Value(leaseIDKey{}).(LeaseID)
	resp, err := l.remote.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl, ID: int64(id)}, l.callOpts...)
	if err != nil {
		return nil, ContextError(ctx, err)
	}
	return &LeaseGrantResponse{
		ResponseHeader: resp.GetHeader(), ID: LeaseID(resp.ID), TTL: resp.TTL, Error: resp.Error,
	}, nil
}

func (l *lessor) Revoke(ctx context.Context, id LeaseID) (*LeaseRevokeResponse, error) {
	resp, err := l.remote.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: int64(id)}, l.callOpts...)
	err = ContextError(ctx, err)
	if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		l.engine.Gone(int64(id))
	}
	return (*LeaseRevokeResponse)(resp), err
}

func (l *lessor) TimeToLive(ctx context.Context, id LeaseID, opts ...LeaseOption) (*LeaseTimeToLiveResponse, error) {
	var op LeaseOp
	for _, opt := range opts {
		opt(&op)
	}
	req := &pb.LeaseTimeToLiveRequest{ID: int64(id), Keys: op.attachedKeys}
	resp, err := l.remote.LeaseTimeToLive(ctx, req, l.callOpts...)
	if err != nil {
		return nil, ContextError(ctx, err)
	}
	return &LeaseTimeToLiveResponse{
		ResponseHeader: resp.GetHeader(), ID: LeaseID(resp.ID), TTL: resp.TTL, GrantedTTL: resp.GrantedTTL, Keys: resp.Keys,
	}, nil
}

func (l *lessor) Leases(ctx context.Context) (*LeaseLeasesResponse, error) {
	resp, err := l.remote.LeaseLeases(ctx, &pb.LeaseLeasesRequest{}, l.callOpts...)
	if err != nil {
		return nil, ContextError(ctx, err)
	}
	leases := make([]LeaseStatus, len(resp.Leases))
	for i, status := range resp.Leases {
		leases[i] = LeaseStatus{ID: LeaseID(status.GetID())}
	}
	return &LeaseLeasesResponse{ResponseHeader: resp.GetHeader(), Leases: leases}, nil
}

func (l *lessor) KeepAlive(ctx context.Context, id LeaseID) (<-chan *LeaseKeepAliveResponse, error) {
	ch := make(keepAliveSink, LeaseResponseChSize)
	if err := l.engine.KeepAlive(ctx, int64(id), ch); err != nil {
		close(ch)
		return ch, ErrKeepAliveHalted{Reason: err}
	}
	return ch, nil
}

// keepAliveSink is the channel of a KeepAlive as the renewal engine sees it.
type keepAliveSink chan *LeaseKeepAliveResponse

// Offer passes on a response if there is room for it.
func (s keepAliveSink) Offer(resp *pb.LeaseKeepAliveResponse) {
	if len(s) == cap(s) && cap(s) > 0 {
		return // full, and the engine is the only sender: spare the conversion
	}
	select {
	case s <- toKeepAliveResponse(resp):
	default:
	}
}

// Close closes the channel. If the lease is gone, its reader is not first told of a life that is over.
func (s keepAliveSink) Close(reason error) {
	if errors.Is(reason, rpctypes.ErrLeaseNotFound) {
		for len(s) > 0 {
			select {
			case <-s:
			default: // taken by the reader in between
			}
		}
	}
	close(s)
}

func toKeepAliveResponse(resp *pb.LeaseKeepAliveResponse) *LeaseKeepAliveResponse {
	return &LeaseKeepAliveResponse{ResponseHeader: resp.GetHeader(), ID: LeaseID(resp.GetID()), TTL: resp.GetTTL()}
}

func (l *lessor) KeepAliveOnce(ctx context.Context, id LeaseID) (*LeaseKeepAliveResponse, error) {
	var resp *pb.LeaseKeepAliveResponse
	renewOnce := func(ctx context.Context) error {
		// The stream is for this one renewal; ending its context frees it.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := l.remote.LeaseKeepAlive(ctx, l.callOpts...)
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
			// An error of the stream is io.EOF here; Recv tells which.
			if _, recvErr := stream.Recv(); recvErr != nil {
				return recvErr
			}
			return err
		}
		resp, err = stream.Recv()
		return err
	}
	// A renewal may be repeated as a read may: it does no harm to have made it twice.
	if err := l.client.retryStream(ctx, pb.Lease_LeaseKeepAlive_FullMethodName, true, renewOnce); err != nil {
		return nil, ContextError(ctx, err)
	}
	if resp.TTL <= 0 {
		return nil, rpctypes.ErrLeaseNotFound
	}
	return toKeepAliveResponse(resp), nil
}

func (l *lessor) Close() error {
	if l.unfollow != nil {
		l.unfollow()
	}
	return l.engine.Close()
}
