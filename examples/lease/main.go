// Command lease keeps a key alive as long as the program does its work, and lets it go when it stops: what a service
// does to be found only while it runs.
package main

import (
	"context"
	"fmt"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/examples/internal/server"
)

const (
	ttl      = 3 // seconds
	renewals = 3
)

func main() { server.Main(run) }

func run(ctx context.Context, endpoints []string) error {
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer cli.Close()

	lease, err := cli.Grant(ctx, ttl)
	if err != nil {
		return err
	}
	if _, err := cli.Put(ctx, "services/web/1", "10.0.0.1:80", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	if err := work(ctx, cli, lease.ID); err != nil {
		return err
	}
	// Revoking deletes the key at once. Without it, it would go when the time to live has passed.
	if _, err := cli.Revoke(ctx, lease.ID); err != nil {
		return err
	}
	left, err := cli.Get(ctx, "services/web/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	fmt.Printf("revoked: %d keys left\n", len(left.Kvs))
	return nil
}

// work is done as long as the lease is kept.
func work(ctx context.Context, cli *clientv3.Client, id clientv3.LeaseID) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the renewals
	kept, err := cli.KeepAlive(ctx, id)
	if err != nil {
		return err
	}
	for i := range renewals {
		resp, ok := <-kept
		if !ok {
			// Whatever the key stood for is over: others see it gone.
			return fmt.Errorf("lease %x is lost", id)
		}
		fmt.Printf("renewal %d: lease %x has %d s again\n", i+1, resp.ID, resp.TTL)
	}
	return nil
}
