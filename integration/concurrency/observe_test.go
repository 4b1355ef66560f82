package concurrency

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

// describe tells one report of a leader from another.
func describe(kv *mvccpb.KeyValue) string {
	return fmt.Sprintf("%s created in %d, %s in %d", kv.Key, kv.CreateRevision, kv.Value, kv.ModRevision)
}

// next returns the next report.
func next(ctx context.Context, t testing.TB, reports <-chan *clientv3.GetResponse) string {
	t.Helper()
	select {
	case resp, ok := <-reports:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return describe(resp.Kvs[0])
	case <-ctx.Done():
		t.Fatal("nothing was reported")
		return ""
	}
}

func TestObserve(t *testing.T) {
	e := newEnv(t)
	s1, s2 := shared.Session(t, e.Client), shared.Session(t, e.Client)
	e1, e2 := concurrency.NewElection(s1, e.prefix), concurrency.NewElection(s2, e.prefix)
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	reports := e1.Observe(ctx)
	want := func(who *concurrency.Election, value string) {
		t.Helper()
		rev := who.Header().GetRevision()
		if got, want := next(e.ctx, t, reports), fmt.Sprintf("%s created in %d, %s in %d", who.Key(), who.Rev(), value, rev); got != want {
			t.Errorf("reported %s, want %s", got, want)
		}
	}
	shared.Must(t, e1.Campaign(e.ctx, "a"))
	want(e1, "a")
	shared.Must(t, e1.Proclaim(e.ctx, "b"))
	want(e1, "b")
	waiting := shared.Background(func() error { return e2.Campaign(e.ctx, "c") })
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	shared.Must(t, e1.Resign(e.ctx))
	shared.Must(t, shared.Result(e.ctx, t, waiting))
	if got, want := next(e.ctx, t, reports), fmt.Sprintf("%s created in %d, c in %d", e2.Key(), e2.Rev(), e2.Rev()); got != want {
		t.Errorf("reported %s, want %s", got, want)
	}
	shared.Must(t, e2.Resign(e.ctx))
	shared.Must(t, e1.Campaign(e.ctx, "d"))
	want(e1, "d")
	cancel()
	if resp, ok := <-reports; ok {
		t.Errorf("reported %v after the end", resp)
	}
}

// electorate are the candidates of an election that is made up, by a writer who does nothing else.
type electorate struct {
	kv         clientv3.KV
	prefix     string
	candidates []*mvccpb.KeyValue // in the order in which they came
}

// change makes candidates come, go and proclaim n times, and returns what is to be reported of it.
func (el *electorate) change(ctx context.Context, t testing.TB, n int) []string {
	t.Helper()
	var reports []string
	for i := range n {
		before := el.leader()
		op := el.pick(fmt.Sprint(i))
		resp, err := el.kv.Do(ctx, op)
		shared.Must(t, err)
		for _, kv := range el.candidates {
			if kv.ModRevision == 0 {
				kv.ModRevision = resp.Put().Header.Revision
			}
			if kv.CreateRevision == 0 {
				kv.CreateRevision = kv.ModRevision
			}
		}
		if now := el.leader(); now != "" && now != before {
			reports = append(reports, now)
		}
	}
	return reports
}

// pick decides what happens next.
func (el *electorate) pick(value string) clientv3.Op {
	n := len(el.candidates)
	choice := rand.N(5)
	if n == 0 || (choice == 0 && n < 5) {
		// Names are not in the order of arrival.
		kv := &mvccpb.KeyValue{Key: fmt.Appendf(nil, "%s/%x", el.prefix, rand.Uint32()), Value: []byte(value)}
		el.candidates = append(el.candidates, kv)
		return clientv3.OpPut(string(kv.Key), value)
	}
	which := rand.N(n)
	if choice%2 == 1 {
		which = 0 // the leader is not to be there for long
	}
	kv := el.candidates[which]
	if choice < 3 {
		el.candidates = slices.Delete(el.candidates, which, which+1)
		return clientv3.OpDelete(string(kv.Key))
	}
	kv.Value, kv.ModRevision = []byte(value), 0
	return clientv3.OpPut(string(kv.Key), value)
}

func (el *electorate) leader() string {
	if len(el.candidates) == 0 {
		return ""
	}
	return describe(el.candidates[0])
}

// pastProxy returns the keys of a member as they are reached past its proxy.
func pastProxy(t testing.TB, m *etcdtest.Member) clientv3.KV {
	t.Helper()
	conn, err := m.Dial()
	shared.Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return clientv3.NewKVFromKVClient(pb.NewKVClient(conn), nil)
}

// Every change is reported once, in order, however fast changes come and whatever happens to connections.
func TestObserveReportsEachLeaderOnce(t *testing.T) {
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithProxies())
	ctx := shared.Context(t)
	s := shared.Session(t, shared.ClientFor(t, cluster))
	observing, cancel := context.WithCancel(ctx)
	defer cancel()
	reports := concurrency.NewElection(s, "election").Observe(observing)

	el := &electorate{kv: pastProxy(t, cluster.Member(0)), prefix: "election"}
	want := el.change(ctx, t, 1)
	if got := next(ctx, t, reports); got != want[0] {
		t.Fatalf("reported %s first, want %s", got, want[0])
	}
	for range 4 {
		changed := make(chan []string, 1)
		go func() { changed <- el.change(ctx, t, 50) }()
		time.Sleep(rand.N(20 * time.Millisecond)) // the links are cut anywhere among the changes
		for _, m := range cluster.Members() {
			m.Proxy().Cut()
			m.Proxy().Heal()
		}
		for i, want := range <-changed {
			if got := next(ctx, t, reports); got != want {
				t.Fatalf("report %d: %s, want %s", i, got, want)
			}
		}
	}
}

func TestObserveGoesOnAfterCompaction(t *testing.T) {
	cluster := etcdtest.Run(t, etcdtest.WithProxies())
	ctx := shared.Context(t)
	s := shared.Session(t, shared.ClientFor(t, cluster))
	observing, cancel := context.WithCancel(ctx)
	defer cancel()
	reports := concurrency.NewElection(s, "election").Observe(observing)
	proxy := cluster.Member(0).Proxy()

	el := &electorate{kv: pastProxy(t, cluster.Member(0)), prefix: "election"}
	compact := func() {
		t.Helper()
		resp, err := el.kv.Put(ctx, "other", "")
		shared.Must(t, err)
		_, err = el.kv.Compact(ctx, resp.Header.Revision)
		shared.Must(t, err)
	}
	want := el.change(ctx, t, 1)
	if got := next(ctx, t, reports); got != want[0] {
		t.Fatalf("reported %s first, want %s", got, want[0])
	}

	// The leader has not changed: there is nothing to report.
	proxy.Cut()
	compact()
	proxy.Heal()
	// It has changed, and what came between cannot be known.
	for range 3 {
		proxy.Cut()
		before := el.leader()
		for el.leader() == before || el.leader() == "" {
			el.change(ctx, t, 10)
		}
		compact()
		proxy.Heal()
		if got := next(ctx, t, reports); got != el.leader() {
			t.Fatalf("reported %s, want %s", got, el.leader())
		}
	}
	// There is none, and then there is.
	proxy.Cut()
	_, err := el.kv.Delete(ctx, "election/", clientv3.WithPrefix())
	shared.Must(t, err)
	el.candidates = nil
	compact()
	proxy.Heal()
	if want := el.change(ctx, t, 1); next(ctx, t, reports) != want[0] {
		t.Errorf("not reported: %s", want[0])
	}
}
