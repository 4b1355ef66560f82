package leasing

import (
	"context"
	"maps"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/seed-d18e112a/clientv3"
)

const (
	// maxEntries bounds the number of keys that are owned.
	maxEntries = 16 << 10
	// restTime is how long a key is left to others after it had to be given up, or could not be had: so that a key which
	// many write is not taken and given up all the time, and one that others own is read as cheaply as it can be.
	restTime = 2 * time.Second
	// minSweep is the number of keys being left to others from which on they are looked through for those that no
	// longer are.
	minSweep = 1024
)

// cache has the keys that are owned. Its methods are safe for concurrent use; none of them waits.
//
// An entry answers reads while all of this holds: it is in the map, its ownership is known to the cluster (owned), no
// write of our own is under way (writers), and the lease lives (until). Everything that ends one of these is done before
// the cluster lets another one write.
type cache struct {
	mu      sync.Mutex
	lease   clientv3.LeaseID // that ownership is attached to; NoLease while there is none
	until   time.Time        // the lease lives at least so long
	entries map[string]*entry
	resting map[string]time.Time // keys that are left to others, until when
	sweepAt int                  // the number of them from which on they are looked through
}

// entry is a key that is owned, or is about to be.
type entry struct {
	key string

	// The leasing key's create revision, which tells this ownership from others of the same key; 0 until the cluster has
	// granted it.
	owned int64
	// The latest revision in which the leasing key was revoked or deleted, as events of it say. They may come before
	// the response that grants the ownership: then it is over before it was known.
	lost int64

	header  *pb.ResponseHeader // of the latest response
	rev     int64              // kv is what the key is as of this revision
	kv      *mvccpb.KeyValue   // nil if the key does not exist
	writers int                // writes of our own under way, after which kv is another one

	stop context.CancelFunc // ends the watch of the key; nil before it begins
}

func (c *cache) init() {
	c.entries = make(map[string]*entry)
	c.resting = make(map[string]time.Time)
	c.sweepAt = minSweep
}

// begin makes a lease the one that ownership is attached to.
func (c *cache) begin(lease clientv3.LeaseID, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lease, c.until = lease, until
}

// extend says that the lease was renewed.
func (c *cache) extend(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = until
}

// end gives up everything, since the lease is no longer to be relied on.
func (c *cache) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lease, c.until = clientv3.NoLease, time.Time{}
	for _, e := range c.entries {
		c.remove(e)
	}
}

// alive reports whether the lease lives. Both clocks are asked: the monotonic one stands still on some systems while the
// machine sleeps, the other one may be set back.
func (c *cache) alive() bool {
	now := time.Now()
	return now.Before(c.until) && now.Round(0).Before(c.until.Round(0))
}

// remove takes an entry out. The caller holds c.mu.
func (c *cache) remove(e *entry) {
	if c.entries[e.key] != e {
		return
	}
	delete(c.entries, e.key)
	if e.stop != nil {
		e.stop()
	}
}

// usable returns the entry of a key if it can answer. The caller holds c.mu.
func (c *cache) usable(key string) *entry {
	e := c.entries[key]
	if e == nil || e.owned == 0 || e.writers > 0 || !c.alive() {
		return nil
	}
	return e
}

// read answers a get. Else it returns an entry that the caller is to acquire, with the lease to do so, or nothing if the
// get is to be sent to the cluster as it is.
func (c *cache) read(op clientv3.Op) (*clientv3.GetResponse, *entry, clientv3.LeaseID) {
	key := string(op.KeyBytes())
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.usable(key); e != nil {
		return e.response(op), nil, clientv3.NoLease
	}
	// A serializable read is to work without a majority of the members, which to take ownership does not.
	if c.entries[key] != nil || op.IsSerializable() || !c.alive() || time.Now().Before(c.resting[key]) {
		return nil, nil, clientv3.NoLease
	}
	delete(c.resting, key)
	e := &entry{key: key}
	c.entries[key] = e
	return nil, e, c.lease
}

// surplus takes out an entry if there are too many, and returns it.
func (c *cache) surplus() *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) <= maxEntries {
		return nil
	}
	for _, e := range c.entries {
		if e.owned != 0 && e.writers == 0 {
			c.remove(e)
			return e
		}
	}
	return nil
}

// abandon takes out an entry that could not be acquired, or not be kept, and leaves the key to others for a while.
func (c *cache) abandon(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(e)
	c.rest(e.key)
}

// grant says that an entry was acquired, with what the key was then. It reports false if the entry is not wanted any
// more. Follow is called to begin the watch of the key.
func (c *cache) grant(e *entry, owned int64, header *pb.ResponseHeader, kv *mvccpb.KeyValue,
	follow func() context.CancelFunc,
) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.key] != e {
		return false
	}
	if e.lost > owned {
		c.remove(e)
		c.rest(e.key)
		return false
	}
	e.owned, e.header, e.rev, e.kv = owned, header, header.GetRevision(), kv
	e.stop = follow()
	return true
}

// lose says that a leasing key was revoked or deleted in a revision. If the key was owned since before, the entry is
// taken out, the key is left to others for a while, and lose reports true.
func (c *cache) lose(key string, rev int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return false
	}
	e.lost = max(e.lost, rev)
	if e.owned == 0 || rev <= e.owned {
		return false
	}
	c.remove(e)
	c.rest(key)
	return true
}

// rest leaves a key to others for a while. The caller holds c.mu.
func (c *cache) rest(key string) {
	now := time.Now()
	if len(c.resting) >= c.sweepAt {
		maps.DeleteFunc(c.resting, func(_ string, until time.Time) bool { return now.After(until) })
		c.sweepAt = max(minSweep, 2*len(c.resting)) // so that each is looked at a few times at most
	}
	c.resting[key] = now.Add(restTime)
}

// learn says what a key is as of a revision, if the entry does not know better. It reports false, and takes the entry
// out, if the key cannot be cached any more.
func (c *cache) learn(e *entry, header *pb.ResponseHeader, rev int64, kv *mvccpb.KeyValue) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.learnLocked(e, header, rev, kv)
}

func (c *cache) learnLocked(e *entry, header *pb.ResponseHeader, rev int64, kv *mvccpb.KeyValue) bool {
	if rev <= e.rev {
		return true
	}
	e.header, e.rev, e.kv = header, rev, kv
	if kv.GetLease() != 0 {
		// It ends when its lease does, which nobody asks us about.
		c.remove(e)
		return false
	}
	return true
}

// beginWrite marks the entries of keys about to be written, and returns those there are. From then on until endWrite
// they do not answer: the cluster may have the new value already, and have shown it to others.
func (c *cache) beginWrite(keys []string) map[string]*entry {
	own := make(map[string]*entry)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		if e := c.entries[key]; e != nil && e.owned != 0 {
			e.writers++
			own[key] = e
		}
	}
	return own
}

// leaseID returns the lease that ownership is attached to.
func (c *cache) leaseID() clientv3.LeaseID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lease
}

// response answers a get of the key. Nothing in it is shared with the entry, since callers may change what they get.
func (e *entry) response(op clientv3.Op) *clientv3.GetResponse {
	resp := &clientv3.GetResponse{Header: &pb.ResponseHeader{
		ClusterId: e.header.GetClusterId(),
		MemberId:  e.header.GetMemberId(),
		RaftTerm:  e.header.GetRaftTerm(),
		Revision:  e.rev,
	}}
	if e.kv == nil {
		return resp
	}
	resp.Count = 1
	if op.IsCountOnly() || e.kv.ModRevision < op.MinModRev() || e.kv.CreateRevision < op.MinCreateRev() ||
		op.MaxModRev() > 0 && e.kv.ModRevision > op.MaxModRev() ||
		op.MaxCreateRev() > 0 && e.kv.CreateRevision > op.MaxCreateRev() {
		return resp
	}
	kv := &mvccpb.KeyValue{
		Key:            []byte(e.key),
		CreateRevision: e.kv.CreateRevision,
		ModRevision:    e.kv.ModRevision,
		Version:        e.kv.Version,
	}
	if !op.IsKeysOnly() {
		kv.Value = append([]byte(nil), e.kv.Value...)
	}
	resp.Kvs = []*mvccpb.KeyValue{kv}
	return resp
}
