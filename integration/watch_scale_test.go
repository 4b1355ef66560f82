package integration

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// live returns the live heap in bytes and the number of goroutines of this process.
func live() (heap int64, goroutines int) {
	runtime.GC()
	runtime.GC() // what pools and finalizers held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), runtime.NumGoroutine()
}

const (
	manyWatches = 10_000 / scale
	openers     = 100 // callers that open them
)

// openMany opens watches of keys of their own and returns their channels.
func openMany(ctx context.Context, cli *clientv3.Client, n int) []clientv3.WatchChan {
	channels := make([]clientv3.WatchChan, n)
	var wg sync.WaitGroup
	for opener := range openers {
		wg.Go(func() {
			for i := opener; i < n; i += openers {
				channels[i] = cli.Watch(ctx, fmt.Sprintf("many/%05d", i))
			}
		})
	}
	wg.Wait()
	return channels
}

// An idle watch costs no goroutine and little memory, survives a reconnect, and ends with the client. The server is
// another process, so that what is counted is the client's.
func TestManyIdleWatches(t *testing.T) {
	cluster := etcdtest.Run(t, etcdtest.WithChildProcesses(), etcdtest.WithProxies())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cli := quietClient(t, cluster)
	if _, err := cli.Get(ctx, "key"); err != nil {
		t.Fatal(err)
	}
	<-cli.Watch(ctx, "key", clientv3.WithCreatedNotify())

	heap, goroutines := live()
	channels := openMany(ctx, cli, manyWatches)
	heapAfter, goroutinesAfter := live()
	each := (heapAfter - heap) / manyWatches
	t.Logf("%d bytes of heap a watch, %d goroutines more", each, goroutinesAfter-goroutines)
	if each > 1229 && scale == 1 {
		t.Errorf("an idle watch takes %d bytes, want at most 1.2 KiB", each)
	}
	// Members that other tests share run in this process too, and have some that come and go.
	if goroutinesAfter >= goroutines+manyWatches/20 {
		t.Errorf("%d goroutines with %d watches, %d with one", goroutinesAfter, manyWatches, goroutines)
	}

	// All of them are there again after the connection was cut.
	cluster.Member(0).Proxy().Cut()
	cluster.Member(0).Proxy().Heal()
	writer := newClient(t, cluster)
	for i := 0; i < manyWatches; i += 100 {
		ops := make([]clientv3.Op, 100)
		for j := range ops {
			ops[j] = clientv3.OpPut(fmt.Sprintf("many/%05d", i+j), "v")
		}
		if _, err := writer.Get(ctx, "key"); err != nil { // a read finds the way again
			t.Fatal(err)
		}
		if _, err := writer.Txn(ctx).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	for i, ch := range channels {
		if resp := nextResponse(t, ctx, ch); len(resp.Events) != 1 || string(resp.Events[0].Kv.Key) != fmt.Sprintf("many/%05d", i) {
			t.Fatalf("watch %d: %+v", i, resp)
		}
	}

	if err := cli.Close(); err != nil {
		t.Fatal(err)
	}
	for i, ch := range channels {
		if resp, open := <-ch; !open || resp.Err() == nil {
			t.Fatalf("watch %d: open %v, %+v", i, open, resp)
		}
	}
}

const (
	slowValue  = 1 << 20
	slowEvents = 1024 / scale // a GiB of them
	slowLimit  = 16 << 20
)

// A watcher that reads nothing does not eat the heap, holds up no other, and gets everything when it reads.
func TestSlowConsumer(t *testing.T) {
	cluster := etcdtest.Run(t, etcdtest.WithChildProcesses())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cli, writer := quietClient(t, cluster), quietClient(t, cluster)
	slow := cli.Watch(ctx, "key")
	quick := cli.Watch(ctx, "key")

	heap, _ := live()
	var most int64
	value := strings.Repeat("v", slowValue)
	for i := range slowEvents {
		put, err := writer.Put(ctx, "key", value)
		if err != nil {
			t.Fatal(err)
		}
		// The other one sees each event at once.
		resp := nextResponse(t, ctx, quick)
		if len(resp.Events) != 1 || resp.Events[0].Kv.ModRevision != put.Header.Revision {
			t.Fatalf("event %d: %+v", i, resp)
		}
		if i%(slowEvents/8) == slowEvents/8-1 {
			now, _ := live()
			most = max(most, now-heap)
		}
	}
	t.Logf("%d MiB passed; at most %d MiB of heap", slowEvents*slowValue>>20, most>>20)
	if most > slowLimit+32<<20 {
		t.Errorf("%d MiB of heap, want at most %d", most>>20, (slowLimit+32<<20)>>20)
	}
	var last int64
	for seen := 0; seen < slowEvents; {
		resp := nextResponse(t, ctx, slow)
		if err := resp.Err(); err != nil {
			t.Fatal(err)
		}
		for _, ev := range resp.Events {
			seen++
			if last != 0 && ev.Kv.ModRevision != last+1 || len(ev.Kv.Value) != slowValue {
				t.Fatalf("revision %d after %d, %d bytes", ev.Kv.ModRevision, last, len(ev.Kv.Value))
			}
			last = ev.Kv.ModRevision
		}
	}
}

// What is compacted while a consumer lags is lost, and it is told so, after what was kept for it.
func TestSlowConsumerAndCompaction(t *testing.T) {
	cluster := etcdtest.Run(t)
	ctx := testContext(t)
	cli := quietClient(t, cluster)
	slow := cli.Watch(ctx, "key")
	value := strings.Repeat("v", slowValue)
	var rev int64
	for range 4 * slowLimit / slowValue {
		put, err := cli.Put(ctx, "key", value)
		if err != nil {
			t.Fatal(err)
		}
		rev = put.Header.Revision
	}
	if _, err := cli.Compact(ctx, rev); err != nil {
		t.Fatal(err)
	}
	var last int64
	for {
		resp := nextResponse(t, ctx, slow)
		if err := resp.Err(); err != nil {
			if err != rpctypes.ErrCompacted || resp.CompactRevision != rev || last == 0 {
				t.Errorf("%v, compact revision %d after events up to %d; want %v, %d",
					err, resp.CompactRevision, last, rpctypes.ErrCompacted, rev)
			}
			return
		}
		for _, ev := range resp.Events {
			if last != 0 && ev.Kv.ModRevision != last+1 {
				t.Fatalf("revision %d after %d", ev.Kv.ModRevision, last)
			}
			if last = ev.Kv.ModRevision; last == rev {
				t.Fatal("everything was kept: the consumer did not lag")
			}
		}
	}
}
