package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/servers"
)

// nextResponse returns the next response of a watch, or fails the test.
func nextResponse(t *testing.T, ctx context.Context, ch clientv3.WatchChan) clientv3.WatchResponse {
	t.Helper()
	select {
	case resp, open := <-ch:
		if !open {
			t.Fatal("the watch has ended without a reason")
		}
		return resp
	case <-ctx.Done():
		t.Fatal("no response: ", ctx.Err())
	}
	panic("unreachable")
}

// nextEvents returns the next events of a watch as strings, such as `PUT key="value" was="before"`.
func nextEvents(t *testing.T, e *env, ch clientv3.WatchChan, n int) []string {
	t.Helper()
	var got []string
	for len(got) < n {
		resp := nextResponse(t, e.ctx, ch)
		if err := resp.Err(); err != nil {
			t.Fatal(err)
		}
		for _, ev := range resp.Events {
			s := fmt.Sprintf("%s %s", ev.Type, strings.TrimPrefix(string(ev.Kv.Key), e.prefix))
			if len(ev.Kv.Value) > 0 {
				s += "=" + string(ev.Kv.Value)
			}
			if ev.PrevKv != nil {
				s += " was " + string(ev.PrevKv.Value)
			}
			got = append(got, s)
		}
	}
	return got
}

func TestWatchOptions(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		before, err := e.Put(e.ctx, e.prefix+"b", "0")
		if err != nil {
			t.Fatal(err)
		}
		start := before.Header.Revision
		catchUp(t, e)
		cases := map[string]struct {
			key  string
			opts []clientv3.OpOption
			want []string
		}{
			"key":        {"b", nil, []string{"PUT b=1", "DELETE b", "PUT b=2"}},
			"from rev":   {"b", opts(clientv3.WithRev(start)), []string{"PUT b=0", "PUT b=1", "DELETE b", "PUT b=2"}},
			"prefix":     {"", opts(clientv3.WithPrefix()), []string{"PUT a=1", "PUT b=1", "DELETE b", "PUT b=2", "PUT c=1"}},
			"range":      {"a", opts(clientv3.WithRange(e.prefix + "b")), []string{"PUT a=1"}},
			"from key":   {"b", opts(clientv3.WithFromKey()), []string{"PUT b=1", "DELETE b", "PUT b=2", "PUT c=1"}},
			"no puts":    {"b", opts(clientv3.WithFilterPut()), []string{"DELETE b"}},
			"no deletes": {"b", opts(clientv3.WithFilterDelete()), []string{"PUT b=1", "PUT b=2"}},
			"previous":   {"b", opts(clientv3.WithPrevKV()), []string{"PUT b=1 was 0", "DELETE b was 1", "PUT b=2"}},
			"fragments":  {"b", opts(clientv3.WithFragment()), []string{"PUT b=1", "DELETE b", "PUT b=2"}},
		}
		watches := make(map[string]clientv3.WatchChan)
		for name, c := range cases {
			watches[name] = e.Watch(e.ctx, e.prefix+c.key, c.opts...)
		}
		for _, op := range []clientv3.Op{
			clientv3.OpPut(e.prefix+"a", "1"),
			clientv3.OpPut(e.prefix+"b", "1"),
			clientv3.OpDelete(e.prefix + "b"),
			clientv3.OpPut(e.prefix+"b", "2"),
			clientv3.OpPut(e.prefix+"c", "1"),
		} {
			if _, err := e.Do(e.ctx, op); err != nil {
				t.Fatal(err)
			}
		}
		for name, c := range cases {
			if name == "from key" {
				continue // other tests write behind it
			}
			if got := nextEvents(t, e, watches[name], len(c.want)); !slices.Equal(got, c.want) {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
	})
}

// catchUp waits until every member has everything: a watch begins with the present of the member that it meets.
func catchUp(t *testing.T, e *env) {
	t.Helper()
	for _, m := range e.cluster.Members() {
		cfg := e.config(t)
		cfg.Endpoints = []string{m.Endpoint()}
		if _, err := open(t, cfg).Get(e.ctx, e.prefix); err != nil { // linearizable
			t.Fatal(err)
		}
	}
}

func opts(o ...clientv3.OpOption) []clientv3.OpOption { return o }

// A transaction's events come in one response.
func TestWatchTransactionIsOneResponse(t *testing.T) {
	e := onOne(t)
	ch := e.Watch(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if resp := nextResponse(t, e.ctx, ch); !resp.Created || resp.Header.GetRevision() == 0 {
		t.Fatalf("first response %+v, want the one of the creation", resp)
	}
	var ops []clientv3.Op
	for i := range 100 {
		ops = append(ops, clientv3.OpPut(fmt.Sprint(e.prefix, i), "v"))
	}
	txn, err := e.Txn(e.ctx).Then(ops...).Commit()
	if err != nil {
		t.Fatal(err)
	}
	resp := nextResponse(t, e.ctx, ch)
	if len(resp.Events) != len(ops) || resp.Events[0].Kv.ModRevision != txn.Header.Revision {
		t.Errorf("%d events of revision %d, want %d of %d",
			len(resp.Events), resp.Events[0].Kv.ModRevision, len(ops), txn.Header.Revision)
	}
}

func TestWatchFromDeletionAtCompactedRevision(t *testing.T) {
	servers.Need(t, servers.CompactionKeepsDeletion)
	e := onOne(t)
	e.put(t, e.prefix, "v")
	deleted, err := e.Delete(e.ctx, e.prefix)
	if err != nil {
		t.Fatal(err)
	}
	rev := deleted.Header.Revision
	if _, err := e.Compact(e.ctx, rev, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	resp := nextResponse(t, e.ctx, e.Watch(e.ctx, e.prefix, clientv3.WithRev(rev)))
	if len(resp.Events) != 1 || resp.Events[0].Type != clientv3.EventTypeDelete || resp.Events[0].Kv.ModRevision != rev {
		t.Errorf("events %v, want the deletion at %d", resp.Events, rev)
	}
}

func TestWatchProgress(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithWatchProgressInterval(100*time.Millisecond))
	cli, ctx := newClient(t, cluster), testContext(t)
	notified := cli.Watch(ctx, "quiet", clientv3.WithProgressNotify())
	put, err := cli.Put(ctx, "other", "v")
	if err != nil {
		t.Fatal(err)
	}
	for {
		resp := nextResponse(t, ctx, notified)
		if !resp.IsProgressNotify() {
			t.Fatalf("%+v, want progress only", resp)
		}
		if resp.Header.Revision >= put.Header.Revision {
			break
		}
	}

	// Asked for, it comes to watches that are not notified on their own too; and only to those of the same metadata.
	asked := cli.Watch(ctx, "quiet")
	leaderCtx := clientv3.WithRequireLeader(ctx)
	elsewhere := cli.Watch(leaderCtx, "quiet")
	if err := cli.RequestProgress(ctx); err != nil {
		t.Fatal(err)
	}
	if resp := nextResponse(t, ctx, asked); !resp.IsProgressNotify() || resp.Header.Revision < put.Header.Revision {
		t.Errorf("%+v, want progress", resp)
	}
	select {
	case resp := <-elsewhere:
		t.Errorf("a watch with other metadata got %+v", resp)
	default:
	}
}

// Why a watch ended is in its last response, except when its own context ended.
func TestWatchTellsWhyItEnded(t *testing.T) {
	ended := func(t *testing.T, ctx context.Context, ch clientv3.WatchChan) clientv3.WatchResponse {
		t.Helper()
		resp := nextResponse(t, ctx, ch)
		if !resp.Canceled {
			t.Fatalf("%+v, want the last response", resp)
		}
		select {
		case _, open := <-ch:
			if open {
				t.Error("there is a response behind the last one")
			}
		case <-ctx.Done():
			t.Error("the channel is not closed")
		}
		return resp
	}
	t.Run("compacted", func(t *testing.T) {
		e := onOne(t)
		var rev int64
		for range 3 {
			put, err := e.Put(e.ctx, e.prefix, "v")
			if err != nil {
				t.Fatal(err)
			}
			rev = put.Header.Revision
		}
		if _, err := e.Compact(e.ctx, rev); err != nil {
			t.Fatal(err)
		}
		resp := ended(t, e.ctx, e.Watch(e.ctx, e.prefix, clientv3.WithRev(rev-1)))
		if resp.CompactRevision != rev || resp.Err() != rpctypes.ErrCompacted {
			t.Errorf("compact revision %d, error %v; want %d, %v", resp.CompactRevision, resp.Err(), rev, rpctypes.ErrCompacted)
		}
		if got := nextEvents(t, e, e.Watch(e.ctx, e.prefix, clientv3.WithRev(rev)), 1); got[0] != "PUT =v" {
			t.Errorf("from the compacted revision on: %q", got)
		}
	})
	t.Run("client closed", func(t *testing.T) {
		e := onOne(t)
		ch := e.Watch(e.ctx, e.prefix)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if resp := ended(t, e.ctx, ch); resp.Err() == nil {
			t.Error("no error")
		}
		if resp := ended(t, e.ctx, e.Watch(e.ctx, e.prefix)); resp.Err() == nil {
			t.Error("no error of a watch on a closed client")
		}
	})
	t.Run("own context", func(t *testing.T) {
		e := onOne(t)
		ctx, cancel := context.WithCancel(e.ctx)
		ch := e.Watch(ctx, e.prefix)
		cancel()
		select {
		case resp, open := <-ch:
			if open {
				t.Errorf("%+v, want none", resp)
			}
		case <-e.ctx.Done():
			t.Error("the channel is not closed")
		}
	})
	t.Run("permission", func(t *testing.T) {
		e := setups[6].env(t)
		name := strings.ReplaceAll(e.prefix, "/", "-")
		if _, err := e.UserAdd(e.ctx, name, "secret"); err != nil {
			t.Fatal(err)
		}
		cli := newClient(t, e.cluster, as(name, "secret"))
		resp := ended(t, e.ctx, cli.Watch(e.ctx, e.prefix))
		if err := resp.Err(); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("%v (%q), want %v", err, resp.CancelReason, rpctypes.ErrPermissionDenied)
		}
	})
	t.Run("no leader", func(t *testing.T) {
		t.Parallel()
		cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithChildProcesses())
		cli, ctx := newClient(t, cluster), testContext(t)
		ch := cli.Watch(clientv3.WithRequireLeader(ctx), "key")
		plain := cli.Watch(ctx, "key")
		for _, i := range []int{0, 1} {
			if err := cluster.Member(i).Kill(); err != nil {
				t.Fatal(err)
			}
		}
		if resp := ended(t, ctx, ch); resp.Err() != rpctypes.ErrNoLeader {
			t.Errorf("%v, want %v", resp.Err(), rpctypes.ErrNoLeader)
		}
		// The other one lives on, and sees what happens when the cluster is back.
		for _, i := range []int{0, 1} {
			if err := cluster.Member(i).Restart(ctx); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		for _, err = cli.Put(ctx, "key", "v"); err != nil && ctx.Err() == nil; _, err = cli.Put(ctx, "key", "v") {
			t.Log("the cluster is not back yet: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if resp := nextResponse(t, ctx, plain); len(resp.Events) == 0 {
			t.Errorf("%+v, want the event", resp)
		}
	})
}

// What the official client passes on to the server is passed on.
func TestWatchOddInput(t *testing.T) {
	e := onOne(t)
	now, err := e.Put(e.ctx, e.prefix+"k", "1")
	if err != nil {
		t.Fatal(err)
	}
	// A range end below the key is a range without keys, which the server refuses.
	empty := nextResponse(t, e.ctx, e.Watch(e.ctx, "b", clientv3.WithRange("a")))
	if !empty.Canceled {
		t.Errorf("range end below the key: %+v", empty)
	}
	// A watch of a revision to come waits for it.
	future := e.Watch(e.ctx, e.prefix+"k", clientv3.WithRev(now.Header.Revision+2))
	for _, v := range []string{"2", "3"} {
		if _, err := e.Put(e.ctx, e.prefix+"k", v); err != nil {
			t.Fatal(err)
		}
	}
	if got := nextEvents(t, e, future, 1); got[0] != "PUT k=3" {
		t.Errorf("from a revision to come: %q", got)
	}
}

// A watch goes on when its token has expired and its stream has broken.
func TestWatchOutlivesItsToken(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithProxies(),
		etcdtest.WithAuth(etcdtest.Auth{JWT: true, TokenTTL: time.Second}))
	cli, ctx := newClient(t, cluster, as(etcdtest.Root, etcdtest.Root)), testContext(t)
	ch := cli.Watch(ctx, "key")
	other := newClient(t, cluster, as(etcdtest.Root, etcdtest.Root))
	for range 3 {
		time.Sleep(1100 * time.Millisecond) // the token's time, which the server measures
		cluster.Member(0).Proxy().Cut()
		cluster.Member(0).Proxy().Heal()
		if _, err := other.Get(ctx, "key"); err != nil { // a read finds the way again, a write might be lost on it
			t.Fatal(err)
		}
		if _, err := other.Put(ctx, "key", "v"); err != nil {
			t.Fatal(err)
		}
		if resp := nextResponse(t, ctx, ch); len(resp.Events) != 1 {
			t.Fatalf("%+v, want an event", resp)
		}
	}
}
