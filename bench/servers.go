package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// serverKind is what the clients are measured against.
type serverKind string

const (
	nullKind serverKind = "null server"
	etcdKind serverKind = "etcd"
)

// start starts a server in a process of its own, with what fill puts into it.
func (k serverKind) start(ctx context.Context, fill func(context.Context, pb.KVClient) error) (
	endpoint string, stop func() error, err error,
) {
	if k == nullKind {
		return startNullServer(ctx)
	}
	cluster, err := etcdtest.Start(ctx, etcdtest.WithChildProcesses(), etcdtest.WithQuota(8<<30))
	if err != nil {
		return "", nil, err
	}
	endpoint = cluster.Endpoints()[0]
	if fill != nil {
		if err := fillAt(ctx, endpoint, fill); err != nil {
			return "", nil, fmt.Errorf("filling etcd: %w", errors.Join(err, cluster.Close()))
		}
	}
	return endpoint, cluster.Close, nil
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

func fillAt(ctx context.Context, endpoint string, fill func(context.Context, pb.KVClient) error) error {
	conn, err := grpc.NewClient(strings.TrimPrefix(endpoint, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return err
	}
	defer conn.Close()
	return fill(ctx, pb.NewKVClient(conn))
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
