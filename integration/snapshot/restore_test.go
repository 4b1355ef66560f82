package snapshot

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/snapshot"
)

// What is saved of a server with 200 MB is what etcdutl makes a server of, down to the versions of the keys.
func TestSavedFileIsRestoredByEtcdutl(t *testing.T) {
	const large, small = megabytes, 2000
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	source := etcdtest.Run(t)
	cli := shared.ClientOf(t, source.Endpoints()...)
	fill(ctx, t, cli, large, small)
	keys, want := digest(ctx, t, cli)
	if keys != large+small {
		t.Fatalf("%d keys written", keys)
	}

	dir := t.TempDir()
	path := filepath.Join(dir, "backup.db")
	var size int64
	_, err := snapshot.SaveWithProgress(ctx, zap.NewNop(), shared.Config(t, source.Endpoints()...), path,
		func(_, total int64) { size = total })
	if err != nil {
		t.Fatal(err)
	}
	if size < large<<20 {
		t.Errorf("the snapshot has %d bytes", size)
	}
	if err := source.Close(); err != nil { // it has all of them in memory
		t.Fatal(err)
	}

	name := source.Member(0).Name() // as the one that is to go on from there has it
	const peer = "http://127.0.0.1:2380"
	//nolint:gosec // the arguments are the test's own
	restore := exec.CommandContext(ctx, "go", "tool", "etcdutl", "snapshot", "restore", path, "--name", name,
		"--initial-cluster", name+"="+peer, "--initial-advertise-peer-urls", peer, "--data-dir", filepath.Join(dir, name))
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("etcdutl: %v\n%s", err, out)
	}
	restored := etcdtest.Run(t, etcdtest.WithDataDir(dir))
	keys, got := digest(ctx, t, shared.ClientOf(t, restored.Endpoints()...))
	if keys != large+small || got != want {
		t.Errorf("%d keys restored of %d, or not as they were", keys, large+small)
	}
}

// fill writes keys of 1 MiB each, and small ones, some of them in several versions, and some to be deleted.
func fill(ctx context.Context, t *testing.T, cli *clientv3.Client, large, small int) {
	t.Helper()
	value := make([]byte, 1<<20)
	rand.New(rand.NewSource(1)).Read(value)
	var writers errgroup.Group
	writers.SetLimit(4)
	for i := range large {
		writers.Go(func() error {
			_, err := cli.Put(ctx, fmt.Sprint("large/", i), fmt.Sprint(i)+string(value[:len(value)-8]))
			return err
		})
	}
	const batch = 100
	for begin := 0; begin < small; begin += batch {
		puts := make([]clientv3.Op, batch)
		for i := range puts {
			puts[i] = clientv3.OpPut(fmt.Sprint("small/", begin+i), fmt.Sprint("value ", i))
		}
		writers.Go(func() error {
			_, err := cli.Txn(ctx).Then(puts...).Commit()
			return err
		})
	}
	if err := writers.Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := cli.Put(ctx, fmt.Sprint("small/", i), "another version"); err != nil {
			t.Fatal(err)
		}
		if _, err := cli.Put(ctx, fmt.Sprint("gone/", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cli.Delete(ctx, "gone/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
}

// digest returns the number of keys and a sum of all of them, with their values, revisions and versions.
func digest(ctx context.Context, t *testing.T, cli *clientv3.Client) (keys int, sum [sha256.Size]byte) {
	t.Helper()
	stream, err := cli.GetStream(ctx, "", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.New()
	for chunk := range stream {
		if err := chunk.Err(); err != nil {
			t.Fatal(err)
		}
		for _, kv := range chunk.Kvs {
			encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(kv)
			if err != nil {
				t.Fatal(err)
			}
			hash.Write(encoded)
			keys++
		}
	}
	return keys, [sha256.Size]byte(hash.Sum(nil))
}
