// Command watch prints the changes below a prefix while something else makes them, and shows how to go on where a watch
// has ended.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/examples/internal/server"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

const (
	prefix  = "config/"
	changes = 5
)

func main() { server.Main(run) }

func run(ctx context.Context, endpoints []string) error {
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer cli.Close()

	// First what there is now, then every change since: the revision of the answer joins the two without a gap.
	now, err := cli.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	fmt.Printf("%d keys at revision %d\n", len(now.Kvs), now.Header.Revision)

	written := make(chan error, 1)
	go func() { written <- write(ctx, cli) }()
	if err := follow(ctx, cli, now.Header.Revision+1); err != nil {
		return err
	}
	return <-written
}

// write makes the changes.
func write(ctx context.Context, cli *clientv3.Client) error {
	for i := range changes - 1 {
		if _, err := cli.Put(ctx, prefix+"level", fmt.Sprint(i)); err != nil {
			return err
		}
	}
	_, err := cli.Delete(ctx, prefix+"level")
	return err
}

// follow prints the changes from a revision on. The watch survives lost connections and restarted members by itself.
func follow(ctx context.Context, cli *clientv3.Client, revision int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the watch
	seen := 0
	for resp := range cli.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision)) {
		if err := resp.Err(); err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) {
				return fmt.Errorf("revisions before %d are gone, read everything again: %w", resp.CompactRevision, err)
			}
			return err
		}
		for _, ev := range resp.Events {
			fmt.Printf("revision %d: %s %s = %q\n", ev.Kv.ModRevision, ev.Type, ev.Kv.Key, ev.Kv.Value)
			if seen++; seen == changes {
				return nil
			}
		}
	}
	return ctx.Err()
}
