package etcdtest

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestLeaderMoves(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		opts []Option
	}{
		{"in process", nil},
		{"children with authentication", []Option{WithChildProcesses(), WithAuth(Auth{})}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := Run(t, append(tt.opts, WithMembers(3))...)
			ctx := testContext(t)
			lead, err := c.Leader(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				lead = (lead + 1) % 3
				if err := c.MoveLeader(ctx, lead); err != nil {
					t.Fatal(err)
				}
				if got, err := c.Leader(ctx); got != lead || err != nil {
					t.Errorf("leader is %d, %v, want %d", got, err, lead)
				}
			}
			if err := c.MoveLeader(ctx, lead); err != nil {
				t.Errorf("to where it is: %v", err)
			}
		})
	}
}

func TestLeaderIsAnotherOnceStopped(t *testing.T) {
	t.Parallel()
	c := Run(t, WithMembers(3))
	ctx := testContext(t)
	before, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Member(before).Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if c.Member(before).Running() {
		t.Error("a stopped member is running")
	}
	after, err := c.Leader(ctx)
	if err != nil || after == before {
		t.Errorf("leader is %d, %v, and it was %d before that was stopped", after, err, before)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Errorf("waiting for those that run: %v", err)
	}
}

func TestMembersAreAddedAndRemoved(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		opts []Option
	}{
		{"in process", []Option{WithProxies()}},
		{"children", []Option{WithChildProcesses(), WithTLS()}},
		{"authentication", []Option{WithAuth(Auth{})}},
		{"authentication by JWT", []Option{WithAuth(Auth{JWT: true})}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := Run(t, append(tt.opts, WithTimings(multiHeartbeat, multiElection))...)
			ctx := testContext(t)
			conn, err := c.Member(0).Dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := put(ctx, conn, "key", "value"); err != nil {
				t.Fatal(err)
			}
			learner, err := c.AddLearner(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Member(1); got != learner {
				t.Errorf("member 1 is %s, want the learner, %s", got.Name(), learner.Name())
			}
			list, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if len(list.Members) != 2 {
				t.Fatalf("members are %v, want 2", list.Members)
			}
			for _, m := range list.Members {
				if m.IsLearner != (m.ID == learner.ID()) {
					t.Errorf("member %v is a learner: %v", m, m.IsLearner)
				}
			}
			if err := c.RemoveMember(ctx, 1); err != nil {
				t.Fatal(err)
			}

			added, err := c.AddMember(ctx)
			if err != nil {
				t.Fatal(err)
			}
			addedConn, err := added.Dial()
			if err != nil {
				t.Fatal(err)
			}
			defer addedConn.Close()
			if got, err := get(ctx, addedConn, "key"); got != "value" || err != nil {
				t.Errorf("get from the new member = %q, %v", got, err)
			}
			// The new one knows who it is also after a restart.
			if err := added.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			if err := c.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
		})
	}
}
