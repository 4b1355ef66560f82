package main

import (
	"context"

	"github.com/seed-d18e112a/clientv3/coalesce"
)

// coalescedClient merges what its callers read and write at the same time.
type coalescedClient struct {
	ownClient
	writer *coalesce.Writer
}

func newCoalesced(endpoint string) (*coalescedClient, error) {
	cli, err := newOwn(endpoint)
	if err != nil {
		return nil, err
	}
	writer := coalesce.NewWriter(cli.KV)
	cli.KV = coalesce.NewKV(cli.KV)
	return &coalescedClient{cli, writer}, nil
}

func (c *coalescedClient) Put(ctx context.Context, key, value string) error {
	_, err := c.writer.Put(ctx, key, value)
	return err
}
