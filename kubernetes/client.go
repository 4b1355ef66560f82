// Package kubernetes has the operations of etcd that the Kubernetes API server is built on: reads of a key and of a
// prefix page by page at one revision, and writes that succeed only if the key has not changed since it was read.
package kubernetes

import (
	"context"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/seed-d18e112a/clientv3"
)

// Client is a client with the operations of Interface. Its own methods Get, List, Count, OptimisticPut and
// OptimisticDelete are those of Interface; the Get of an ordinary client is Client.KV.Get.
type Client struct {
	*clientv3.Client
	// Kubernetes is the Client itself at first. It is what programs are to call, so that it can be decorated.
	Kubernetes Interface
}

var _ Interface = Client{}

// New makes a client of the cluster at cfg.Endpoints, as clientv3.New does. It must be closed.
func New(cfg clientv3.Config) (*Client, error) {
	cli, err := clientv3.New(cfg)
	if err != nil {
		return nil, err
	}
	k := &Client{Client: cli}
	k.Kubernetes = k
	return k, nil
}

// Get reads a key.
func (k Client) Get(ctx context.Context, key string, opts GetOptions) (resp GetResponse, err error) {
	got, err := k.KV.Get(ctx, key, clientv3.WithRev(opts.Revision), clientv3.WithLimit(1))
	if err != nil {
		return resp, err
	}
	return GetResponse{KV: first(got.Kvs), Revision: got.Header.GetRevision()}, nil
}

// List reads the keys that begin with a prefix, or one page of them.
func (k Client) List(ctx context.Context, prefix string, opts ListOptions) (resp ListResponse, err error) {
	from := prefix
	if opts.Continue != "" {
		if !strings.HasPrefix(opts.Continue, prefix) {
			return resp, fmt.Errorf("kubernetes: key to continue from, %q, does not begin with %q", opts.Continue, prefix)
		}
		from = opts.Continue
	}
	if from == "" {
		from = "\x00" // the first key there is
	}
	got, err := k.KV.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)),
		clientv3.WithRev(opts.Revision), clientv3.WithLimit(opts.Limit))
	if err != nil {
		return resp, err
	}
	return ListResponse{Kvs: got.Kvs, Count: got.Count, Revision: got.Header.GetRevision()}, nil
}

// Count counts the keys that begin with a prefix.
func (k Client) Count(ctx context.Context, prefix string, _ CountOptions) (int64, error) {
	got, err := k.KV.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return got.Count, nil
}

// OptimisticPut writes a key if it has not changed since expectedRevision.
func (k Client) OptimisticPut(ctx context.Context, key string, value []byte, expectedRevision int64, opts PutOptions,
) (resp PutResponse, err error) {
	put := clientv3.OpPut(key, string(value), clientv3.WithLease(opts.LeaseID))
	kv, succeeded, revision, err := k.unchanged(ctx, key, expectedRevision, put, opts.GetOnFailure)
	return PutResponse{KV: kv, Succeeded: succeeded, Revision: revision}, err
}

// OptimisticDelete deletes a key if it has not changed since expectedRevision.
func (k Client) OptimisticDelete(ctx context.Context, key string, expectedRevision int64, opts DeleteOptions,
) (resp DeleteResponse, err error) {
	del := clientv3.OpDelete(key)
	kv, succeeded, revision, err := k.unchanged(ctx, key, expectedRevision, del, opts.GetOnFailure)
	return DeleteResponse{KV: kv, Succeeded: succeeded, Revision: revision}, err
}

// unchanged carries out a write if the key has not changed since the revision. If it has, get asks for what it is now.
func (k Client) unchanged(ctx context.Context, key string, since int64, write clientv3.Op, get bool,
) (kv *mvccpb.KeyValue, succeeded bool, revision int64, err error) {
	txn := k.KV.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", since)).Then(write)
	if get {
		txn = txn.Else(clientv3.OpGet(key))
	}
	resp, err := txn.Commit()
	if err != nil {
		return nil, false, 0, err
	}
	if !resp.Succeeded && get {
		kv = first(rangeOf(resp).GetKvs())
	}
	return kv, resp.Succeeded, resp.Header.GetRevision(), nil
}

// rangeOf returns the response of a transaction's one get.
func rangeOf(resp *clientv3.TxnResponse) *pb.RangeResponse {
	if len(resp.Responses) == 0 {
		return nil
	}
	return resp.Responses[0].GetResponseRange()
}

func first(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}
