// Command kv writes, reads and deletes keys: one, many at once, and as they were before.
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/examples/internal/server"
)

const prefix = "fruit/"

func main() { server.Main(run) }

func run(ctx context.Context, endpoints []string) error {
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer cli.Close()

	revision, err := write(ctx, cli)
	if err != nil {
		return err
	}
	if err := read(ctx, cli, revision); err != nil {
		return err
	}
	deleted, err := cli.Delete(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	fmt.Printf("deleted %d keys\n", deleted.Deleted)
	return nil
}

// write writes some keys, one of them twice, and returns the revision before the second time.
func write(ctx context.Context, cli *clientv3.Client) (int64, error) {
	// Each call waits no longer than its context allows.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var revision int64
	for _, name := range []string{"apple", "pear", "plum"} {
		put, err := cli.Put(ctx, prefix+name, "10")
		if err != nil {
			// After a timeout, say, nobody knows whether the key was written; after a refusal it was not.
			return 0, fmt.Errorf("put (may have been applied: %t): %w", clientv3.MayHaveApplied(err), err)
		}
		revision = put.Header.Revision
	}
	put, err := cli.Put(ctx, prefix+"plum", "7", clientv3.WithPrevKV())
	if err != nil {
		return 0, err
	}
	fmt.Printf("plum was %s before\n", put.PrevKv.Value)
	return revision, nil
}

func read(ctx context.Context, cli *clientv3.Client, revision int64) error {
	one, err := cli.Get(ctx, prefix+"plum")
	if err != nil {
		return err
	}
	fmt.Printf("plum = %s, written %d times\n", one.Kvs[0].Value, one.Kvs[0].Version)

	missing, err := cli.Get(ctx, prefix+"fig")
	if err != nil {
		return err
	}
	fmt.Printf("fig: %d keys, which is no error\n", len(missing.Kvs))

	all, err := cli.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return err
	}
	for _, kv := range all.Kvs {
		fmt.Printf("%s = %s\n", kv.Key, kv.Value)
	}

	before, err := cli.Get(ctx, prefix+"plum", clientv3.WithRev(revision))
	if err != nil {
		return err
	}
	fmt.Printf("plum at revision %d = %s\n", revision, before.Kvs[0].Value)
	return nil
}
