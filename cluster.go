package clientv3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3/internal/retry"
)

// Members and responses of the Cluster service: the wire's messages under another name.
type (
	Member                pb.Member
	MemberListResponse    pb.MemberListResponse
	MemberAddResponse     pb.MemberAddResponse
	MemberRemoveResponse  pb.MemberRemoveResponse
	MemberUpdateResponse  pb.MemberUpdateResponse
	MemberPromoteResponse pb.MemberPromoteResponse
)

// Cluster reads and changes the membership of the cluster. Its methods are safe for concurrent use; retries and errors
// are those of KV.
type Cluster interface {
	// MemberList lists the members, by default as the whole cluster knows them; with WithSerializable as the member
	// that is asked does.
	MemberList(ctx context.Context, opts ...OpOption) (*MemberListResponse, error)

	// MemberAdd adds a voting member with the given peer URLs. It, MemberAddAsLearner and MemberUpdate refuse URLs that
	// a member cannot have before anything is sent: they need a scheme, http, https, unix or unixs, and host:port, and
	// have no path.
	MemberAdd(ctx context.Context, peerAddrs []string) (*MemberAddResponse, error)

	// MemberAddAsLearner adds a member without a vote, which MemberPromote can give one later.
	MemberAddAsLearner(ctx context.Context, peerAddrs []string) (*MemberAddResponse, error)

	// MemberRemove removes a member by its id.
	MemberRemove(ctx context.Context, id uint64) (*MemberRemoveResponse, error)

	// MemberUpdate replaces the peer URLs of a member.
	MemberUpdate(ctx context.Context, id uint64, peerAddrs []string) (*MemberUpdateResponse, error)

	// MemberPromote gives a learner that has caught up with the leader a vote.
	MemberPromote(ctx context.Context, id uint64) (*MemberPromoteResponse, error)
}

type cluster struct {
	remote   pb.ClusterClient
	callOpts []grpc.CallOption
}

// NewCluster returns the Cluster of a client, as the one in its field Cluster at first.
func NewCluster(c *Client) Cluster {
	return &cluster{remote: RetryClusterClient(c)}
}

// NewClusterFromClusterClient returns a Cluster on the given stub. Calls are made once. The client's limits on message
// sizes are passed to the stub; c may be nil.
func NewClusterFromClusterClient(remote pb.ClusterClient, c *Client) Cluster {
	return &cluster{remote: remote, callOpts: c.callOptions()}
}

func (c *cluster) MemberList(ctx context.Context, opts ...OpOption) (*MemberListResponse, error) {
	op := Op{}.with(opts)
	resp, err := c.remote.MemberList(ctx, &pb.MemberListRequest{Linearizable: !op.IsSerializable()}, c.callOpts...)
	return (*MemberListResponse)(resp), ContextError(ctx, err)
}

func (c *cluster) MemberAdd(ctx context.Context, peerAddrs []string) (*MemberAddResponse, error) {
	return c.add(ctx, peerAddrs, false)
}

func (c *cluster) MemberAddAsLearner(ctx context.Context, peerAddrs []string) (*MemberAddResponse, error) {
	return c.add(ctx, peerAddrs, true)
}

func (c *cluster) add(ctx context.Context, peerAddrs []string, learner bool) (*MemberAddResponse, error) {
	if err := checkPeerURLs(peerAddrs); err != nil {
		return nil, &retry.UnsentError{Err: err}
	}
	resp, err := c.remote.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: peerAddrs, IsLearner: learner}, c.callOpts...)
	return (*MemberAddResponse)(resp), ContextError(ctx, err)
}

func (c *cluster) MemberRemove(ctx context.Context, id uint64) (*MemberRemoveResponse, error) {
	resp, err := c.remote.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id}, c.callOpts...)
	return (*MemberRemoveResponse)(resp), ContextError(ctx, err)
}

func (c *cluster) MemberUpdate(ctx context.Context, id uint64, peerAddrs []string) (*MemberUpdateResponse, error) {
	if err := checkPeerURLs(peerAddrs); err != nil {
		return nil, &retry.UnsentError{Err: err}
	}
	resp, err := c.remote.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: peerAddrs}, c.callOpts...)
	return (*MemberUpdateResponse)(resp), ContextError(ctx, err)
}

func (c *cluster) MemberPromote(ctx context.Context, id uint64) (*MemberPromoteResponse, error) {
	resp, err := c.remote.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id}, c.callOpts...)
	return (*MemberPromoteResponse)(resp), ContextError(ctx, err)
}

// checkPeerURLs returns an error if one of the URLs cannot be that of a member. The server has the same rules, but does
// not say what is wrong.
func checkPeerURLs(urls []string) error {
	if len(urls) == 0 {
		return errors.New("no valid URLs given")
	}
	for _, s := range urls {
		s = strings.TrimSpace(s)
		u, err := url.Parse(s)
		if err != nil {
			return err
		}
		switch u.Scheme {
		case "http", "https":
			if _, _, err := net.SplitHostPort(u.Host); err != nil {
				return fmt.Errorf(`URL address does not have the form "host:port": %s`, s)
			}
			if u.Path != "" {
				return fmt.Errorf("URL must not contain a path: %s", s)
			}
		case "unix", "unixs":
		default:
			return fmt.Errorf("URL scheme must be http, https, unix, or unixs: %s", s)
		}
	}
	return nil
}
