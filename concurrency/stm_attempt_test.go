package concurrency

import (
	"context"
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	v3 "github.com/seed-d18e112a/clientv3"
)

// lagging is a member that has not come to the revision of which the leader knows already. It answers what it is not
// asked for as of that revision.
type lagging struct {
	v3.KV
	asked []string
}

const leaderRev = 9

func (m *lagging) Do(_ context.Context, op v3.Op) (v3.OpResponse, error) {
	m.asked = append(m.asked, fmt.Sprintf("%s-%s at %d, serializable %v",
		op.KeyBytes(), op.RangeBytes(), op.Rev(), op.IsSerializable()))
	if op.IsSerializable() && op.Rev() != 0 {
		return v3.OpResponse{}, rpctypes.ErrFutureRev
	}
	resp := &v3.GetResponse{Header: &pb.ResponseHeader{Revision: leaderRev}}
	if op.Rev() != 0 {
		resp.Header.Revision = leaderRev + 1 // it has gone on
	}
	resp.Kvs = []*mvccpb.KeyValue{{Key: op.KeyBytes(), ModRevision: 3}}
	return resp.OpResponse(), nil
}

func (m *lagging) Txn(context.Context) v3.Txn {
	return &scriptedTxn{s: &scripted{script: script{txn: succeeds}}}
}

func succeeds(context.Context) (*v3.TxnResponse, error) { return &v3.TxnResponse{Succeeded: true}, nil }

// Where all reads are of one revision they are so though the member that is asked has not come to it.
func TestSTMReadsPastALaggingMember(t *testing.T) {
	for level, want := range map[Isolation][]string{
		SerializableSnapshot: {
			"a- at 0, serializable false",
			"b- at 9, serializable true", "b- at 9, serializable false",
			"c-d at 9, serializable true", "c-d at 9, serializable false",
		},
		RepeatableReads: {
			"a- at 0, serializable true", "b- at 0, serializable true", "c-d at 0, serializable true",
		},
	} {
		client := v3.NewCtxClient(context.Background())
		m := &lagging{}
		client.KV = m
		_, err := NewSTM(client, func(s STM) error {
			s.Get("a")
			s.Get("b")
			s.(RangeSTM).GetRange("c", "d")
			return nil
		}, WithIsolation(level))
		if err != nil || !slices.Equal(m.asked, want) {
			t.Errorf("level %d asked for %q, %v, want %q", level, m.asked, err, want)
		}
		_ = client.Close()
	}
}
