package bench

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-d18e112a/clientv3/etcdtest"
)

func TestMain(m *testing.M) {
	RunNullServerIfAsked()
	goleak.VerifyTestMain(m)
}

// each runs a benchmark for every contender against a null server.
func each(b *testing.B, run func(b *testing.B, c *contender)) {
	endpoint, stop, err := startNullServer()
	if err != nil {
		b.Fatal(err)
	}
	defer stop()
	eachAt(b, []string{endpoint}, run)
}

// eachAt runs a benchmark for every contender against the endpoints.
func eachAt(b *testing.B, endpoints []string, run func(b *testing.B, c *contender)) {
	for _, contender := range contenders {
		b.Run(contender.name, func(b *testing.B) {
			c, err := contender.dial(endpoints...)
			if err != nil {
				b.Fatal(err)
			}
			defer c.close()
			b.ReportAllocs()
			run(b, c)
		})
	}
}

// perOp runs the timed part of a benchmark and reports the CPU time of an operation.
func perOp(b *testing.B, ops func()) {
	b.ResetTimer()
	before := cpuTime()
	ops()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

func BenchmarkGet(b *testing.B) {
	each(b, func(b *testing.B, c *contender) {
		parallel(b, 64, func(ctx context.Context) error {
			_, err := c.get(ctx, "key")
			return err
		})
	})
}

func BenchmarkPut(b *testing.B) {
	each(b, func(b *testing.B, c *contender) {
		parallel(b, 64, func(ctx context.Context) error { return c.put(ctx, "key", "value") })
	})
}

func BenchmarkRange10k(b *testing.B) {
	each(b, func(b *testing.B, c *contender) {
		perOp(b, func() {
			for range b.N {
				if n, err := c.get(b.Context(), rangePrefix); err != nil || n != rangeKeys {
					b.Fatal(n, err)
				}
			}
		})
	})
}

// parallel makes b.N calls from a number of callers.
func parallel(b *testing.B, callers int, call func(context.Context) error) {
	if err := call(b.Context()); err != nil {
		b.Fatal(err)
	}
	perOp(b, func() {
		var wg sync.WaitGroup
		for i := range callers {
			n := b.N / callers
			if i < b.N%callers {
				n++
			}
			wg.Go(func() {
				for range n {
					if err := call(b.Context()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// BenchmarkWatchEvents takes in events as fast as the null server sends them; an operation is an event.
func BenchmarkWatchEvents(b *testing.B) {
	each(b, func(b *testing.B, c *contender) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		next := c.watch(ctx, "key")
		if _, open := next(); !open {
			b.Fatal("watch ended")
		}
		perOp(b, func() {
			for got := 0; got < b.N; {
				n, open := next()
				if !open {
					b.Fatal("watch ended")
				}
				got += n
			}
		})
	})
}

// idleThings is the number of watches and leases of the benchmarks of many.
const idleThings = 10_000

// BenchmarkOpenWatches opens many watches on a real server, from 1,000 callers; an operation is a watch.
func BenchmarkOpenWatches(b *testing.B) {
	cluster := realServer(b)
	eachAt(b, cluster.Endpoints(), func(b *testing.B, c *contender) {
		many(b, func(ctx context.Context, i int) error {
			c.watch(ctx, fmt.Sprintf("watched/%d", i))
			return ctx.Err()
		}, nil)
	})
}

// BenchmarkKeepLeases keeps many leases alive on a real server, for as long as they live by themselves, in which each is
// renewed three times; an operation is a lease.
func BenchmarkKeepLeases(b *testing.B) {
	const ttl = 30
	cluster := realServer(b)
	eachAt(b, cluster.Endpoints(), func(b *testing.B, c *contender) {
		ids := make(chan int64, idleThings)
		renewed := make(chan func() error, idleThings)
		many(b, func(ctx context.Context, _ int) error {
			id, err := c.grant(ctx, ttl)
			ids <- id
			return err
		}, nil)
		many(b, func(ctx context.Context, _ int) error {
			renewed <- c.keepAlive(ctx, <-ids)
			return nil
		}, func() {
			for range idleThings {
				if err := (<-renewed)(); err != nil {
					b.Fatal(err)
				}
			}
			before := cpuTime()
			time.Sleep(ttl * time.Second)
			b.ReportMetric(float64(cpuTime()-before)/idleThings/ttl, "cpu-ns/lease/s")
		})
	})
}

// realServer starts an etcd in a process of its own.
func realServer(b *testing.B) *etcdtest.Cluster {
	return etcdtest.Run(b, etcdtest.WithMembers(1), etcdtest.WithChildProcesses())
}

// many opens idleThings of something that lasts until its context ends, whatever b.N is, and reports what one takes to
// open and costs while it is idle. If then is not nil, it is called before they end.
func many(b *testing.B, open func(ctx context.Context, i int) error, then func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	before := measureFootprint()
	start, cpu := time.Now(), cpuTime()
	var wg sync.WaitGroup
	const callers = 1000
	for caller := range callers {
		wg.Go(func() {
			for i := range idleThings / callers {
				if err := open(ctx, caller*idleThings/callers+i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	took, used := time.Since(start), cpuTime()-cpu
	if then != nil {
		then()
	}
	after := measureFootprint()
	b.ReportMetric(float64(took)/idleThings, "open-ns/each")
	b.ReportMetric(float64(used)/idleThings, "open-cpu-ns/each")
	b.ReportMetric((float64(after.heap)-float64(before.heap))/idleThings, "heap-B/each")
	b.ReportMetric((float64(after.stacks)-float64(before.stacks))/idleThings, "stack-B/each")
	b.ReportMetric(float64(after.goroutines-before.goroutines), "goroutines")
}
