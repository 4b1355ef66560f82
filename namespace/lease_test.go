package namespace

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
)

// leaseStub answers TimeToLive. Nothing else of a Lease concerns keys.
type leaseStub struct {
	clientv3.Lease
	resp *clientv3.LeaseTimeToLiveResponse
	err  error
}

func (l *leaseStub) TimeToLive(context.Context, clientv3.LeaseID, ...clientv3.LeaseOption,
) (*clientv3.LeaseTimeToLiveResponse, error) {
	return l.resp, l.err
}

func TestAttachedKeysAreThoseOfTheNamespace(t *testing.T) {
	keys := func(keys ...string) [][]byte {
		all := make([][]byte, len(keys))
		for i, key := range keys {
			all[i] = []byte(key)
		}
		return all
	}
	all := keys("o/a", "p/", "p/a", "p/b/c", "pa", "q")
	for prefix, want := range map[string][][]byte{
		"p/": keys("a", "b/c"),
		"":   all,
		"r":  keys(),
	} {
		shared := &clientv3.LeaseTimeToLiveResponse{ID: 1, TTL: 2, GrantedTTL: 3, Keys: all}
		l := NewLease(&leaseStub{resp: shared}, prefix)
		for range 2 {
			resp, err := l.TimeToLive(t.Context(), 1, clientv3.WithAttachedKeys())
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(resp.Keys, want) || resp.ID != 1 || resp.TTL != 2 || resp.GrantedTTL != 3 {
				t.Errorf("prefix %q: %q, %+v", prefix, resp.Keys, resp)
			}
		}
		if !reflect.DeepEqual(shared.Keys, all) {
			t.Errorf("the response was changed: %q", shared.Keys)
		}
	}
}

func TestLeaseWithoutKeysIsPassedOn(t *testing.T) {
	resp, err := NewLease(&leaseStub{resp: &clientv3.LeaseTimeToLiveResponse{TTL: -1}}, "p/").TimeToLive(t.Context(), 1)
	if err != nil || resp.TTL != -1 || resp.Keys != nil {
		t.Errorf("%+v, %v", resp, err)
	}
	_, err = NewLease(&leaseStub{err: rpctypes.ErrNoLeader}, "p/").TimeToLive(t.Context(), 1)
	if !errors.Is(err, rpctypes.ErrNoLeader) {
		t.Errorf("error %v", err)
	}
}
