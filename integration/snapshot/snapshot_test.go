// Package snapshot holds the tests of package snapshot against real etcd. It has no other code.
package snapshot

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/snapshot"
)

func TestMain(m *testing.M) { shared.Main(m) }

func TestSavedFileIsTheDatabase(t *testing.T) {
	ctx, cli := shared.Context(t), shared.Client(t)
	marker := "marked by " + shared.Prefix(t)
	if _, err := cli.Put(ctx, shared.Prefix(t), marker); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "backup.db")
	var received, total int64
	_, err := snapshot.SaveWithProgress(ctx, zap.NewNop(), shared.Config(t, shared.Cluster(t).Endpoints()...), path,
		func(r, n int64) { received, total = r, n })
	if err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(saved)) != total || received != total {
		t.Errorf("%d bytes saved, %d of %d reported", len(saved), received, total)
	}
	database, sum := saved[:len(saved)-sha256.Size], saved[len(saved)-sha256.Size:]
	if want := sha256.Sum256(database); !bytes.Equal(sum, want[:]) || !bytes.Contains(database, []byte(marker)) {
		t.Error("the file has a wrong sum, or not the key")
	}
}

// The connection is cut at 20 places of the snapshot. Each time there is an error and no file; then, uncut, all is there.
func TestSnapshotThatIsCutLeavesNoFile(t *testing.T) {
	ctx := shared.Context(t)
	cluster := etcdtest.Run(t, etcdtest.WithProxies())
	cli := shared.ClientOf(t, cluster.Endpoints()...)
	for i := range 40 {
		if _, err := cli.Put(ctx, fmt.Sprint("key", i), strings.Repeat("v", 200<<10)); err != nil {
			t.Fatal(err)
		}
	}
	proxy := cluster.Member(0).Proxy()
	dir := t.TempDir()
	path := filepath.Join(dir, "backup.db")
	rng := rand.New(rand.NewSource(1))
	for range 20 {
		// Of the last bytes so many may have arrived before the cut that it comes too late.
		at := 0.8 * rng.Float64()
		cut := false
		_, err := snapshot.SaveWithProgress(ctx, zap.NewNop(), shared.Config(t, cluster.Endpoints()...), path,
			func(received, total int64) {
				if !cut && float64(received) >= at*float64(total) {
					cut = true
					proxy.Cut()
				}
			})
		entries, readErr := os.ReadDir(dir)
		if err == nil || readErr != nil || len(entries) != 0 {
			t.Errorf("cut at %.0f %%: error %v, %v; files %v", 100*at, err, readErr, entries)
		}
		proxy.Heal()
	}
	_, err := snapshot.SaveWithVersion(ctx, zap.NewNop(), shared.Config(t, cluster.Endpoints()...), path)
	if err != nil {
		t.Fatal(err)
	}
}
