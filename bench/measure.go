package main

import (
	"context"
	"errors"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// meter takes the measurements of one client in one case.
type meter struct {
	scale    scale
	time     time.Duration // for how long calls are made
	dial     func() (client, error)
	sample   sample    // of the measurement under way
	shared   client    // nil until it is asked for
	profiler *profiler // nil for no profiles
}

// client returns the client that all measurements share.
func (m *meter) client() (client, error) {
	if m.shared == nil {
		c, err := m.dial()
		if err != nil {
			return nil, err
		}
		m.shared = c
	}
	return m.shared, nil
}

// stateful returns the client that all measurements share, if it is more than a stub.
func (m *meter) stateful() (statefulClient, error) {
	c, err := m.client()
	if err != nil {
		return nil, err
	}
	return asStateful(c)
}

// close closes the client that all measurements share.
func (m *meter) close() error {
	if m.shared == nil {
		return nil
	}
	return m.shared.Close()
}

// costs are those of an interval.
type costs struct {
	time, cpu     time.Duration
	allocs, bytes uint64
}

func (c costs) plus(d costs) costs {
	return costs{c.time + d.time, c.cpu + d.cpu, c.allocs + d.allocs, c.bytes + d.bytes}
}

// interval runs something and returns what it cost.
func (m *meter) interval(run func() error) (costs, error) {
	runtime.GC() // garbage of the preparations is not to count
	stop, err := m.profiler.startCPU()
	if err != nil {
		return costs{}, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, start := cpuTime(), time.Now()
	err = run()
	c := costs{time: time.Since(start), cpu: cpuTime() - cpu}
	runtime.ReadMemStats(&after)
	c.allocs, c.bytes = after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
	return c, errors.Join(err, stop())
}

// note puts what each of that many operations cost into the sample.
func (m *meter) note(c costs, operations int) {
	n := float64(operations)
	m.sample[metricRate] = n / c.time.Seconds()
	m.sample[metricCPU] = c.cpu.Seconds() / n
	m.sample[metricAllocs] = float64(c.allocs) / n
	m.sample[metricBytes] = float64(c.bytes) / n
}

// measure runs operations and notes what each cost.
func (m *meter) measure(run func() (operations int, err error)) error {
	var n int
	c, err := m.interval(func() (err error) {
		n, err = run()
		return err
	})
	if err == nil {
		m.note(c, n)
	}
	return err
}

// calls measures a call that a number of callers make, one after the other each, for the meter's time, but once at
// least.
func (m *meter) calls(ctx context.Context, callers int, call func(ctx context.Context, caller int) error) error {
	c := crowd{call: call, latencies: make([]histogram, callers)}
	if err := c.run(ctx, m.time/10); err != nil { // to warm up
		return err
	}
	clear(c.latencies)
	var all histogram
	if err := m.measure(func() (int, error) {
		err := c.run(ctx, m.time)
		for i := range c.latencies {
			all.merge(&c.latencies[i])
		}
		return int(all.n), err
	}); err != nil {
		return err
	}
	m.noteLatencies(&all)
	return nil
}

// noteLatencies puts percentiles into the sample.
func (m *meter) noteLatencies(h *histogram) {
	m.sample[metricP50] = h.quantile(0.5).Seconds()
	m.sample[metricP99] = h.quantile(0.99).Seconds()
}

// crowd is callers that make the same call.
type crowd struct {
	call      func(ctx context.Context, caller int) error
	latencies []histogram // one for each caller
}

// run lets the crowd call for so long and returns the first error.
func (c *crowd) run(ctx context.Context, d time.Duration) error {
	var over atomic.Bool
	timer := time.AfterFunc(d, func() { over.Store(true) })
	defer timer.Stop()
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for caller := range c.latencies {
		wg.Go(func() {
			begun := time.Now()
			for {
				if err := c.call(ctx, caller); err != nil {
					once.Do(func() { first = err })
					over.Store(true)
					return
				}
				ended := time.Now()
				c.latencies[caller].add(ended.Sub(begun))
				begun = ended
				if over.Load() {
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}

// peakHeap runs what may use much memory and notes the largest heap meanwhile: live objects and those that have not been
// collected yet. Looking at it every few milliseconds costs some CPU time, the same for each contender.
func (m *meter) peakHeap(run func() error) error {
	stop := make(chan struct{})
	peak := make(chan uint64)
	go func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		var most uint64
		for {
			select {
			case <-stop:
				peak <- most
				return
			case <-tick.C:
				metrics.Read(sample)
				most = max(most, sample[0].Value.Uint64())
			}
		}
	}()
	err := run()
	close(stop)
	m.sample[metricPeakHeap] = float64(<-peak)
	return err
}

// footprint is what idle things cost while nothing happens.
type footprint struct {
	bytes      uint64 // the live heap and the stacks
	goroutines int
}

func measureFootprint() footprint {
	runtime.GC()
	runtime.GC() // what finalizers and pools held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{bytes: m.HeapAlloc + m.StackInuse, goroutines: runtime.NumGoroutine()}
}

// held notes what each of n things costs that are there now, but were not before.
func (m *meter) held(before footprint, n int) {
	after := measureFootprint()
	m.sample[metricHeld] = max(0, float64(after.bytes)-float64(before.bytes)) / float64(n)
	m.sample[metricGoroutines] = float64(after.goroutines - before.goroutines)
}

// cpuTime is the CPU time that this process has used so far, in user and kernel mode.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only for a bad argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
