package clientv3

import (
	"context"
	"errors"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// Responses of the Maintenance service: the wire's messages under another name.
type (
	DefragmentResponse pb.DefragmentResponse
	AlarmResponse      pb.AlarmResponse
	AlarmMember        pb.AlarmMember
	StatusResponse     pb.StatusResponse
	HashKVResponse     pb.HashKVResponse
	MoveLeaderResponse pb.MoveLeaderResponse
	DowngradeResponse  pb.DowngradeResponse
)

// DowngradeAction is what Maintenance.Downgrade does.
type DowngradeAction pb.DowngradeRequest_DowngradeAction

const (
	// DowngradeValidate checks whether the cluster can be downgraded to the version.
	DowngradeValidate = DowngradeAction(pb.DowngradeRequest_VALIDATE)
	// DowngradeEnable prepares the cluster for the downgrade.
	DowngradeEnable = DowngradeAction(pb.DowngradeRequest_ENABLE)
	// DowngradeCancel takes back the preparation.
	DowngradeCancel = DowngradeAction(pb.DowngradeRequest_CANCEL)
)

// Maintenance looks after members. Its methods are safe for concurrent use; retries and errors are those of KV. Methods
// with an endpoint speak to that one, over a connection of their own; it need not be one of the client's.
type Maintenance interface {
	// AlarmList returns the active alarms of all members.
	AlarmList(ctx context.Context) (*AlarmResponse, error)

	// AlarmDisarm takes back an alarm of a member, or all active alarms if m is the zero AlarmMember. It returns the
	// alarms taken back.
	AlarmDisarm(ctx context.Context, m *AlarmMember) (*AlarmResponse, error)

	// Defragment releases the free space within the member's database to the file system. The member does not serve
	// meanwhile, which can take long: do it one member after the other.
	Defragment(ctx context.Context, endpoint string) (*DefragmentResponse, error)

	// Status returns the member's state.
	Status(ctx context.Context, endpoint string) (*StatusResponse, error)

	// HashKV returns a hash of the member's keys at the revision, or at the current one if it is 0. Members with the
	// same revision and compaction have the same hash.
	HashKV(ctx context.Context, endpoint string, rev int64) (*HashKVResponse, error)

	// SnapshotWithVersion returns a snapshot of the database of one of the members, with its version. The Snapshot
	// in the response is what Snapshot returns.
	SnapshotWithVersion(ctx context.Context) (*SnapshotResponse, error)

	// Snapshot returns a snapshot of the database of one of the members, followed by its SHA-256 sum. The caller must
	// close it, and read it from one goroutine. It ends with io.EOF only if it is complete; if ctx ends before, or
	// the connection is lost, it ends with the error.
	Snapshot(ctx context.Context) (io.ReadCloser, error)

	// MoveLeader makes the member with the id the leader. It must be sent to the present leader: a client for this
	// call has that endpoint only.
	MoveLeader(ctx context.Context, transfereeID uint64) (*MoveLeaderResponse, error)

	// Downgrade validates, prepares or cancels a downgrade of the cluster to the version, such as "3.6".
	Downgrade(ctx context.Context, action DowngradeAction, version string) (*DowngradeResponse, error)
}

type maintenance struct {
	// dial returns a stub for the one endpoint, and the function that frees it.
	dial     func(endpoint string) (pb.MaintenanceClient, func(), error)
	client   *Client // nil for a Maintenance on a stub of the caller's
	remote   pb.MaintenanceClient
	callOpts []grpc.CallOption
}

// NewMaintenance returns the Maintenance of a client, as the one in its field Maintenance at first.
func NewMaintenance(c *Client) Maintenance {
	return &maintenance{
		dial: func(endpoint string) (pb.MaintenanceClient, func(), error) {
			conn, err := c.Dial(endpoint)
			if err != nil {
				return nil, nil, fmt.Errorf("etcdclient: maintenance of endpoint %q: %w", endpoint, err)
			}
			// Closing says no more than that it is closed already.
			return RetryMaintenanceClient(c, conn), func() { _ = conn.Close() }, nil
		},
		client: c,
		remote: pb.NewMaintenanceClient(c.conn),
	}
}

// NewMaintenanceFromMaintenanceClient returns a Maintenance on the given stub, which calls with an endpoint go to
// whatever the endpoint. Calls are made once. The client's limits on message sizes are passed to the stub; c may be
// nil.
func NewMaintenanceFromMaintenanceClient(remote pb.MaintenanceClient, c *Client) Maintenance {
	return &maintenance{
		dial:     func(string) (pb.MaintenanceClient, func(), error) { return remote, func() {}, nil },
		remote:   remote,
		callOpts: c.callOptions(),
	}
}

func (m *maintenance) AlarmList(ctx context.Context) (*AlarmResponse, error) {
	req := &pb.AlarmRequest{Action: pb.AlarmRequest_GET}
	resp, err := m.remote.Alarm(ctx, req, m.callOpts...)
	return (*AlarmResponse)(resp), ContextError(ctx, err)
}

func (m *maintenance) AlarmDisarm(ctx context.Context, am *AlarmMember) (*AlarmResponse, error) {
	if am.MemberID != 0 || am.Alarm != pb.AlarmType_NONE {
		return m.disarm(ctx, am)
	}
	active, err := m.AlarmList(ctx)
	if err != nil {
		return nil, err
	}
	disarmed := &AlarmResponse{}
	for _, alarm := range active.Alarms {
		resp, err := m.disarm(ctx, (*AlarmMember)(alarm))
		if err != nil {
			return nil, err
		}
		disarmed.Header = resp.Header
		disarmed.Alarms = append(disarmed.Alarms, resp.Alarms...)
	}
	return disarmed, nil
}

func (m *maintenance) disarm(ctx context.Context, am *AlarmMember) (*AlarmResponse, error) {
	req := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: am.MemberID, Alarm: am.Alarm}
	resp, err := m.remote.Alarm(ctx, req, m.callOpts...)
	return (*AlarmResponse)(resp), ContextError(ctx, err)
}

func (m *maintenance) Defragment(ctx context.Context, endpoint string) (*DefragmentResponse, error) {
	remote, free, err := m.dial(endpoint)
	if err != nil {
		return nil, err
	}
	defer free()
	resp, err := remote.Defragment(ctx, &pb.DefragmentRequest{}, m.callOpts...)
	return (*DefragmentResponse)(resp), ContextError(ctx, err)
}

func (m *maintenance) Status(ctx context.Context, endpoint string) (*StatusResponse, error) {
	remote, free, err := m.dial(endpoint)
	if err != nil {
		return nil, err
	}
	defer free()
	resp, err := remote.Status(ctx, &pb.StatusRequest{}, m.callOpts...)
	return (*StatusResponse)(resp), ContextError(ctx, err)
}

func (m *maintenance) HashKV(ctx context.Context, endpoint string, rev int64) (*HashKVResponse, error) {
	remote, free, err := m.dial(endpoint)
	if err != nil {
		return nil, err
	}
	defer free()
	resp, err := remote.HashKV(ctx, &pb.HashKVRequest{Revision: rev}, m.callOpts...)
	return (*HashKVResponse)(resp), ContextError(ctx, err)
}

func (m *maintenance) MoveLeader(ctx context.Context, transfereeID uint64) (*MoveLeaderResponse, error) {
	resp, err := m.remote.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: transfereeID}, m.callOpts...)
	return (*MoveLeaderResponse)(resp), ContextError(ctx, err)
}

func (m *maintenance) Downgrade(ctx context.Context, action DowngradeAction, version string,
) (*DowngradeResponse, error) {
	req := &pb.DowngradeRequest{Action: pb.DowngradeRequest_DowngradeAction(action), Version: version}
	switch action {
	case DowngradeValidate, DowngradeEnable, DowngradeCancel:
	default:
		return nil, errors.New("etcdclient: unknown downgrade action")
	}
	resp, err := m.remote.Downgrade(ctx, req, m.callOpts...)
	return (*DowngradeResponse)(resp), ContextError(ctx, err)
}
