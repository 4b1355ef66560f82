package recipe

import (
	"context"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	v3 "github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
)

const leaseID = 0x1234

// creations is a cluster that answers attempts to create a key as a test says, one after the other.
type creations struct {
	v3.KV
	v3.Lease
	answers []func() (*v3.TxnResponse, error)
	keys    []string // that were to be created
}

func (c *creations) KeepAlive(ctx context.Context, _ v3.LeaseID) (<-chan *v3.LeaseKeepAliveResponse, error) {
	renewals := make(chan *v3.LeaseKeepAliveResponse)
	context.AfterFunc(ctx, func() { close(renewals) })
	return renewals, nil
}

func (c *creations) Close() error { return nil }

func (c *creations) Txn(context.Context) v3.Txn { return creation{c} }

type creation struct{ *creations }

func (c creation) If(...v3.Cmp) v3.Txn { return c }

func (c creation) Then(ops ...v3.Op) v3.Txn {
	c.keys = append(c.keys, string(ops[0].KeyBytes()))
	return c
}

func (c creation) Else(...v3.Op) v3.Txn { return c }

func (c creation) Commit() (*v3.TxnResponse, error) { return c.answers[len(c.keys)-1]() }

func created() (*v3.TxnResponse, error) {
	return &v3.TxnResponse{Header: &pb.ResponseHeader{Revision: 9}, Succeeded: true}, nil
}

func lost() (*v3.TxnResponse, error) { return nil, rpctypes.ErrTimeout }

func refused() (*v3.TxnResponse, error) { return nil, rpctypes.ErrNoLeader }

// exists is the answer that the key is there, with the lease.
func exists(lease int64) func() (*v3.TxnResponse, error) {
	return func() (*v3.TxnResponse, error) {
		kvs := []*mvccpb.KeyValue{{CreateRevision: 7, Lease: lease}}
		get := &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Kvs: kvs}}
		return &v3.TxnResponse{
			Header: &pb.ResponseHeader{Revision: 9}, Responses: []*pb.ResponseOp{{Response: get}},
		}, nil
	}
}

// A key that is there is taken for the own one only if it may be: other goroutines have the same lease.
func TestEphemeralKeyIsNobodyElses(t *testing.T) {
	type answers = []func() (*v3.TxnResponse, error)
	for name, c := range map[string]struct {
		answers answers
		own     int   // the attempt whose key it is
		created int64 // its revision
	}{
		"created":                      {answers{created}, 0, 9},
		"another's":                    {answers{exists(1), created}, 1, 9},
		"another goroutine's":          {answers{exists(leaseID), created}, 1, 9},
		"refused, another goroutine's": {answers{refused, exists(leaseID), created}, 2, 9},
		"answer lost":                  {answers{lost, exists(leaseID)}, 0, 7},
		"request lost":                 {answers{lost, created}, 0, 9},
		"request lost, another's":      {answers{lost, exists(1), exists(leaseID), created}, 3, 9},
	} {
		t.Run(name, func(t *testing.T) {
			client := v3.NewCtxClient(context.Background())
			cluster := &creations{answers: c.answers}
			client.KV, client.Lease = cluster, cluster
			s, err := concurrency.NewSession(client, concurrency.WithLease(leaseID))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Orphan()
			kv, err := newEphemeralKV(t.Context(), s, "prefix")
			if err != nil {
				t.Fatal(err)
			}
			if len(cluster.keys) != len(c.answers) || kv.Key() != cluster.keys[c.own] || kv.created != c.created {
				t.Errorf("key %q of %d, want that of attempt %d of %q in %d",
					kv.Key(), kv.created, c.own, cluster.keys, c.created)
			}
		})
	}
}
