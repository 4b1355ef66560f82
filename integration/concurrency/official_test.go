package concurrency

import (
	"testing"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"

	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

// newOwnEnv is newEnv with a cluster of its own, in a process of its own, for the official client there does not end with
// its server.
func newOwnEnv(t *testing.T) *env {
	t.Helper()
	cluster := etcdtest.Run(t, etcdtest.WithChildProcesses())
	return &env{Client: shared.ClientFor(t, cluster), cluster: cluster, ctx: shared.Context(t), prefix: "test"}
}

// The server's lock service is made of the official client, so this is one program of each kind at one lock.
func TestLockIsSharedWithTheOfficialClient(t *testing.T) {
	e := newOwnEnv(t)
	conn, err := e.cluster.Member(0).Dial()
	shared.Must(t, err)
	defer func() { _ = conn.Close() }()
	theirs := v3lockpb.NewLockClient(conn)
	lease := shared.Session(t, e.Client).Lease()
	req := &v3lockpb.LockRequest{Name: []byte(e.prefix), Lease: int64(lease)}
	ours := concurrency.NewMutex(shared.Session(t, e.Client), e.prefix)

	shared.Must(t, ours.Lock(e.ctx))
	var resp *v3lockpb.LockResponse
	waiting := shared.Background(func() (err error) { resp, err = theirs.Lock(e.ctx, req); return err })
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	select {
	case err := <-waiting:
		t.Fatalf("the official client has our lock: %v", err)
	default:
	}
	shared.Must(t, ours.Unlock(e.ctx))
	shared.Must(t, shared.Result(e.ctx, t, waiting))

	wantIs(t, ours.TryLock(e.ctx), concurrency.ErrLocked)
	waiting = shared.Background(func() error { return ours.Lock(e.ctx) })
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	select {
	case err := <-waiting:
		t.Fatalf("we have the official client's lock: %v", err)
	default:
	}
	_, err = theirs.Unlock(e.ctx, &v3lockpb.UnlockRequest{Key: resp.Key})
	shared.Must(t, err)
	shared.Must(t, shared.Result(e.ctx, t, waiting))

	// One lease is one owner, whoever asks.
	shared.Must(t, ours.Unlock(e.ctx))
	resp, err = theirs.Lock(e.ctx, req)
	shared.Must(t, err)
	same := concurrency.NewMutex(shared.Session(t, e.Client, concurrency.WithLease(lease)), e.prefix)
	shared.Must(t, same.TryLock(e.ctx))
	if same.Key() != string(resp.Key) {
		t.Errorf("our key %q, theirs %q", same.Key(), resp.Key)
	}
}

// So is its election service.
func TestElectionIsSharedWithTheOfficialClient(t *testing.T) {
	e := newOwnEnv(t)
	conn, err := e.cluster.Member(0).Dial()
	shared.Must(t, err)
	defer func() { _ = conn.Close() }()
	theirs := v3electionpb.NewElectionClient(conn)
	lease := shared.Session(t, e.Client).Lease()
	ours := concurrency.NewElection(shared.Session(t, e.Client), e.prefix)
	ourReports := ours.Observe(e.ctx)
	theirReports, err := theirs.Observe(e.ctx, &v3electionpb.LeaderRequest{Name: []byte(e.prefix)})
	shared.Must(t, err)
	reported := func(value string) {
		t.Helper()
		if resp := <-ourReports; resp == nil || string(resp.Kvs[0].Value) != value {
			t.Fatalf("we observe %v, want %s", resp, value)
		}
		if resp, err := theirReports.Recv(); err != nil || string(resp.Kv.Value) != value {
			t.Fatalf("the official client observes %v, %v, want %s", resp, err, value)
		}
	}

	shared.Must(t, ours.Campaign(e.ctx, "ours"))
	reported("ours")
	var resp *v3electionpb.CampaignResponse
	waiting := shared.Background(func() (err error) {
		req := &v3electionpb.CampaignRequest{Name: []byte(e.prefix), Lease: int64(lease), Value: []byte("theirs")}
		resp, err = theirs.Campaign(e.ctx, req)
		return err
	})
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	shared.Must(t, ours.Resign(e.ctx))
	shared.Must(t, shared.Result(e.ctx, t, waiting))
	reported("theirs")

	waiting = shared.Background(func() error { return ours.Campaign(e.ctx, "ours again") })
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	_, err = theirs.Proclaim(e.ctx, &v3electionpb.ProclaimRequest{Leader: resp.Leader, Value: []byte("proclaimed")})
	shared.Must(t, err)
	reported("proclaimed")
	_, err = theirs.Resign(e.ctx, &v3electionpb.ResignRequest{Leader: resp.Leader})
	shared.Must(t, err)
	shared.Must(t, shared.Result(e.ctx, t, waiting))
	reported("ours again")
}
