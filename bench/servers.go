package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"

	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// serverKind is what the clients are measured against.
type serverKind string

const (
	nullKind serverKind = "null server"
	etcdKind serverKind = "etcd"
)

// start starts a server in a process of its own.
func (k serverKind) start(ctx context.Context) (endpoint string, stop func() error, err error) {
	if k == nullKind {
		return startNullServer(ctx)
	}
	cluster, err := etcdtest.Start(ctx, etcdtest.WithChildProcesses(), etcdtest.WithQuota(8<<30))
	if err != nil {
		return "", nil, err
	}
	return cluster.Endpoints()[0], cluster.Close, nil
}

func startNullServer(ctx context.Context) (endpoint string, stop func() error, err error) {
	p, err := startProcess(ctx, nullServerRole)
	if err != nil {
		return "", nil, err
	}
	address, err := p.readLine()
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("null server did not start: %w", err), p.stop())
	}
	return "http://" + strings.TrimSpace(address), p.stop, nil
}

// fillServer lets fill put what it will into the server.
func fillServer(ctx context.Context, endpoint string, fill func(context.Context, pb.KVClient) error) error {
	c, err := newStub(endpoint)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(ctx, c.kv), c.Close()); err != nil {
		return fmt.Errorf("filling the server: %w", err)
	}
	return nil
}

// What etcd takes in a transaction by default, with room to spare.
const (
	maxTxnOps   = 100
	maxTxnBytes = 1 << 20
)

// fillKeys puts the value under each key, in transactions of as many as etcd takes.
func fillKeys(ctx context.Context, kv pb.KVClient, keys []string, value string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	batch := min(maxTxnOps, max(1, maxTxnBytes/len(value)))
	for len(keys) > 0 {
		now := keys[:min(batch, len(keys))]
		keys = keys[len(now):]
		group.Go(func() error {
			_, err := kv.Txn(ctx, &pb.TxnRequest{Success: puts(now, value)})
			return err
		})
	}
	return group.Wait()
}

func puts(keys []string, value string) []*pb.RequestOp {
	ops := make([]*pb.RequestOp, len(keys))
	for i, key := range keys {
		ops[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)},
		}}
	}
	return ops
}
