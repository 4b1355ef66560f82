// Command snapshot saves the database of a member to a file: a backup, which etcdutl restores.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/examples/internal/server"
	"github.com/seed-d18e112a/clientv3/snapshot"
)

func main() { server.Main(run) }

func run(ctx context.Context, endpoints []string) error {
	// A snapshot is of one member; any will do.
	cfg := clientv3.Config{Endpoints: endpoints[:1]}
	if err := fill(ctx, cfg); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "snapshot-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "backup.db")

	tenth := int64(0)
	_, err = snapshot.SaveWithProgress(ctx, zap.NewNop(), cfg, path, func(received, total int64) {
		if now := 10 * received / total; now > tenth {
			tenth = now
			fmt.Printf("%d %% of %d bytes\n", 10*tenth, total)
		}
	})
	if err != nil {
		return err // and there is no file, not even a part of one
	}
	fmt.Printf("saved to %s\n", path)
	fmt.Printf("etcdutl snapshot restore %s --data-dir new.etcd   # would make a member of it\n", path)
	return nil
}

// fill writes something to save.
func fill(ctx context.Context, cfg clientv3.Config) error {
	cli, err := clientv3.New(cfg)
	if err != nil {
		return err
	}
	defer cli.Close()
	for i := range 20 {
		if _, err := cli.Put(ctx, fmt.Sprint("saved/", i), strings.Repeat("x", 64<<10)); err != nil {
			return err
		}
	}
	return nil
}
