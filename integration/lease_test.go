package integration

import (
	"context"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
)

// unknownLease is the id of no lease that a test grants.
const unknownLease = clientv3.LeaseID(0x7eef)

func (e *env) grant(t *testing.T, ttl int64) clientv3.LeaseID {
	t.Helper()
	resp, err := e.Grant(e.ctx, ttl)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = e.Revoke(context.WithoutCancel(e.ctx), resp.ID) }) // it may be gone
	return resp.ID
}

func TestLeaseGrantRevoke(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		resp, err := e.Grant(e.ctx, 600)
		if err != nil {
			t.Fatal(err)
		}
		checkHeader(t, resp.ResponseHeader)
		if resp.ID == clientv3.NoLease || resp.TTL != 600 || resp.Error != "" {
			t.Errorf("granted %+v", resp)
		}
		e.put(t, e.prefix+"a", "", clientv3.WithLease(resp.ID))
		e.put(t, e.prefix+"b", "", clientv3.WithLease(resp.ID))
		e.put(t, e.prefix+"c", "")
		revoked, err := e.Revoke(e.ctx, resp.ID)
		if err != nil {
			t.Fatal(err)
		}
		checkHeader(t, revoked.Header)
		if left := show(e.get(t, e.prefix, clientv3.WithPrefix()), e.prefix); left != "c" {
			t.Errorf("%q left after the lease, want the key without one", left)
		}
	})
}

func TestLeaseChosenID(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		const id = clientv3.LeaseID(0xabcdef)
		chosen := clientv3.WithLeaseID(e.ctx, id)
		resp, err := e.Grant(chosen, 600)
		if err != nil || resp.ID != id {
			t.Fatalf("granted %+v, %v", resp, err)
		}
		if _, err := e.Grant(chosen, 600); err != rpctypes.ErrLeaseExist {
			t.Errorf("granted again: %v", err)
		}
		if _, err := e.Revoke(e.ctx, id); err != nil {
			t.Error(err)
		}
	})
}

func TestLeaseTTLBounds(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		for _, ttl := range []int64{0, -1} {
			// The server raises it to the least that it can keep to.
			resp, err := e.Grant(e.ctx, ttl)
			if err != nil || resp.TTL <= 0 {
				t.Errorf("granted %+v, %v for a TTL of %d", resp, err, ttl)
			}
		}
		id := e.grant(t, clientv3.MaxLeaseTTL)
		if got, err := e.TimeToLive(e.ctx, id); err != nil || got.GrantedTTL != clientv3.MaxLeaseTTL {
			t.Errorf("the longest lease: %+v, %v", got, err)
		}
		if _, err := e.Grant(e.ctx, clientv3.MaxLeaseTTL+1); err != rpctypes.ErrLeaseTTLTooLarge {
			t.Errorf("longer: %v", err)
		}
	})
}

func TestLeaseTimeToLive(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		id := e.grant(t, 600)
		keys := []string{e.prefix + "a", e.prefix + "b"}
		for _, k := range keys {
			e.put(t, k, "", clientv3.WithLease(id))
		}
		got, err := e.TimeToLive(e.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		checkHeader(t, got.ResponseHeader)
		if got.ID != id || got.GrantedTTL != 600 || got.TTL <= 0 || got.TTL > 600 || got.Keys != nil {
			t.Errorf("%+v", got)
		}
		got, err = e.TimeToLive(e.ctx, id, clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		var attached []string
		for _, k := range got.Keys {
			attached = append(attached, string(k))
		}
		slices.Sort(attached)
		if !slices.Equal(attached, keys) {
			t.Errorf("keys %q, want %q", attached, keys)
		}
		none, err := e.TimeToLive(e.ctx, unknownLease)
		if err != nil || none.TTL != -1 || none.ID != unknownLease || none.GrantedTTL != 0 {
			t.Errorf("no lease: %+v, %v", none, err)
		}
	})
}

func TestLeases(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		var want []clientv3.LeaseID
		for range 20 {
			want = append(want, e.grant(t, 600))
		}
		e.catchUp(t) // a member lists the leases that it knows of
		resp, err := e.Leases(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		checkHeader(t, resp.ResponseHeader)
		for _, id := range want {
			if !slices.Contains(resp.Leases, clientv3.LeaseStatus{ID: id}) {
				t.Errorf("%x is not among the %d leases", id, len(resp.Leases))
			}
		}
	})
}

func TestKeepAliveOnce(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		id := e.grant(t, 600)
		for range 3 {
			resp, err := e.KeepAliveOnce(e.ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			checkHeader(t, resp.ResponseHeader)
			if resp.ID != id || resp.TTL != 600 {
				t.Errorf("renewed %+v", resp)
			}
		}
		cancelled, cancel := context.WithCancel(e.ctx)
		cancel()
		if _, err := e.KeepAliveOnce(cancelled, id); err != context.Canceled {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}

func TestUnknownLease(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		for name, call := range map[string]func() error{
			"put":    func() error { _, err := e.Put(e.ctx, "k", "", clientv3.WithLease(unknownLease)); return err },
			"revoke": func() error { _, err := e.Revoke(e.ctx, unknownLease); return err },
			"renew":  func() error { _, err := e.KeepAliveOnce(e.ctx, unknownLease); return err },
		} {
			if err := call(); err != rpctypes.ErrLeaseNotFound {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A lease that nobody renews ends, and its keys with it.
func TestLeaseEnds(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		id := e.grant(t, 1)
		rev := e.put(t, e.prefix, "", clientv3.WithLease(id))
		ctx, cancel := context.WithTimeout(e.ctx, 20*time.Second)
		defer cancel()
		for len(e.get(t, e.prefix).Kvs) > 0 {
			select {
			case <-ctx.Done():
				t.Fatal("the key is still there")
			case <-time.After(50 * time.Millisecond):
			}
		}
		if got := e.get(t, e.prefix, clientv3.WithRev(rev)); len(got.Kvs) != 1 {
			t.Errorf("at revision %d: %v", rev, got)
		}
		if got, err := e.TimeToLive(e.ctx, id); err != nil || got.TTL != -1 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
