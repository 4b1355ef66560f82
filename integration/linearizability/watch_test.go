package linearizability

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/internal/watchstream/watchcheck"
)

// endKey is written in each slot when all is over, so that every watch sees the end.
const endKey = "end"

func slotPrefix(slot int) string { return fmt.Sprintf("%s%d/", prefix, slot) }

// watching is watches of all kinds that are open while calls are made.
type watching struct {
	// first is the first revision of the run, newest one that was reached some time ago, last the one up to which every
	// watch must deliver, 0 before the end.
	first  int64
	newest atomic.Int64
	last   atomic.Int64

	mu   sync.Mutex
	seen []observation
}

// observation is what one watch was to deliver, and did.
type observation struct {
	Watch     watchcheck.Watch
	Responses []watchcheck.Response
	Err       string // why it ended by itself
}

// follow opens watches, one after the other, until one has delivered the end.
func (w *watching) follow(ctx context.Context, cli *clientv3.Client, random *rand.Rand) {
	for ctx.Err() == nil && !w.watch(ctx, cli, random) {
	}
}

func (w *watching) watch(ctx context.Context, cli *clientv3.Client, random *rand.Rand) (complete bool) {
	run := ctx
	ctx, cancel := context.WithCancel(run)
	defer cancel()
	key := prefix
	if random.IntN(2) == 0 {
		key = slotPrefix(random.IntN(slots))
	}
	opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCreatedNotify()}
	var o observation
	o.Watch = watchcheck.Watch{Key: []byte(key), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(key))}
	if last := w.last.Load(); last > 0 {
		o.Watch.Start = last // one that began later might have nothing to see
	} else if random.IntN(2) == 0 {
		o.Watch.Start = max(w.first, w.newest.Load()-random.Int64N(500))
	}
	if o.Watch.Start > 0 {
		opts = append(opts, clientv3.WithRev(o.Watch.Start))
	}
	switch random.IntN(6) {
	case 0:
		o.Watch.NoPut = true
		opts = append(opts, clientv3.WithFilterPut())
	case 1:
		o.Watch.NoDelete = true
		opts = append(opts, clientv3.WithFilterDelete())
	case 2:
		o.Watch.PrevKV = true
		opts = append(opts, clientv3.WithPrevKV())
	case 3:
		opts = append(opts, clientv3.WithProgressNotify())
	}
	short := w.last.Load() == 0 && random.IntN(2) == 0 // this one is given up before the end
	left := 1 + random.IntN(100)
	for resp := range cli.Watch(ctx, key, opts...) {
		if o.Watch.Start == 0 && resp.Created {
			o.Watch.Start = resp.Header.Revision + 1
		}
		o.Responses = append(o.Responses, watchcheck.Response{
			Revision: resp.Header.GetRevision(), Events: resp.Events, Created: resp.Created, Canceled: resp.Canceled,
			CompactRevision: resp.CompactRevision,
		})
		if err := resp.Err(); err != nil {
			o.Err = err.Error() // nothing is compacted here, so there is no reason for any to end
		}
		for _, ev := range resp.Events {
			if last := w.last.Load(); last > 0 && ev.Kv.ModRevision > last {
				complete = true
			}
		}
		if left--; complete || (short && left <= 0) {
			break
		}
		if random.IntN(200) == 0 {
			select { // a consumer that falls behind
			case <-ctx.Done():
			case <-time.After(time.Duration(random.Int64N(int64(time.Second)))):
			}
		}
	}
	if complete || run.Err() != nil {
		o.Watch.Through = w.last.Load() // the run's time is ample, so one that has not come to the end in it has lost it
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, o)
	return complete
}

// mark follows the revision while calls are made, so that watches can begin a little before it.
func (w *watching) mark(ctx context.Context, cli *clientv3.Client) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if resp, err := cli.Get(ctx, prefix); err == nil {
			w.newest.Store(max(w.newest.Load(), resp.Header.Revision))
		}
	}
}

// finish writes and deletes the last key of each slot, past the proxies, and returns the last revision.
func (w *watching) finish(ctx context.Context, m *etcdtest.Member) (int64, error) {
	conn, err := m.Dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	var puts, deletes []*pb.RequestOp
	for slot := range slots {
		key := []byte(slotPrefix(slot) + endKey)
		puts = append(puts, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key}}})
		deletes = append(deletes, &pb.RequestOp{
			Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}},
		})
	}
	var rev int64
	for _, ops := range [][]*pb.RequestOp{puts, puts, deletes} {
		resp, err := kv.Txn(ctx, &pb.TxnRequest{Success: ops})
		if err != nil {
			return 0, err
		}
		rev = resp.Header.Revision
		w.last.CompareAndSwap(0, rev)
	}
	return rev, nil
}
