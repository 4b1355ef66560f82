package concurrency

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	v3 "github.com/seed-d18e112a/clientv3"
)

func TestLeaderHasTheLowestCreateRevision(t *testing.T) {
	c := candidates{}
	if c.leader() != nil {
		t.Error("a leader without candidates")
	}
	var there []*mvccpb.KeyValue // in the order of creation, and of keys where that is the same
	for rev := int64(1); rev < 2000; rev++ {
		key := []byte{byte('a' + rand.N(8))}
		i := slices.IndexFunc(there, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == string(key) })
		kv := &mvccpb.KeyValue{Key: key, CreateRevision: rev / 2, ModRevision: rev}
		switch {
		case i < 0:
			there = append(there, kv)
			slices.SortStableFunc(there, func(a, b *mvccpb.KeyValue) int {
				return cmp.Or(cmp.Compare(a.CreateRevision, b.CreateRevision), cmp.Compare(string(a.Key), string(b.Key)))
			})
			c.apply(&v3.Event{Type: v3.EventTypePut, Kv: kv})
		case rand.N(2) == 0:
			kv.CreateRevision = there[i].CreateRevision
			there[i] = kv
			c.apply(&v3.Event{Type: v3.EventTypePut, Kv: kv})
		default:
			there = slices.Delete(there, i, i+1)
			c.apply(&v3.Event{Type: v3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: key, ModRevision: rev}})
		}
		var want *mvccpb.KeyValue
		if len(there) > 0 {
			want = there[0]
		}
		if got := c.leader(); got != want {
			t.Fatalf("leader %v, want %v", got, want)
		}
	}
}

// Nobody reads what is observed when the client is closed.
func TestObserveEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, client := newScripted(t)
		cluster.does(func(s *script) {
			s.get = func(context.Context) (*v3.GetResponse, error) {
				return &v3.GetResponse{
					Header: &pb.ResponseHeader{Revision: 7}, Kvs: []*mvccpb.KeyValue{{Key: []byte("election/1")}},
				}, nil
			}
		})
		s := newSession(t, client)
		reports := NewElection(s, "election").Observe(context.Background())
		synctest.Wait()
		_ = client.Close()
		synctest.Wait()
		if resp, ok := <-reports; ok {
			t.Errorf("reported %v", resp)
		}
		s.Orphan()
	})
}
