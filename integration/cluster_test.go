package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

func TestMemberList(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		for name, opts := range map[string][]clientv3.OpOption{
			"linearizable": nil,
			"serializable": {clientv3.WithSerializable()},
		} {
			resp, err := e.MemberList(e.ctx, opts...)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if resp.Header.GetClusterId() == 0 || len(resp.Members) != len(e.cluster.Members()) {
				t.Errorf("%s: %v", name, resp)
			}
			for _, want := range e.cluster.Members() {
				i := slices.IndexFunc(resp.Members, func(m *pb.Member) bool { return m.ID == want.ID() })
				if i < 0 {
					t.Errorf("%s: %x is not on the list", name, want.ID())
					continue
				}
				if m := resp.Members[i]; m.Name != want.Name() || m.IsLearner ||
					!slices.Equal(m.ClientURLs, []string{want.Endpoint()}) || len(m.PeerURLs) != 1 {
					t.Errorf("%s: %v, want %s at %s", name, m, want.Name(), want.Endpoint())
				}
			}
		}
	})
}

// Two URLs at which there never is a member.
const nowhere, elsewhere = "http://127.0.0.1:1", "http://127.0.0.1:2"

// A cluster of one grows by a learner, gives it a vote, and shrinks again.
func TestMembershipChanges(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, calm)
	ctx := testContext(t)
	cli := newClient(t, cluster)
	voter := cluster.Member(0).ID()

	learner, err := cluster.AddLearner(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := cli.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if got := cli.Endpoints(); !slices.Equal(got, []string{cluster.Member(0).Endpoint()}) {
		t.Errorf("endpoints %q, want those without the learner's", got)
	}
	checkLearner(t, newClient(t, cluster, func(cfg *clientv3.Config) { cfg.Endpoints = []string{learner.Endpoint()} }))
	// Beside a member it is no obstacle: it refuses before it looks at the request, so that a write goes on too.
	both := newClient(t, cluster)
	for range 20 {
		if _, err := both.Put(ctx, "key", "v"); err != nil {
			t.Fatalf("put by a voter and a learner: %v", err)
		}
		if _, err := both.Get(ctx, "key"); err != nil {
			t.Fatalf("get by a voter and a learner: %v", err)
		}
	}

	if _, err := cli.MemberAddAsLearner(ctx, []string{nowhere}); err != rpctypes.ErrTooManyLearners {
		t.Errorf("a second learner: %v", err)
	}
	if _, err := cli.MemberPromote(ctx, voter); err != rpctypes.ErrMemberNotLearner {
		t.Errorf("promoting a voter: %v", err)
	}
	if _, err := cli.MemberPromote(ctx, 12345); err != rpctypes.ErrMemberNotFound {
		t.Errorf("promoting nobody: %v", err)
	}

	promoted, err := cli.MemberPromote(ctx, learner.ID())
	for err == rpctypes.ErrMemberLearnerNotReady {
		promoted, err = cli.MemberPromote(ctx, learner.ID())
	}
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(promoted.Members, func(m *pb.Member) bool { return m.ID == learner.ID() }); i < 0 ||
		promoted.Members[i].IsLearner {
		t.Errorf("after the promotion: %v", promoted.Members)
	}
	if err := cli.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if got := cli.Endpoints(); len(got) != 2 || !slices.Contains(got, learner.Endpoint()) {
		t.Errorf("endpoints %q, want both members'", got)
	}

	cli.SetEndpoints(cluster.Member(0).Endpoint())
	// The members have to have been in touch for five seconds before either may go.
	removed, err := cli.MemberRemove(ctx, learner.ID())
	for err == rpctypes.ErrUnhealthy && !clientv3.MayHaveApplied(err) {
		time.Sleep(100 * time.Millisecond) // a question every now and then is enough
		removed, err = cli.MemberRemove(ctx, learner.ID())
	}
	if err != nil || len(removed.Members) != 1 || removed.Members[0].ID != voter {
		t.Fatalf("removed: %v, %v", removed, err)
	}
	if _, err := cli.MemberRemove(ctx, learner.ID()); err != rpctypes.ErrMemberNotFound {
		t.Errorf("removed again: %v", err)
	}
}

// checkLearner checks a client that has a learner only.
func checkLearner(t *testing.T, cli *clientv3.Client) {
	t.Helper()
	ctx := testContext(t)
	refused := rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)
	if _, err := cli.Get(ctx, "key", clientv3.WithSerializable()); err != nil {
		t.Errorf("serializable get: %v", err)
	}
	if st, err := cli.Status(ctx, cli.Endpoints()[0]); err != nil || !st.IsLearner {
		t.Errorf("status %v, %v", st, err)
	}
	for name, call := range map[string]func() error{
		"get":     func() error { _, err := cli.Get(ctx, "key"); return err },
		"put":     func() error { _, err := cli.Put(ctx, "key", ""); return err },
		"members": func() error { _, err := cli.MemberList(ctx); return err },
		"stream":  func() error { return streamError(cli.GetStream(ctx, "key")) },
	} {
		start := time.Now()
		if err := call(); err != refused || clientv3.MayHaveApplied(err) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > atOnce {
			t.Errorf("%s was refused after %v", name, took)
		}
	}
}

// Changes that are refused, or concern a member which is never started.
func TestMembersNeverStarted(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, calm)
	ctx := testContext(t)
	cli := newClient(t, cluster)
	voter := cluster.Member(0).ID()

	added, err := cli.MemberAddAsLearner(ctx, []string{nowhere})
	if err != nil {
		t.Fatal(err)
	}
	learner := added.Member
	if !learner.IsLearner || !slices.Equal(learner.PeerURLs, []string{nowhere}) || len(added.Members) != 2 {
		t.Errorf("added %v", added)
	}
	if _, err := cli.MemberPromote(ctx, learner.ID); err != rpctypes.ErrMemberLearnerNotReady {
		t.Errorf("promoted: %v", err)
	}
	if _, err := cli.MemberAdd(ctx, []string{elsewhere, nowhere}); err != rpctypes.ErrPeerURLExist {
		t.Errorf("another one there: %v", err)
	}
	updated, err := cli.MemberUpdate(ctx, learner.ID, []string{elsewhere, nowhere})
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(updated.Members, func(m *pb.Member) bool { return m.ID == learner.ID }); i < 0 ||
		!slices.Equal(updated.Members[i].PeerURLs, []string{elsewhere, nowhere}) {
		t.Errorf("updated: %v", updated.Members)
	}
	if _, err := cli.MemberUpdate(ctx, 12345, []string{"http://127.0.0.1:4"}); err != rpctypes.ErrMemberNotFound {
		t.Errorf("update of nobody: %v", err)
	}
	if removed, err := cli.MemberRemove(ctx, learner.ID); err != nil || len(removed.Members) != 1 {
		t.Errorf("removed: %v, %v", removed, err)
	}

	// A cluster of one that gets a second voter has no quorum before that one is there, so this comes last; but the
	// next member after it, and the removal of the first, are refused before they get that far.
	// Its URL is a new one: a member's id is made of that and the second in which it was added.
	if _, err := cli.MemberAdd(ctx, []string{"http://127.0.0.1:3"}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"add":    func() error { _, err := cli.MemberAdd(ctx, []string{elsewhere}); return err },
		"remove": func() error { _, err := cli.MemberRemove(ctx, voter); return err },
	} {
		if err := change(); err != rpctypes.ErrMemberNotEnoughStarted || clientv3.MayHaveApplied(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Peer URLs that no member can have are not sent: a server takes them as they are in an update.
func TestBadPeerURLs(t *testing.T) {
	e := onOne(t)
	before, err := e.MemberList(e.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		urls []string
		want string
	}{
		{nil, "no valid URLs given"},
		{[]string{"a:1"}, "URL scheme must be http, https, unix, or unixs: a:1"},
		{[]string{nowhere, "http://a"}, `URL address does not have the form "host:port": http://a`},
		{[]string{"http://a:1/p"}, "URL must not contain a path: http://a:1/p"},
		{[]string{"http://%zz"}, "invalid URL escape"},
	} {
		for name, change := range map[string]func() error{
			"add":     func() error { _, err := e.MemberAdd(e.ctx, tt.urls); return err },
			"learner": func() error { _, err := e.MemberAddAsLearner(e.ctx, tt.urls); return err },
			"update":  func() error { _, err := e.MemberUpdate(e.ctx, e.cluster.Member(0).ID(), tt.urls); return err },
		} {
			err := change()
			if err == nil || !strings.Contains(err.Error(), tt.want) || clientv3.MayHaveApplied(err) {
				t.Errorf("%s %q: %v, want %s", name, tt.urls, err, tt.want)
			}
		}
	}
	after, err := e.MemberList(e.ctx)
	if err != nil || len(after.Members) != len(before.Members) ||
		!slices.Equal(after.Members[0].PeerURLs, before.Members[0].PeerURLs) {
		t.Errorf("members %v, %v; before %v", after, err, before)
	}
	_, err = pb.NewClusterClient(e.ActiveConnection()).MemberAdd(e.ctx, &pb.MemberAddRequest{PeerURLs: []string{"a:1"}})
	if rpctypes.Error(err) != rpctypes.ErrMemberBadURLs {
		t.Errorf("the server: %v", err)
	}
}
