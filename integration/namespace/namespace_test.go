package namespace

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/namespace"
)

// Prefixes as they may come: usual, one with an end that needs a carry, one without an end, and none.
var prefixes = []string{"app/", "x\xff", "\xff\xff", ""}

// A namespace in a cluster full of other keys gives, for any operation, exactly what a cluster gives that has nothing
// but the namespace's keys: the same operations go to both, and every response must be the same, to the last field.
func TestNamespaceIsAsAClusterOfItsOwn(t *testing.T) {
	t.Parallel()
	for i, prefix := range prefixes {
		t.Run(fmt.Sprintf("%q", prefix), func(t *testing.T) {
			t.Parallel()
			ctx := shared.Context(t)
			crowded := shared.ClientOf(t, etcdtest.Run(t).Endpoints()...)
			alone := shared.ClientOf(t, etcdtest.Run(t).Endpoints()...)
			noise(t, ctx, crowded, alone, prefix)

			kv := namespace.NewKV(crowded.KV, prefix)
			watcher := namespace.NewWatcher(crowded.Watcher, prefix)
			rng := rand.New(rand.NewSource(int64(i)))
			seen, want := startWatches(ctx, rng, watcher), startWatches(ctx, rand.New(rand.NewSource(int64(i))), alone)
			for range 400 {
				op := randomOp(rng, 2)
				equalResponses(t, op, do(ctx, kv, op), do(ctx, alone.KV, op))
				if op.IsGet() {
					equalResponses(t, op, stream(ctx, kv, op), stream(ctx, alone.KV, op))
				}
			}
			last := finish(t, ctx, alone)
			finish(t, ctx, &clientv3.Client{KV: kv})
			for w := range seen {
				equalEvents(t, collect(t, seen[w], last), collect(t, want[w], last))
			}
			if err := watcher.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// noise puts keys all around the namespace in one cluster, and brings the other to the same revision.
func noise(t *testing.T, ctx context.Context, crowded, alone *clientv3.Client, prefix string) {
	t.Helper()
	var keys []string
	if prefix != "" {
		keys = []string{
			"\x00", "a", "b", prefix, prefix[:len(prefix)-1] + "\x00", "zz",
			clientv3.GetPrefixRangeEnd(prefix), clientv3.GetPrefixRangeEnd(prefix) + "a",
		}
	}
	for _, key := range keys {
		if _, err := crowded.Put(ctx, key, "noise"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range len(keys) / 2 {
		key := fmt.Sprintf("gone%d", i)
		if _, err := alone.Put(ctx, key, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := alone.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
}

var names = []string{"", "\x00", "a", "a\x00", "a/b", "b", "\xfe", "\xff", "\xff\xff"}

func randomKey(rng *rand.Rand) string { return names[rng.Intn(len(names))] }

// randomRange returns an option that makes a range of a key, or nothing.
func randomRange(rng *rand.Rand) []clientv3.OpOption {
	switch rng.Intn(6) {
	case 0:
		return []clientv3.OpOption{clientv3.WithPrefix()}
	case 1:
		return []clientv3.OpOption{clientv3.WithFromKey()}
	case 2:
		return []clientv3.OpOption{clientv3.WithRange(randomKey(rng))}
	default:
		return nil
	}
}

func randomOp(rng *rand.Rand, depth int) clientv3.Op {
	opts := randomRange(rng)
	switch n := rng.Intn(10); {
	case n < 3:
		if rng.Intn(3) == 0 {
			opts = append(opts, clientv3.WithLimit(int64(rng.Intn(3))), clientv3.WithKeysOnly())
		}
		if rng.Intn(4) == 0 {
			opts = append(opts, clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))
		}
		return clientv3.OpGet(randomKey(rng), opts...)
	case n < 6 || depth == 0:
		return clientv3.OpPut(randomKey(rng), fmt.Sprint(rng.Intn(4)), clientv3.WithPrevKV())
	case n < 8:
		return clientv3.OpDelete(randomKey(rng), append(opts, clientv3.WithPrevKV())...)
	default:
		cmps := make([]clientv3.Cmp, rng.Intn(3))
		for i := range cmps {
			cmps[i] = randomCmp(rng)
		}
		return clientv3.OpTxn(cmps, randomOps(rng, depth-1), randomOps(rng, depth-1))
	}
}

func randomOps(rng *rand.Rand, depth int) []clientv3.Op {
	ops := make([]clientv3.Op, rng.Intn(3))
	for i := range ops {
		ops[i] = randomOp(rng, depth)
	}
	return ops
}

func randomCmp(rng *rand.Rand) clientv3.Cmp {
	key := names[1+rng.Intn(len(names)-1)] // the server has no comparisons of the empty key
	var c clientv3.Cmp
	if rng.Intn(2) == 0 {
		c = clientv3.Compare(clientv3.Value(key), "!=", fmt.Sprint(rng.Intn(4)))
	} else {
		c = clientv3.Compare(clientv3.Version(key), "<", rng.Intn(3))
	}
	switch rng.Intn(4) {
	case 0:
		return c.WithPrefix()
	case 1:
		return c.WithRange(randomKey(rng))
	case 2:
		return c.WithRange("\x00")
	default:
		return c
	}
}

// outcome is what an operation led to.
type outcome struct {
	resp proto.Message
	err  error
}

func do(ctx context.Context, kv clientv3.KV, op clientv3.Op) outcome {
	resp, err := kv.Do(ctx, op)
	switch {
	case err != nil:
		return outcome{err: err}
	case resp.Get() != nil:
		return outcome{resp: (*pb.RangeResponse)(resp.Get())}
	case resp.Put() != nil:
		return outcome{resp: (*pb.PutResponse)(resp.Put())}
	case resp.Del() != nil:
		return outcome{resp: (*pb.DeleteRangeResponse)(resp.Del())}
	default:
		return outcome{resp: (*pb.TxnResponse)(resp.Txn())}
	}
}

// stream reads by GetStream what op reads.
func stream(ctx context.Context, kv clientv3.KV, op clientv3.Op) outcome {
	chunks, err := kv.GetStream(ctx, string(op.KeyBytes()), func(o *clientv3.Op) { *o = op })
	if err != nil {
		return outcome{err: err}
	}
	resp, err := clientv3.GetStreamToGetResponse(chunks)
	return outcome{resp: (*pb.RangeResponse)(resp), err: err}
}

func equalResponses(t *testing.T, op clientv3.Op, got, want outcome) {
	t.Helper()
	if (got.err == nil) != (want.err == nil) || got.err != nil && !errors.Is(got.err, want.err) {
		t.Fatalf("%s: error %v, want %v", text(op), got.err, want.err)
	}
	if got.err != nil {
		return
	}
	anonymous(got.resp)
	anonymous(want.resp)
	if !proto.Equal(got.resp, want.resp) {
		t.Fatalf("%s:\ngot  %v\nwant %v", text(op), got.resp, want.resp)
	}
}

// anonymous takes from a response's header what is of the cluster and not of its keys.
func anonymous(resp proto.Message) {
	type headed interface{ GetHeader() *pb.ResponseHeader }
	if h := resp.(headed).GetHeader(); h != nil {
		h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
	}
}

func text(op clientv3.Op) string {
	if !op.IsTxn() {
		return fmt.Sprintf("{get %t put %t del %t %q-%q}",
			op.IsGet(), op.IsPut(), op.IsDelete(), op.KeyBytes(), op.RangeBytes())
	}
	cmps, thenOps, elseOps := op.Txn()
	s := "{txn"
	for i := range cmps {
		s += fmt.Sprint(" if ", cmps[i].GetCompare())
	}
	for _, op := range thenOps {
		s += " then " + text(op)
	}
	for _, op := range elseOps {
		s += " else " + text(op)
	}
	return s + "}"
}

// startWatches starts watches of all kinds, from the first revision on.
func startWatches(ctx context.Context, rng *rand.Rand, w clientv3.Watcher) []clientv3.WatchChan {
	watches := make([]clientv3.WatchChan, 12)
	for i := range watches {
		opts := append(randomRange(rng), clientv3.WithRev(1), clientv3.WithPrevKV())
		if i == 0 {
			opts = append(opts, clientv3.WithFromKey())
		}
		watches[i] = w.Watch(ctx, randomKey(rng), opts...)
	}
	return watches
}

// finish deletes all keys, so that every watch whose range ever had a key sees the end, and returns its revision.
func finish(t *testing.T, ctx context.Context, cli *clientv3.Client) int64 {
	t.Helper()
	for _, name := range names[1:] {
		if _, err := cli.Put(ctx, name, "last"); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := cli.Delete(ctx, "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// collect returns a watch's events up to the revision, which must come unless the watched range can have no key.
func collect(t *testing.T, ch clientv3.WatchChan, last int64) []*clientv3.Event {
	t.Helper()
	var events []*clientv3.Event
	for resp := range ch {
		if err := resp.Err(); err != nil {
			return append(events, &clientv3.Event{Kv: &mvccpb.KeyValue{Value: []byte(err.Error())}})
		}
		events = append(events, resp.Events...)
		if resp.Header.Revision >= last {
			break
		}
	}
	return events
}

func equalEvents(t *testing.T, got, want []*clientv3.Event) {
	t.Helper()
	// The keys that bring the other cluster to the same revision are outside of the namespace.
	want = slices.DeleteFunc(want, func(e *clientv3.Event) bool {
		return len(e.Kv.Key) > 4 && string(e.Kv.Key[:4]) == "gone"
	})
	if !slices.EqualFunc(got, want, func(a, b *clientv3.Event) bool { return proto.Equal(a, b) }) {
		t.Errorf("events:\ngot  %v\nwant %v", got, want)
	}
}

func TestAttachedKeysAreThoseOfTheNamespace(t *testing.T) {
	ctx, cli := shared.Context(t), shared.Client(t)
	lease := namespace.NewLease(cli.Lease, "lease/")
	grant, err := lease.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"lease", "lease/", "lease/a", "lease/b", "leash"} {
		if _, err := cli.Put(ctx, key, "", clientv3.WithLease(grant.ID)); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := lease.TimeToLive(ctx, grant.ID, clientv3.WithAttachedKeys())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(resp.Keys, slices.Compare)
	if fmt.Sprintf("%s", resp.Keys) != "[a b]" || resp.GrantedTTL != 60 {
		t.Errorf("keys %q, %+v", resp.Keys, resp)
	}
	if _, err := lease.Revoke(ctx, grant.ID); err != nil {
		t.Fatal(err)
	}
}
