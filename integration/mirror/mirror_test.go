// Package mirror holds the tests of package mirror against real etcd. It has no other code.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/mirror"
)

func TestMain(m *testing.M) { shared.Main(m) }

// A writer changes, adds and deletes keys all the time, before, while and after they are copied. Copy and updates
// together give what the server has in the end, and no update is missed, repeated or out of order on the way.
func TestCopyAndUpdatesGiveWhatIsThere(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprintf("all keys %t", all), func(t *testing.T) {
			ctx, cli := shared.Context(t), shared.Client(t)
			prefix := shared.Prefix(t)
			watched := prefix
			if all {
				watched = ""
			}
			rng := rand.New(rand.NewSource(1))
			write := func(n int) {
				t.Helper()
				for range n {
					key := fmt.Sprintf("%s%04d", prefix, rng.Intn(600))
					var err error
					if rng.Intn(3) == 0 {
						_, err = cli.Delete(ctx, key)
					} else {
						_, err = cli.Put(ctx, key, fmt.Sprint(rng.Int()))
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			write(900)

			syncer := mirror.NewSyncer(cli, watched, 0)
			pages, errs := syncer.SyncBase(ctx)
			copied := make(map[string]string)
			for page := range pages {
				for _, kv := range page.Kvs {
					copied[string(kv.Key)] = string(kv.Value)
				}
				write(50)
			}
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
			write(200)
			last, err := cli.Put(ctx, prefix+"last", "")
			if err != nil {
				t.Fatal(err)
			}
			update(t, ctx, syncer, copied, last.Header.Revision)

			now, err := cli.Get(ctx, watched, clientv3.WithPrefix())
			if err != nil {
				t.Fatal(err)
			}
			want := make(map[string]string)
			for _, kv := range now.Kvs {
				want[string(kv.Key)] = string(kv.Value)
			}
			if !maps.Equal(copied, want) {
				t.Errorf("%d keys copied, %d there; or their values differ", len(copied), len(want))
			}
		})
	}
}

// update applies the updates up to a revision.
func update(t *testing.T, ctx context.Context, syncer mirror.Syncer, copied map[string]string, last int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen int64
	for resp := range syncer.SyncUpdates(ctx) {
		if err := resp.Err(); err != nil {
			t.Fatal(err)
		}
		for _, ev := range resp.Events {
			key := string(ev.Kv.Key)
			if ev.Kv.ModRevision <= seen {
				t.Errorf("revision %d after %d", ev.Kv.ModRevision, seen)
			}
			seen = ev.Kv.ModRevision
			if ev.Type == clientv3.EventTypeDelete {
				if _, ok := copied[key]; !ok {
					t.Errorf("%s was deleted in revision %d and had not been there", key, seen)
				}
				delete(copied, key)
			} else {
				copied[key] = string(ev.Kv.Value)
			}
		}
		if seen >= last {
			return
		}
	}
	t.Fatal("the updates ended")
}

func TestCompactedRevisionIsAnError(t *testing.T) {
	ctx, cli := shared.Context(t), shared.Client(t)
	prefix := shared.Prefix(t)
	old, err := cli.Put(ctx, prefix+"key", strings.Repeat("v", 10))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if old, err = cli.Put(ctx, prefix+"key", "new"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cli.Compact(ctx, old.Header.Revision); err != nil {
		t.Fatal(err)
	}
	syncer := mirror.NewSyncer(cli, prefix, old.Header.Revision-2)
	pages, errs := syncer.SyncBase(ctx)
	for page := range pages {
		t.Errorf("a page %v", page)
	}
	if err := <-errs; !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("base: %v", err)
	}
	resp := <-syncer.SyncUpdates(ctx)
	if err := resp.Err(); !errors.Is(err, rpctypes.ErrCompacted) || resp.CompactRevision == 0 {
		t.Errorf("updates: %v", err)
	}
}
