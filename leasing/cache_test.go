package leasing

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/stub"
)

const lease = clientv3.LeaseID(7)

// newCache returns a cache with a lease that lives for a minute.
func newCache() *cache {
	c := &cache{}
	c.init()
	c.begin(lease, time.Now().Add(time.Minute))
	return c
}

func header(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }

func pair(key, value string, rev int64) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: rev, CreateRevision: rev, Version: 1}
}

func follow() context.CancelFunc { return func() {} }

// own makes a key owned since a revision, with a value of that revision.
func (c *cache) own(t *testing.T, key string, rev int64) *entry {
	t.Helper()
	_, e, _ := c.read(clientv3.OpGet(key))
	if e == nil || !c.grant(e, rev, header(rev), pair(key, "v", rev), follow) {
		t.Fatalf("%s cannot be acquired", key)
	}
	return e
}

// answers returns the value that the cache has for a key, or what it says instead.
func (c *cache) answers(key string) string {
	resp, wanted, _ := c.read(clientv3.OpGet(key))
	switch {
	case wanted != nil:
		c.mu.Lock()
		c.remove(wanted)
		c.mu.Unlock()
		return "to be acquired"
	case resp == nil:
		return "to be asked for"
	case len(resp.Kvs) == 0:
		return "missing"
	default:
		return string(resp.Kvs[0].Value)
	}
}

func (c *cache) expect(t *testing.T, when, key, want string) {
	t.Helper()
	if got := c.answers(key); got != want {
		t.Errorf("%s: %s is %s, want %s", when, key, got, want)
	}
}

func TestNothingIsAnsweredOnceTheLeaseMayHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache()
		c.own(t, "a", 5)
		time.Sleep(time.Minute - time.Nanosecond)
		c.expect(t, "just before", "a", "v")
		time.Sleep(time.Nanosecond)
		c.expect(t, "at the end", "a", "to be asked for")
		c.expect(t, "at the end", "b", "to be asked for")
		c.extend(time.Now().Add(time.Minute))
		c.expect(t, "renewed after all", "a", "v")
		c.end()
		c.expect(t, "given up", "a", "to be asked for")
		c.begin(lease+1, time.Now().Add(time.Minute))
		c.expect(t, "with another lease", "a", "to be acquired")
	})
}

// The machine has slept, and its monotonic clock with it.
func TestTheWallClockCounts(t *testing.T) {
	c := newCache()
	c.own(t, "a", 5)
	c.until = time.Now().Add(time.Hour).Round(0).Add(-2 * time.Hour) // wall clock only
	c.expect(t, "slept over the end", "a", "to be asked for")
}

func TestAcquisitionsThatAreOverBeforeTheyAreKnown(t *testing.T) {
	for name, tt := range map[string]struct {
		between func(*cache)
		granted bool
	}{
		"nothing happened":         {func(*cache) {}, true},
		"lost before":              {func(c *cache) { c.lose("a", 4) }, true},
		"revoked since":            {func(c *cache) { c.lose("a", 6) }, false},
		"the lease was given up":   {func(c *cache) { c.end() }, false},
		"another key was lost":     {func(c *cache) { c.lose("b", 6) }, true},
		"lost before, and revoked": {func(c *cache) { c.lose("a", 6); c.lose("a", 4) }, false},
	} {
		c := newCache()
		_, e, _ := c.read(clientv3.OpGet("a"))
		c.expect(t, "while it is acquired", "a", "to be asked for")
		tt.between(c)
		if got := c.grant(e, 5, header(5), nil, follow); got != tt.granted {
			t.Errorf("%s: granted %t", name, got)
		}
		want := "missing"
		if !tt.granted {
			want = "to be asked for"
		}
		c.expect(t, name, "a", want)
	}
}

func TestLostKeysAreLeftToOthersForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache()
		stopped := false
		e := c.own(t, "a", 5)
		e.stop = func() { stopped = true }
		if c.lose("a", 5) || stopped {
			t.Error("lost by what came before")
		}
		if !c.lose("a", 6) || !stopped {
			t.Error("not lost")
		}
		if c.lose("a", 7) {
			t.Error("lost twice")
		}
		time.Sleep(restTime - time.Nanosecond)
		c.expect(t, "just lost", "a", "to be asked for")
		time.Sleep(time.Nanosecond)
		c.expect(t, "later", "a", "to be acquired")
		rest := func(n int, apart time.Duration) {
			for i := range n {
				c.abandon(&entry{key: fmt.Sprint(i)})
				time.Sleep(apart)
			}
		}
		rest(10*minSweep, 0)
		c.expect(t, "with many others", "0", "to be asked for")
		time.Sleep(restTime)
		rest(20*minSweep, restTime/10)
		if n := len(c.resting); n > minSweep {
			t.Errorf("%d keys are left to others", n)
		}
	})
}

func TestTheLatestRevisionCounts(t *testing.T) {
	c := newCache()
	e := c.own(t, "a", 5)
	for _, step := range []struct {
		rev  int64
		kv   *mvccpb.KeyValue
		want string
	}{
		{8, pair("a", "eight", 8), "eight"},
		{7, pair("a", "seven", 7), "eight"}, // an event that comes after the response to a later write
		{8, pair("a", "again", 8), "eight"},
		{9, nil, "missing"},
	} {
		if !c.learn(e, header(step.rev), step.rev, step.kv) {
			t.Errorf("revision %d: given up", step.rev)
		}
		c.expect(t, fmt.Sprint("revision ", step.rev), "a", step.want)
	}
	leased := pair("a", "leased", 10)
	leased.Lease = 99
	if c.learn(e, header(10), 10, leased) {
		t.Error("a key with a lease is kept")
	}
	c.expect(t, "with a lease", "a", "to be acquired")
}

// As in the official client: callers take the revision of a transaction for one that their earlier reads are not past.
func TestTransactionFromMemoryIsAsOfTheLatestRevisionKnown(t *testing.T) {
	c := newCache()
	c.own(t, "a", 5)
	b := c.own(t, "b", 9)
	read := func(want int64) {
		t.Helper()
		resp := c.evaluate(nil, []clientv3.Op{clientv3.OpGet("a")}, nil)
		if resp == nil || resp.Header.Revision != want {
			t.Errorf("%v, want revision %d", resp, want)
		}
	}
	read(9)
	c.learn(b, header(12), 11, pair("b", "new", 11))
	read(11)
	c.lose("b", 13)
	read(11)
	if resp := c.evaluate(nil, nil, nil); resp != nil {
		t.Errorf("a transaction without a key is answered: %v", resp)
	}
}

func TestTooManyKeysAreGivenUp(t *testing.T) {
	c := newCache()
	for i := range maxEntries {
		c.own(t, fmt.Sprint(i), 5)
	}
	if e := c.surplus(); e != nil {
		t.Errorf("%s is too many", e.key)
	}
	c.own(t, "one more", 5)
	if e := c.surplus(); e == nil || len(c.entries) != maxEntries || c.entries[e.key] != nil {
		t.Errorf("%v given up, %d left", e, len(c.entries))
	}
}

// newKV returns a KV whose cluster is made up.
func newKV(t *testing.T, cluster *stub.KV) *leasingKV {
	t.Helper()
	client := clientv3.NewCtxClient(t.Context())
	client.KV, client.Watcher = cluster, &stub.Watcher{}
	kv := &leasingKV{KV: cluster, client: client, names: newNames("L/"), doubt: make(chan struct{}, 1)}
	kv.cache.init()
	kv.cache.begin(lease, time.Now().Add(time.Minute))
	kv.ctx, kv.cancel = context.WithCancel(t.Context())
	t.Cleanup(func() {
		kv.close()
		_ = client.Close()
	})
	return kv
}

// released returns the leasing keys that were given up so far, with the revision of their ownership.
func released(ops []clientv3.Op) (keys []string) {
	for _, op := range ops {
		cmps, thenOps, _ := op.Txn()
		if len(thenOps) == 1 && thenOps[0].IsDelete() && len(cmps) == 1 {
			keys = append(keys, fmt.Sprintf("%s@%d",
				thenOps[0].KeyBytes(), cmps[0].GetCompare().GetCreateRevision()))
		}
	}
	return keys
}

// A write of which nobody knows whether it was made may yet be made. While a key may still become another one it must
// not be answered from memory; once the ownership that the write stands under is given up, it cannot be made any more.
func TestOwnershipEndsWithAWriteOfUnknownOutcome(t *testing.T) {
	for _, tt := range []struct {
		err  error
		kept bool
	}{
		{context.DeadlineExceeded, false},
		{rpctypes.ErrTimeout, false},
		{rpctypes.ErrNoSpace, false},
		{rpctypes.ErrPermissionDenied, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			cluster := &stub.KV{}
			kv := newKV(t, cluster)
			e := kv.cache.own(t, "a", 5)
			cluster.Answer = func(op clientv3.Op) (clientv3.OpResponse, error) {
				if _, thenOps, _ := op.Txn(); len(thenOps) == 1 && thenOps[0].IsDelete() {
					return (&clientv3.TxnResponse{Succeeded: true}).OpResponse(), nil
				}
				kv.cache.expect(t, "while it is written", "a", "to be asked for")
				return clientv3.OpResponse{}, tt.err
			}
			if _, err := kv.Put(t.Context(), "a", "w"); !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			synctest.Wait()
			want, given := "v", "[]"
			if !tt.kept {
				want, given = "to be acquired", "[L/a@5]"
			}
			kv.cache.expect(t, tt.err.Error(), "a", want)
			if got := fmt.Sprint(released(cluster.Ops())); got != given {
				t.Errorf("%v: given up %s, want %s", tt.err, got, given)
			}
			if e.writers != 0 {
				t.Errorf("%v: %d writes under way", tt.err, e.writers)
			}
			kv.close()
		})
	}
}

// Others write as soon as the leasing key is gone. So nothing may be answered any more when its deletion is sent.
func TestKeyIsForgottenBeforeItIsGivenUp(t *testing.T) {
	for name, giveUp := range map[string]func(*leasingKV){
		"asked for by another": func(kv *leasingKV) {
			kv.heed(&tenure{lease: lease}, &clientv3.Event{Kv: &mvccpb.KeyValue{
				Key: []byte("L/a"), Value: []byte(revokeValue), CreateRevision: 5, ModRevision: 6, Lease: int64(lease),
			}})
		},
		"asked for without its lease": func(kv *leasingKV) {
			kv.heed(&tenure{lease: lease}, &clientv3.Event{Kv: &mvccpb.KeyValue{
				Key: []byte("L/a"), Value: []byte(revokeValue), CreateRevision: 5, ModRevision: 6,
			}})
		},
		"in the way of an own write": func(kv *leasingKV) {
			err := kv.revoke(kv.ctx, []*mvccpb.KeyValue{
				{Key: []byte("L/a"), CreateRevision: 5, ModRevision: 5, Lease: int64(lease)},
			})
			if err != nil {
				t.Error(err)
			}
		},
		"attached to a lease": func(kv *leasingKV) {
			leased := pair("a", "leased", 6)
			leased.Lease = 99
			kv.observe(kv.cache.entries["a"], header(6), []*clientv3.Event{{Kv: leased}})
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			cluster := &stub.KV{}
			kv := newKV(t, cluster)
			kv.cache.own(t, "a", 5)
			cluster.Answer = func(clientv3.Op) (clientv3.OpResponse, error) {
				if got := kv.cache.answers("a"); got != "to be asked for" && got != "to be acquired" {
					t.Errorf("%s: %s is answered when the key is given up", name, got)
				}
				return (&clientv3.TxnResponse{Succeeded: true}).OpResponse(), nil
			}
			giveUp(kv)
			synctest.Wait()
			if got := fmt.Sprint(released(cluster.Ops())); got != "[L/a@5]" {
				t.Errorf("%s: given up %s", name, got)
			}
			kv.close()
		})
	}
}

// The lease is gone before the client knows, or a leasing key was deleted by hand.
func TestKeyIsForgottenWhenItsLeasingKeyIsDeleted(t *testing.T) {
	kv := newKV(t, &stub.KV{})
	kv.cache.own(t, "a", 5)
	gone := func(rev int64) *clientv3.Event {
		return &clientv3.Event{
			Type: clientv3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: []byte("L/a"), ModRevision: rev},
		}
	}
	kv.heed(&tenure{lease: lease}, gone(4))
	kv.cache.expect(t, "deleted before", "a", "v")
	if len(kv.doubt) != 0 {
		t.Error("doubt about the lease for nothing")
	}
	kv.heed(&tenure{lease: lease}, gone(6))
	kv.cache.expect(t, "deleted", "a", "to be asked for")
	if len(kv.doubt) != 1 {
		t.Error("no doubt about the lease")
	}
}

// The response that would have told of the ownership was lost.
func TestForgottenOwnershipIsGivenUp(t *testing.T) {
	asked := func(lease clientv3.LeaseID) *clientv3.Event {
		return &clientv3.Event{Kv: &mvccpb.KeyValue{
			Key: []byte("L/a"), Value: []byte(revokeValue), CreateRevision: 5, ModRevision: 6, Lease: int64(lease),
		}}
	}
	for name, tt := range map[string]struct {
		happens func(*leasingKV)
		given   string
	}{
		"another asks for it":      {func(kv *leasingKV) { kv.heed(&tenure{lease: lease}, asked(lease)) }, "[L/a@5]"},
		"another's is asked for":   {func(kv *leasingKV) { kv.heed(&tenure{lease: lease}, asked(lease+1)) }, "[]"},
		"it is read, and found":    {func(kv *leasingKV) { _, _ = kv.Get(kv.ctx, "a") }, "[L/a@5]"},
		"it is written, and found": {func(kv *leasingKV) { _, _ = kv.Put(kv.ctx, "a", "v") }, "[L/a@5]"},
	} {
		synctest.Test(t, func(t *testing.T) {
			held := &mvccpb.KeyValue{Key: []byte("L/a"), CreateRevision: 5, ModRevision: 5, Lease: int64(lease)}
			found := &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{held}}
			cluster := &stub.KV{}
			cluster.Answer = func(op clientv3.Op) (clientv3.OpResponse, error) {
				resp := &clientv3.TxnResponse{Header: header(9), Succeeded: held == nil}
				_, thenOps, elseOps := op.Txn()
				if thenOps[0].IsDelete() {
					held, resp.Succeeded = nil, true
				}
				for range max(len(thenOps), len(elseOps)) {
					resp.Responses = append(resp.Responses,
						&pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: found}})
				}
				if thenOps[0].IsPut() && held == nil {
					resp.Responses[0].Response = &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}
				}
				return resp.OpResponse(), nil
			}
			kv := newKV(t, cluster)
			tt.happens(kv)
			synctest.Wait()
			if got := fmt.Sprint(released(cluster.Ops())); got != tt.given {
				t.Errorf("%s: given up %s, want %s", name, got, tt.given)
			}
			kv.close()
		})
	}
}

// That a key is not owned any more may be found out by writing it: then it is given up at once, and tried again as
// another's or nobody's.
func TestWriteFindsOutThatAKeyIsNotOwned(t *testing.T) {
	cluster := &stub.KV{}
	kv := newKV(t, cluster)
	kv.cache.own(t, "a", 5)
	var guards []int64
	cluster.Answer = func(op clientv3.Op) (clientv3.OpResponse, error) {
		cmps, thenOps, _ := op.Txn()
		if thenOps[0].IsDelete() {
			return (&clientv3.TxnResponse{Succeeded: true}).OpResponse(), nil // given up in the background
		}
		guards = append(guards, cmps[0].GetCompare().GetCreateRevision())
		result := &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{}}}
		written := len(guards) >= 3
		if written {
			result.Response = &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}
		} else if len(guards) == 2 {
			kv.cache.expect(t, "known not to be owned", "a", "to be acquired")
			kv.cache.own(t, "a", 7) // by a read meanwhile, which is too late for this attempt
		}
		return (&clientv3.TxnResponse{
			Header: header(9), Succeeded: written, Responses: []*pb.ResponseOp{result, result},
		}).OpResponse(), nil
	}
	if _, err := kv.Put(t.Context(), "a", "w"); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(guards); got != "[5 0 7]" {
		t.Errorf("owned since %s, as the attempts have it", got)
	}
}

// What keeps a key from being owned does not keep it from being read.
func TestReadsDoNotFailBecauseKeysCannotBeOwned(t *testing.T) {
	for _, refusal := range []error{rpctypes.ErrNoSpace, rpctypes.ErrPermissionDenied, rpctypes.ErrLeaseNotFound} {
		cluster := &stub.KV{Answer: func(op clientv3.Op) (clientv3.OpResponse, error) {
			if op.IsTxn() {
				return clientv3.OpResponse{}, refusal
			}
			return (&clientv3.GetResponse{Header: header(9), Count: 1}).OpResponse(), nil
		}}
		kv := newKV(t, cluster)
		for range 3 {
			if resp, err := kv.Get(t.Context(), "a"); err != nil || resp.Count != 1 {
				t.Errorf("%v: %v, %v", refusal, resp, err)
			}
		}
		if n := len(cluster.Ops()); n != 4 { // one attempt, three reads
			t.Errorf("%v: %d calls", refusal, n)
		}
		if doubt := len(kv.doubt); (doubt == 1) != (refusal == rpctypes.ErrLeaseNotFound) {
			t.Errorf("%v: doubt about the lease %d", refusal, doubt)
		}
	}
}

// A member without its peers can answer serializable reads. To take ownership takes a majority.
func TestSerializableReadsWriteNothing(t *testing.T) {
	cluster := &stub.KV{}
	kv := newKV(t, cluster)
	if _, err := kv.Get(t.Context(), "a", clientv3.WithSerializable()); err != nil {
		t.Fatal(err)
	}
	if ops := cluster.Ops(); len(ops) != 1 || !ops[0].IsGet() {
		t.Errorf("operations %v", ops)
	}
	kv.cache.own(t, "b", 5)
	resp, err := kv.Get(t.Context(), "b", clientv3.WithSerializable())
	if err != nil || len(resp.Kvs) != 1 || len(cluster.Ops()) != 0 {
		t.Errorf("of an own key: %v, %v", resp, err)
	}
}

func TestReadsAndWritesEndWithTheirContext(t *testing.T) {
	cluster := &stub.KV{}
	kv := newKV(t, cluster)
	kv.cache.own(t, "a", 5)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := kv.Get(ctx, "a"); err != context.Canceled {
		t.Errorf("get: %v", err)
	}
	if _, err := kv.Txn(ctx).Then(clientv3.OpGet("a")).Commit(); err != context.Canceled {
		t.Errorf("transaction: %v", err)
	}
	if n := len(cluster.Ops()); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// renewals is a Lease whose renewals take a while.
type renewals struct {
	clientv3.Lease
	takes time.Duration
}

func (r renewals) KeepAliveOnce(_ context.Context, id clientv3.LeaseID) (*clientv3.LeaseKeepAliveResponse, error) {
	time.Sleep(r.takes)
	return &clientv3.LeaseKeepAliveResponse{ID: id, TTL: 10}, nil
}

func (renewals) Close() error { return nil }

// The server counts from when a renewal has arrived, which can be as early as when it was sent.
func TestLeaseIsReckonedFromWhenItsRenewalWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := newKV(t, &stub.KV{})
		kv.client.Lease = renewals{takes: 3 * time.Second}
		sent := time.Now()
		until, ttl, err := kv.renew(t.Context(), lease)
		if err != nil || ttl != 10*time.Second || until.After(sent.Add(ttl)) || until.Before(sent.Add(ttl*8/10)) {
			t.Errorf("until %v after it was sent, of %v; %v", until.Sub(sent), ttl, err)
		}
		kv.close()
	})
}

// leases is a Lease whose leases can be lost.
type leases struct {
	clientv3.Lease
	last    clientv3.LeaseID
	lost    map[clientv3.LeaseID]bool
	revoked func(clientv3.LeaseID)
}

func (l *leases) Grant(context.Context, int64) (*clientv3.LeaseGrantResponse, error) {
	l.last++
	return &clientv3.LeaseGrantResponse{ID: l.last, TTL: 10}, nil
}

func (l *leases) KeepAlive(ctx context.Context, id clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
	renewals := make(chan *clientv3.LeaseKeepAliveResponse, 1)
	go func() {
		defer close(renewals)
		for ctx.Err() == nil {
			select {
			case renewals <- &clientv3.LeaseKeepAliveResponse{ID: id, TTL: 10}:
			default:
			}
			select {
			case <-ctx.Done():
			case <-time.After(3 * time.Second):
			}
		}
	}()
	return renewals, nil
}

func (l *leases) KeepAliveOnce(_ context.Context, id clientv3.LeaseID) (*clientv3.LeaseKeepAliveResponse, error) {
	if l.lost[id] {
		return nil, rpctypes.ErrLeaseNotFound
	}
	return &clientv3.LeaseKeepAliveResponse{ID: id, TTL: 10}, nil
}

func (l *leases) Revoke(_ context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	l.revoked(id)
	return &clientv3.LeaseRevokeResponse{}, nil
}

func (l *leases) Close() error { return nil }

// When a lease is revoked others write at once. So nothing that stands on it is answered any more by then, nor later,
// with another lease.
func TestNothingOutlivesItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := clientv3.NewCtxClient(t.Context())
		held := &leases{lost: make(map[clientv3.LeaseID]bool)}
		cluster, watcher := &stub.KV{}, &stub.Watcher{}
		cluster.Answer = func(clientv3.Op) (clientv3.OpResponse, error) {
			return (&clientv3.GetResponse{Header: header(3)}).OpResponse(), nil
		}
		client.KV, client.Watcher, client.Lease = cluster, watcher, held
		decorated, end, err := NewKV(client, "L/")
		if err != nil {
			t.Fatal(err)
		}
		defer end()
		kv := decorated.(*leasingKV)
		kv.cache.own(t, "a", 5)
		synctest.Wait()
		// What becomes of ownership is watched from before there was any.
		if rev := watcher.Watches()[0].Op.Rev(); rev != 4 {
			t.Errorf("leasing keys are watched from revision %d", rev)
		}
		var revoked []clientv3.LeaseID
		held.revoked = func(id clientv3.LeaseID) {
			revoked = append(revoked, id)
			kv.cache.expect(t, fmt.Sprint("when lease ", id, " is revoked"), "a", "to be asked for")
		}
		time.Sleep(time.Minute)
		kv.cache.expect(t, "after many renewals", "a", "v")

		held.lost[1] = true
		kv.doubtLease()
		synctest.Wait()
		kv.cache.expect(t, "with another lease", "a", "to be acquired")
		if got := kv.cache.leaseID(); got != 2 {
			t.Errorf("lease %d", got)
		}
		kv.cache.own(t, "a", 15)
		end()
		if got := fmt.Sprint(revoked); got != "[1 2]" {
			t.Errorf("revoked %s", got)
		}
		_ = client.Close()
	})
}

func TestPrefixMustNotBeEmpty(t *testing.T) {
	if _, _, err := NewKV(clientv3.NewCtxClient(t.Context()), ""); err == nil {
		t.Error("no error")
	}
}

func TestWhatATransactionMayWrite(t *testing.T) {
	var w writes
	w.add([]clientv3.Op{
		clientv3.OpPut("a", ""), clientv3.OpGet("x"), clientv3.OpDelete("b"), clientv3.OpDelete("c", clientv3.WithPrefix()),
		clientv3.OpTxn(nil,
			[]clientv3.Op{clientv3.OpPut("a", ""), clientv3.OpPut("d", "")},
			[]clientv3.Op{clientv3.OpDelete("", clientv3.WithFromKey()), clientv3.OpDelete("c", clientv3.WithRange("d"))}),
	})
	if got := fmt.Sprintf("%q", w); got != `{["a" "b" "d"] [{"c" "d"} {"\x00" "\x00"}]}` {
		t.Errorf("got %s", got)
	}
	n := newNames("L/")
	if got := n.leasingEnd("\x00"); got != "L0" {
		t.Errorf("end of everything: %q", got)
	}
	if got := n.leasingEnd("d"); got != "L/d" {
		t.Errorf("end: %q", got)
	}
	if got := n.key([]byte(n.leasing("k"))); got != "k" {
		t.Errorf("there and back: %q", got)
	}
}
