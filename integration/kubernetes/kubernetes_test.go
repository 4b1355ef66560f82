// Package kubernetes holds the tests of package kubernetes against real etcd. It has no other code.
package kubernetes

import (
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/kubernetes"
)

func TestMain(m *testing.M) { shared.Main(m) }

func newClient(t *testing.T) *kubernetes.Client {
	t.Helper()
	cli, err := kubernetes.New(shared.Config(t, shared.Cluster(t).Endpoints()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	return cli
}

func TestLifeOfAKey(t *testing.T) {
	ctx, cli := shared.Context(t), newClient(t)
	k := cli.Kubernetes
	key := shared.Prefix(t) + "key"

	missing, err := k.Get(ctx, key, kubernetes.GetOptions{})
	if err != nil || missing.KV != nil || missing.Revision == 0 {
		t.Fatalf("before: %+v, %v", missing, err)
	}
	created, err := k.OptimisticPut(ctx, key, []byte("one"), 0, kubernetes.PutOptions{})
	if err != nil || !created.Succeeded || created.KV != nil || created.Revision <= missing.Revision {
		t.Fatalf("created: %+v, %v", created, err)
	}
	again, err := k.OptimisticPut(ctx, key, []byte("two"), 0, kubernetes.PutOptions{GetOnFailure: true})
	if err != nil || again.Succeeded || string(again.KV.GetValue()) != "one" || again.Revision != created.Revision {
		t.Fatalf("created again: %+v, %v", again, err)
	}
	quiet, err := k.OptimisticPut(ctx, key, []byte("two"), 0, kubernetes.PutOptions{})
	if err != nil || quiet.Succeeded || quiet.KV != nil {
		t.Fatalf("created again, not to be told: %+v, %v", quiet, err)
	}
	lease, err := cli.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	updated, err := k.OptimisticPut(ctx, key, []byte("two"), created.Revision, kubernetes.PutOptions{LeaseID: lease.ID})
	if err != nil || !updated.Succeeded {
		t.Fatalf("updated: %+v, %v", updated, err)
	}
	got, err := k.Get(ctx, key, kubernetes.GetOptions{})
	if err != nil || string(got.KV.GetValue()) != "two" || got.KV.ModRevision != updated.Revision ||
		got.KV.Lease != int64(lease.ID) {
		t.Fatalf("got: %+v, %v", got, err)
	}
	old, err := k.Get(ctx, key, kubernetes.GetOptions{Revision: created.Revision})
	if err != nil || string(old.KV.GetValue()) != "one" {
		t.Fatalf("got as it was: %+v, %v", old, err)
	}
	kept, err := k.OptimisticDelete(ctx, key, created.Revision, kubernetes.DeleteOptions{GetOnFailure: true})
	if err != nil || kept.Succeeded || string(kept.KV.GetValue()) != "two" {
		t.Fatalf("deleted too late: %+v, %v", kept, err)
	}
	deleted, err := k.OptimisticDelete(ctx, key, updated.Revision, kubernetes.DeleteOptions{})
	if err != nil || !deleted.Succeeded || deleted.KV != nil || deleted.Revision != updated.Revision+1 {
		t.Fatalf("deleted: %+v, %v", deleted, err)
	}
	if _, err := cli.Compact(ctx, deleted.Revision); err != nil {
		t.Fatal(err)
	}
	_, err = k.Get(ctx, key, kubernetes.GetOptions{Revision: created.Revision})
	if !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("compacted revision: %v", err)
	}
}

// The list is read page by page while keys before, in and after it are written and deleted. It shows what there was when
// the first page was read.
func TestPagesAreOfOneRevision(t *testing.T) {
	ctx, cli := shared.Context(t), newClient(t)
	k := cli.Kubernetes
	const keys, limit = 25, 4
	prefix := shared.Prefix(t)
	key := func(i int) string { return fmt.Sprintf("%s%02d", prefix, i) }
	for i := range keys {
		if _, err := k.OptimisticPut(ctx, key(i), []byte("old"), 0, kubernetes.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	opts := kubernetes.ListOptions{Limit: limit}
	for i := 0; i < keys; {
		page, err := k.List(ctx, prefix, opts)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Kvs) != min(limit, keys-i) || page.Count != int64(keys-i) {
			t.Fatalf("page from %d: %d keys of %d", i, len(page.Kvs), page.Count)
		}
		for _, kv := range page.Kvs {
			if string(kv.Key) != key(i) || string(kv.Value) != "old" {
				t.Fatalf("key %s, %s; want %s", kv.Key, kv.Value, key(i))
			}
			i++
		}
		if opts.Revision == 0 {
			opts.Revision = page.Revision
		}
		opts.Continue = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		for _, key := range []string{"test", key(i), key(i) + "+", "test0"} {
			if _, err := cli.Put(ctx, key, "new"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := cli.Delete(ctx, key(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	total, err := k.Count(ctx, prefix, kubernetes.CountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := k.List(ctx, prefix, kubernetes.ListOptions{})
	if err != nil || int64(len(all.Kvs)) != total || all.Count != total {
		t.Errorf("%d keys of %d, %d counted, %v", len(all.Kvs), all.Count, total, err)
	}
	everything, err := k.List(ctx, "", kubernetes.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := k.Count(ctx, "", kubernetes.CountOptions{}); err != nil || n != everything.Count || n <= total {
		t.Errorf("%d keys in all, %v; %d listed", n, err, everything.Count)
	}
}
