package renew

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const many = 10_000

// perSlice counts renewals per slice of time from the given instant on.
func perSlice(renewals []renewal, from, slice time.Duration, n int) []int {
	counts := make([]int, n)
	for _, r := range renewals {
		if i := int((r.at - from) / slice); r.at >= from && i < n {
			counts[i]++
		}
	}
	return counts
}

// longestGaps returns for each lease the longest time between two renewals.
func longestGaps(renewals []renewal) map[int64]time.Duration {
	last, longest := make(map[int64]time.Duration), make(map[int64]time.Duration)
	for _, r := range renewals {
		if before, ok := last[r.id]; ok {
			longest[r.id] = max(longest[r.id], r.at-before)
		}
		last[r.id] = r.at
	}
	return longest
}

func TestManyLeasesAreRenewedInTimeByFewGoroutinesAndEvenly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const ttl, third = 30, 10 * time.Second
		j := newJournal()
		e := start(t, Config{Client: &fakeClient{serve: answering(j, always(ttl))}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		before := runtime.NumGoroutine()
		var all []*recorder
		for id := range int64(many) {
			all = append(all, keep(t, e, ctx, id))
		}
		synctest.Wait()
		if n := len(j.all()); n != many {
			t.Errorf("%d first renewals at once", n)
		}
		if n := runtime.NumGoroutine() - before; n > 5 { // one of them is the server's
			t.Errorf("%d goroutines", n)
		}
		pass(10 * third)
		for _, r := range all {
			r.wantOpen()
		}
		renewals := j.all()
		for id, gap := range longestGaps(renewals) {
			if gap > third {
				t.Fatalf("lease %d was not renewed for %v", id, gap)
			}
		}
		if n := len(renewals); n > many*12 {
			t.Errorf("%d renewals in 10 thirds of the TTL", n)
		}
		// They go out in groups, four in a period.
		for i, n := range perSlice(renewals, third, third/groups, 9*groups) {
			if n > many/groups*5/4 {
				t.Errorf("%d renewals in the %dth quarter of a period", n, i)
			}
		}
		cancel()
		synctest.Wait()
		for _, r := range all {
			r.wantClosed(nil)
		}
		wantRest(t, e)
		if n := runtime.NumGoroutine() - before; n > 0 {
			t.Errorf("%d goroutines left", n)
		}
	})
}

func TestRenewalsAfterAnOutageArePacedAndNoLeaseIsLost(t *testing.T) {
	for _, tc := range []struct {
		leases int64
		ttl    int64
		after  time.Duration // the leases have been kept alive
		outage time.Duration
		most   float64 // renewals in 100 ms soon after the outage, as a multiple of what is needed in the long run
	}{
		{leases: 3000, ttl: 60, after: 50 * time.Second, outage: 2 * time.Second, most: 2.5},
		{leases: many, ttl: 10, after: 10 * time.Second, outage: 2 * time.Second, most: 2.5},
		{leases: 3000, ttl: 5, after: 5 * time.Second, outage: 2 * time.Second, most: 20}, // some are urgent
		{leases: 3000, ttl: 10, after: 10 * time.Second, outage: 3 * time.Second, most: 2.5},
		{leases: 3000, ttl: 60, after: time.Second / 10, outage: 54 * time.Second, most: 200},
		{leases: 3000, ttl: 5, after: 5 * time.Second, outage: 2700 * time.Millisecond, most: 20},
	} {
		bubble(t, func(t *testing.T) {
			j := newJournal()
			var down atomic.Bool
			broken := make(chan struct{})
			c := &fakeClient{
				open: func(context.Context, int) error {
					if down.Load() {
						return errGone
					}
					return nil
				},
				serve: func(st *fakeStream) error {
					for {
						select {
						case id := <-st.requests:
							j.add(st, id)
							st.answer(id, tc.ttl)
						case <-broken:
							return errGone
						case <-st.ctx.Done():
							return st.ctx.Err()
						}
					}
				},
			}
			e := start(t, Config{Client: c})
			var all []*recorder
			for id := range tc.leases {
				all = append(all, keep(t, e, t.Context(), id))
			}
			pass(tc.after)
			down.Store(true)
			broken <- struct{}{}
			pass(tc.outage)
			down.Store(false)
			up := time.Since(j.start)
			pass(time.Duration(tc.ttl) * time.Second)
			for _, r := range all {
				r.wantOpen()
			}
			renewals := j.all()
			first := up
			for _, r := range renewals {
				if r.at >= up {
					first = r.at
					break
				}
			}
			if first-up > max(streamBackoff.Max, time.Duration(tc.ttl)*time.Second/3/groups) {
				t.Errorf("first renewal %v after the outage", first-up)
			}
			needed := float64(tc.leases) / (float64(tc.ttl) / 3) / 10
			most := slices.Max(perSlice(renewals, first, 100*time.Millisecond, 10))
			t.Logf("TTL %d s, outage %v: %d renewals in 100 ms, %.0f needed", tc.ttl, tc.outage, most, needed)
			if float64(most) > tc.most*needed {
				t.Errorf("TTL %d s, outage %v: %d renewals in 100 ms, %.0f needed", tc.ttl, tc.outage, most, needed)
			}
		})
	}
}

// idleSink is a Sink that takes no memory.
type idleSink struct{}

func (idleSink) Offer(*pb.LeaseKeepAliveResponse) {}
func (idleSink) Close(error)                      {}

func TestMemoryPerLease(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var answers atomic.Int64
	c := &fakeClient{serve: func(st *fakeStream) error {
		for {
			id, err := st.next()
			if err != nil {
				return err
			}
			answers.Add(1)
			st.answer(id, 3600)
		}
	}}
	e := New(Config{Client: c})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := heap()
	for id := range int64(many) {
		if err := e.KeepAlive(ctx, 1<<40+id*7, idleSink{}); err != nil {
			t.Fatal(err)
		}
	}
	for answered := 0; answered < many; {
		e.mu.Lock()
		answered = e.idle.n
		e.mu.Unlock()
		runtime.Gosched()
	}
	per := float64(heap()-before) / many
	t.Logf("%.0f bytes per lease", per)
	if per > 600 {
		t.Errorf("%.0f bytes per lease", per)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	runtime.KeepAlive(e)
}

func BenchmarkRenewal(b *testing.B) {
	e := New(Config{Client: &fakeClient{}})
	e.mu.Lock()
	e.running = true
	e.stream = &stream{engine: e, cancel: func() {}, open: true, more: make(chan struct{}, 1)}
	e.window = maxWindow
	e.mu.Unlock()
	for id := range int64(many) {
		if err := e.KeepAlive(context.Background(), id, idleSink{}); err != nil {
			b.Fatal(err)
		}
	}
	resp := &pb.LeaseKeepAliveResponse{TTL: 60}
	renewals := 0
	var now time.Duration
	b.ReportAllocs()
	for b.Loop() {
		// The clock of the engine, moved on to the next renewal.
		e.mu.Lock()
		if e.waiting() == 0 {
			now = max(now, e.idle.next())
		}
		e.epoch = time.Now().Add(-now)
		e.stream.outbox = e.stream.outbox[:0]
		e.step(now)
		sent := slices.Clone(e.stream.outbox)
		e.mu.Unlock()
		renewals += len(sent)
		for _, id := range sent {
			resp.ID = id
			e.answer(e.stream, resp)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(renewals), "ns/renewal")
}
