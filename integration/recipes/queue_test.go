package recipes

import (
	"fmt"
	"regexp"
	"slices"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	recipe "github.com/seed-d18e112a/clientv3/experimental/recipes"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestQueue(t *testing.T) {
	e := newEnv(t)
	q := recipe.NewQueue(e.Client, e.prefix)
	// A queue whose name only begins like this one's is another one.
	shared.Must(t, recipe.NewQueue(e.Client, e.prefix+"-other").Enqueue("other"))
	for _, val := range []string{"a", "b", "c", ""} {
		shared.Must(t, q.Enqueue(val))
	}
	if got := e.keys(t); len(got) != 5 || !regexp.MustCompile(`^/[0-9]{19}$`).MatchString(got[1]) {
		t.Errorf("keys %q", got)
	}
	for _, want := range []string{"a", "b", "c", ""} {
		if got, err := q.Dequeue(); err != nil || got != want {
			t.Errorf("dequeued %q, %v, want %q", got, err, want)
		}
	}
	var got string
	waiting := shared.Background(func() (err error) { got, err = q.Dequeue(); return err })
	waits(t, waiting)
	shared.Must(t, q.Enqueue("d"))
	shared.Must(t, shared.Result(e.ctx, t, waiting))
	if got != "d" {
		t.Errorf("dequeued %q", got)
	}
}

func TestPriorityQueue(t *testing.T) {
	e := newEnv(t)
	q := recipe.NewPriorityQueue(e.Client, e.prefix)
	for i, pr := range []uint16{5, 5, 2, 65535, 0, 5} {
		shared.Must(t, q.Enqueue(fmt.Sprint(i), pr))
	}
	want := []string{
		"/00005/0000000000000000", "/00005/0000000000000001", "/00002/0000000000000000", "/65535/0000000000000000",
		"/00000/0000000000000000", "/00005/0000000000000002",
	}
	if got := e.keys(t); !slices.Equal(got, want) {
		t.Errorf("keys %q, want %q", got, want)
	}
	for _, want := range []string{"4", "2", "0", "1", "5", "3"} {
		if got, err := q.Dequeue(); err != nil || got != want {
			t.Errorf("dequeued %q, %v, want %q", got, err, want)
		}
	}
	var got string
	waiting := shared.Background(func() (err error) { got, err = q.Dequeue(); return err })
	waits(t, waiting)
	shared.Must(t, q.Enqueue("d", 9))
	shared.Must(t, shared.Result(e.ctx, t, waiting))
	if got != "d" {
		t.Errorf("dequeued %q", got)
	}
}

// queue is what both kinds have.
type queue interface {
	Enqueue(val string) error
	Dequeue() (string, error)
}

// prioritized is a PriorityQueue of values of one priority.
type prioritized struct{ *recipe.PriorityQueue }

func (p prioritized) Enqueue(val string) error { return p.PriorityQueue.Enqueue(val, 7) }

// Many put in and take out at once. Each value is taken out once, and those of one producer in their order.
func TestQueuesUnderConcurrency(t *testing.T) {
	for name, open := range map[string]func(*clientv3.Client, string) queue{
		"Queue": func(c *clientv3.Client, prefix string) queue { return recipe.NewQueue(c, prefix) },
		"PriorityQueue": func(c *clientv3.Client, prefix string) queue {
			return prioritized{recipe.NewPriorityQueue(c, prefix)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			const (
				producers = 5
				consumers = 5
				items     = 20
			)
			var wg sync.WaitGroup
			for p := range producers {
				q := open(shared.ClientFor(t, e.cluster), e.prefix)
				wg.Go(func() {
					for i := range items {
						if err := q.Enqueue(fmt.Sprint(p, i)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			var (
				mu    sync.Mutex
				taken = map[string]bool{}
			)
			for range consumers {
				q := open(shared.ClientFor(t, e.cluster), e.prefix)
				wg.Go(func() {
					last := map[int]int{} // of each producer
					for range producers * items / consumers {
						val, err := q.Dequeue()
						if err != nil {
							t.Error(err)
							return
						}
						var producer, item int
						if _, err := fmt.Sscan(val, &producer, &item); err != nil {
							t.Error(err)
						}
						if before, ok := last[producer]; ok && item <= before {
							t.Errorf("item %d of producer %d after %d", item, producer, before)
						}
						last[producer] = item
						mu.Lock()
						if taken[val] {
							t.Errorf("%q was taken out twice", val)
						}
						taken[val] = true
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			if len(taken) != producers*items {
				t.Errorf("%d values were taken out, want %d", len(taken), producers*items)
			}
		})
	}
}

// Who waits for a value gets it, though connections break, or the history is compacted, meanwhile.
func TestDequeueOutlastsItsConnection(t *testing.T) {
	cluster := etcdtest.Run(t, etcdtest.WithProxies())
	proxy := cluster.Member(0).Proxy()
	q := recipe.NewQueue(shared.ClientFor(t, cluster), "queue")
	conn, err := cluster.Member(0).Dial()
	shared.Must(t, err)
	defer func() { _ = conn.Close() }()
	kv := clientv3.NewKVFromKVClient(pb.NewKVClient(conn), nil)
	ctx := shared.Context(t)
	for range 3 {
		var got string
		waiting := shared.Background(func() (err error) { got, err = q.Dequeue(); return err })
		waits(t, waiting)
		proxy.Cut()
		_, err := kv.Put(ctx, "queue/1", "value")
		shared.Must(t, err)
		resp, err := kv.Put(ctx, "other", "")
		shared.Must(t, err)
		_, err = kv.Compact(ctx, resp.Header.Revision)
		shared.Must(t, err)
		proxy.Heal()
		if err := <-waiting; err != nil && !clientv3.MayHaveApplied(err) || err == nil && got != "value" {
			t.Fatalf("dequeued %q, %v", got, err)
		}
	}
}
