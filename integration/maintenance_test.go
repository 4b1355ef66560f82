package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/servers"
)

func TestStatus(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		var leader uint64
		for i, ep := range e.cluster.Endpoints() {
			st, err := e.Status(e.ctx, ep)
			if err != nil {
				t.Fatal(err)
			}
			checkHeader(t, st.Header)
			if id := e.cluster.Member(i).ID(); st.Header.MemberId != id {
				t.Errorf("%s is %x, not %x", ep, st.Header.MemberId, id)
			}
			if st.Version != servers.Version(t) || st.DbSize <= 0 || st.RaftIndex == 0 || st.Leader == 0 || st.IsLearner {
				t.Errorf("%s: %v", ep, st)
			}
			if leader != 0 && st.Leader != leader {
				t.Errorf("leaders %x and %x", leader, st.Leader)
			}
			leader = st.Leader
		}
	})
}

func TestHashKV(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		rev := e.put(t, e.prefix, "1")
		e.catchUp(t)
		hashed := rev
		if !servers.Has(t, servers.HashRevision) {
			hashed = 0
		}
		var first *clientv3.HashKVResponse
		for _, ep := range e.cluster.Endpoints() {
			h, err := e.HashKV(e.ctx, ep, rev)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = h
			}
			if h.Hash == 0 || h.Hash != first.Hash || h.HashRevision != hashed {
				t.Errorf("%s: %v, the first one's: %v", ep, h, first)
			}
		}
		ep := e.cluster.Endpoints()[0]
		e.put(t, e.prefix, "2")
		e.catchUp(t)
		if current, err := e.HashKV(e.ctx, ep, 0); err != nil || current.Hash == first.Hash {
			t.Errorf("after a write: %v, %v", current, err)
		}
		if _, err := e.HashKV(e.ctx, ep, 1<<40); err != rpctypes.ErrFutureRev {
			t.Errorf("of the future: %v", err)
		}
		if _, err := e.Compact(e.ctx, rev); err != nil {
			t.Fatal(err)
		}
		e.catchUp(t)
		if _, err := e.HashKV(e.ctx, ep, rev-1); err != rpctypes.ErrCompacted {
			t.Errorf("of what is compacted: %v", err)
		}
	})
}

func TestDefragment(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.put(t, e.prefix, "kept")
		for _, ep := range e.cluster.Endpoints() {
			if _, err := e.Defragment(e.ctx, ep); err != nil {
				t.Errorf("%s: %v", ep, err)
			}
		}
		if got := e.value(t, e.prefix); got != "kept" {
			t.Errorf("%q is left", got)
		}
	})
}

func TestSnapshot(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.put(t, e.prefix, "in the snapshot")
		e.catchUp(t)
		resp, err := e.SnapshotWithVersion(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if servers.Has(t, servers.SnapshotVersion) {
			major, minor := servers.Release(t)
			want = fmt.Sprintf("%d.%d.0", major, minor)
		}
		if resp.Version != want && resp.Version != "" { // a young database has none yet
			t.Errorf("version %q of a server %s, want %q", resp.Version, servers.Version(t), want)
		}
		checkSnapshot(t, resp.Snapshot, "in the snapshot")

		plain, err := e.Snapshot(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		checkSnapshot(t, plain, "in the snapshot")
	})
}

// checkSnapshot reads a snapshot and checks that it is whole by the sum at its end, and that it has the content.
func checkSnapshot(t *testing.T, r io.ReadCloser, content string) {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	db, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if want := sha256.Sum256(db); !bytes.Equal(sum, want[:]) {
		t.Errorf("%d bytes whose sum is not the one behind them", len(db))
	}
	if !bytes.Contains(db, []byte(content)) {
		t.Errorf("%q is not in it", content)
	}
}

func TestSnapshotCutShort(t *testing.T) {
	e := onOne(t)
	e.fill(t, 3000, 1000) // several messages of the stream
	ctx, cancel := context.WithCancel(e.ctx)
	r, err := e.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, r); err != context.Canceled {
		t.Errorf("a snapshot whose context ended ends with %v", err)
	}

	r, err = e.Snapshot(e.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n, err := io.Copy(io.Discard, r); err == nil {
		t.Errorf("a snapshot that was closed reads on to its end, %d bytes", n)
	}
}

func TestMoveLeader(t *testing.T) {
	e := onThree(t)
	lead, err := e.cluster.Leader(e.ctx)
	if err != nil {
		t.Fatal(err)
	}
	next := (lead + 1) % 3
	target := e.cluster.Member(next).ID()
	endpoints := e.cluster.Endpoints()

	if _, err := e.clientOf(t, endpoints[next]).MoveLeader(e.ctx, target); err != rpctypes.ErrNotLeader {
		t.Errorf("asked of a follower: %v", err)
	}
	atLeader := e.clientOf(t, endpoints[lead])
	if _, err := atLeader.MoveLeader(e.ctx, 12345); err != rpctypes.ErrBadLeaderTransferee {
		t.Errorf("to a member that there is not: %v", err)
	}
	if _, err := atLeader.MoveLeader(e.ctx, target); err != nil {
		t.Fatal(err)
	}
	if now, err := e.cluster.Leader(e.ctx); err != nil || now != next {
		t.Errorf("member %d leads, %v; want %d", now, err, next)
	}
}

// A cluster that has run out of space refuses writes until there is space and the alarm is disarmed. Writes that are
// under way when it runs out are refused likewise, and are applied: the error does not tell.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithQuota(400<<10), etcdtest.WithMembers(3), calm)
	cli := newClient(t, cluster)
	ctx := testContext(t)
	value := strings.Repeat("v", 20<<10)
	refused, applied := 0, 0
	for round := 0; round < 10 && refused == 0; round++ { // the server looks at the size now and then
		var wg sync.WaitGroup
		errs := make([]error, 100)
		for i := range errs {
			wg.Go(func() { _, errs[i] = cli.Put(ctx, fmt.Sprint("key", round, "/", i), value) })
		}
		wg.Wait()
		for i, err := range errs {
			if err == nil {
				continue
			}
			if err != rpctypes.ErrNoSpace || !errors.Is(err, rpctypes.ErrNoSpace) || !clientv3.MayHaveApplied(err) {
				t.Errorf("beyond the quota: %v", err)
			}
			refused++
			resp, err := cli.Get(ctx, fmt.Sprint("key", round, "/", i), clientv3.WithCountOnly())
			if err != nil {
				t.Fatal(err)
			}
			applied += int(resp.Count)
		}
	}
	t.Logf("%d writes refused, %d of them applied", refused, applied)
	if refused == 0 {
		t.Fatal("no write was refused")
	}
	for name, write := range map[string]func() error{
		"txn": func() error {
			_, err := cli.Txn(ctx).Then(clientv3.OpPut("key", value)).Commit()
			return err
		},
		"grant": func() error { _, err := cli.Grant(ctx, 600); return err },
	} {
		if err := write(); err != rpctypes.ErrNoSpace {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cli.Get(ctx, "key"); err != nil {
		t.Fatalf("reads go on: %v", err)
	}

	alarms, err := cli.AlarmList(ctx)
	if err != nil || len(alarms.Alarms) == 0 || alarms.Alarms[0].Alarm != pb.AlarmType_NOSPACE {
		t.Fatalf("alarms %v, %v", alarms, err)
	}
	deleted, err := cli.Delete(ctx, "key", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Compact(ctx, deleted.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	for _, ep := range cluster.Endpoints() {
		if _, err := cli.Defragment(ctx, ep); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cli.Put(ctx, "key", "small"); err != rpctypes.ErrNoSpace {
		t.Errorf("with space, and the alarm still on: %v", err)
	}
	disarmed, err := cli.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	if err != nil || len(disarmed.Alarms) < len(alarms.Alarms) { // others may have raised theirs since
		t.Fatalf("disarmed %v, %v of %v", disarmed, err, alarms)
	}
	if left, err := cli.AlarmList(ctx); err != nil || len(left.Alarms) != 0 {
		t.Errorf("alarms left %v, %v", left, err)
	}
	if _, err := cli.Put(ctx, "key", "small"); err != nil {
		t.Errorf("with space and without alarm: %v", err)
	}
}

func TestAlarms(t *testing.T) {
	servers.Need(t, servers.NoSpaceBesideCorrupt)
	t.Parallel()
	cluster := etcdtest.Run(t)
	cli := newClient(t, cluster)
	ctx := testContext(t)
	if got, err := cli.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil || len(got.Alarms) != 0 {
		t.Errorf("nothing to disarm: %v, %v", got, err)
	}
	id := cluster.Member(0).ID()
	raise := func(alarm pb.AlarmType) {
		t.Helper()
		_, err := pb.NewMaintenanceClient(cli.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{
			Action: pb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: alarm,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	raise(pb.AlarmType_NOSPACE)
	raise(pb.AlarmType_CORRUPT)

	_, err := cli.Put(ctx, "key", "")
	if err != rpctypes.ErrCorrupt || !errors.Is(err, rpctypes.ErrCorrupt) || clientv3.MayHaveApplied(err) {
		t.Errorf("put in a corrupt cluster: %v", err)
	}
	corrupt := &clientv3.AlarmMember{MemberID: id, Alarm: pb.AlarmType_CORRUPT}
	if got, err := cli.AlarmDisarm(ctx, corrupt); err != nil || len(got.Alarms) != 1 {
		t.Errorf("disarmed %v, %v", got, err)
	}
	if _, err := cli.Put(ctx, "key", ""); err != rpctypes.ErrNoSpace {
		t.Errorf("with one alarm of two: %v", err)
	}
	if got, err := cli.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil || len(got.Alarms) != 1 {
		t.Errorf("disarmed all: %v, %v", got, err)
	}
	if _, err := cli.Put(ctx, "key", ""); err != nil {
		t.Error(err)
	}
}

func TestDowngrade(t *testing.T) {
	servers.Need(t, servers.Downgrade)
	t.Parallel()
	cli := newClient(t, etcdtest.Run(t))
	ctx := testContext(t)
	major, minor := servers.Release(t)
	target, tooOld := fmt.Sprintf("%d.%d.0", major, minor-1), fmt.Sprintf("%d.%d.0", major, minor-2)
	for _, tt := range []struct {
		name    string
		action  clientv3.DowngradeAction
		version string
		want    error
	}{
		{"no version", clientv3.DowngradeValidate, "abc", rpctypes.ErrWrongDowngradeVersionFormat},
		{"two versions down", clientv3.DowngradeValidate, tooOld, rpctypes.ErrInvalidDowngradeTargetVersion},
		{"nothing to cancel", clientv3.DowngradeCancel, "", nil},
		{"validate", clientv3.DowngradeValidate, target, nil},
		{"enable", clientv3.DowngradeEnable, target, nil},
		{"enable again", clientv3.DowngradeEnable, target, rpctypes.ErrDowngradeInProcess}, // and see below
		{"cancel", clientv3.DowngradeCancel, "", nil},
	} {
		resp, err := cli.Downgrade(ctx, tt.action, tt.version)
		for err == rpctypes.ErrClusterVersionUnavailable { // decided a moment after the start
			resp, err = cli.Downgrade(ctx, tt.action, tt.version)
		}
		if tt.want == rpctypes.ErrDowngradeInProcess && err == rpctypes.ErrInvalidDowngradeTargetVersion {
			continue // the server, which looks every few seconds, has carried the downgrade out
		}
		if err != tt.want || err == nil && resp.Version == "" {
			t.Errorf("%s: %v, %v; want error %v", tt.name, resp, err, tt.want)
		}
	}
	if _, err := cli.Downgrade(ctx, 77, target); err == nil || !strings.Contains(err.Error(), "unknown downgrade action") {
		t.Errorf("unknown action: %v", err)
	}
}
