package etcdtest

import (
	"context"
	"io"
	"math"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// startFlow runs one direction between two in-memory pipes, and returns the ends that are the test's.
func startFlow(l link) (p *Proxy, in, out net.Conn, end func() error) {
	in, src := net.Pipe()
	dst, out := net.Pipe()
	p = &Proxy{link: l, changed: make(chan struct{})}
	c := &proxied{p: p, client: src, server: dst}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	p.conns = map[*proxied]struct{}{c: {}}
	result := make(chan error)
	go func() {
		f := flow{c: c, dst: dst, src: src, count: new(atomic.Int64)}
		result <- f.run()
	}()
	return p, in, out, func() error {
		c.reset()
		return <-result
	}
}

// arrivals reads n packets of one byte each and says when, from start, they came.
func arrivals(t *testing.T, out net.Conn, start time.Time, n int) []time.Duration {
	t.Helper()
	var at []time.Duration
	for i := range n {
		b := make([]byte, 1)
		if _, err := io.ReadFull(out, b); err != nil {
			t.Fatal(err)
		}
		if int(b[0]) != i {
			t.Fatalf("byte %d came as number %d", b[0], i)
		}
		at = append(at, time.Since(start))
	}
	return at
}

func TestFlowDelays(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name string
		link link
		sent []time.Duration // when each byte is
		want []time.Duration // when it arrives
	}{
		{"healthy", link{}, []time.Duration{0, 0, 5 * ms}, []time.Duration{0, 0, 5 * ms}},
		{
			"latency, many on their way", link{Impairment: Impairment{Latency: 100 * ms}},
			[]time.Duration{0, 10 * ms, 50 * ms, 120 * ms},
			[]time.Duration{100 * ms, 110 * ms, 150 * ms, 220 * ms},
		},
		{
			"rate", link{Impairment: Impairment{BytesPerSecond: 10}}, // bytes per second
			[]time.Duration{0, 0, 0, 1000 * ms},
			[]time.Duration{100 * ms, 200 * ms, 300 * ms, 1100 * ms},
		},
		{
			"latency and rate", link{Impairment: Impairment{Latency: 1000 * ms, BytesPerSecond: 10}},
			[]time.Duration{0, 0, 500 * ms},
			[]time.Duration{1100 * ms, 1200 * ms, 1600 * ms},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, in, out, end := startFlow(tt.link)
				start := time.Now()
				go func() {
					for i, at := range tt.sent {
						time.Sleep(at - time.Since(start))
						_, _ = in.Write([]byte{byte(i)})
					}
				}()
				for i, at := range arrivals(t, out, start, len(tt.want)) {
					if at != tt.want[i] {
						t.Errorf("byte %d came after %v, want %v", i, at, tt.want[i])
					}
				}
				_ = end()
			})
		})
	}
}

// What is on its way keeps its delay and its order when the link changes.
func TestFlowKeepsOrderWhenHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, in, out, end := startFlow(link{Impairment: Impairment{Latency: time.Second}})
		start := time.Now()
		go func() {
			_, _ = in.Write([]byte{0})
			time.Sleep(100 * time.Millisecond)
			p.Heal()
			_, _ = in.Write([]byte{1})
			time.Sleep(2 * time.Second)
			_, _ = in.Write([]byte{2})
		}()
		want := []time.Duration{time.Second, time.Second, 2100 * time.Millisecond}
		for i, at := range arrivals(t, out, start, 3) {
			if at != want[i] {
				t.Errorf("byte %d came after %v, want %v", i, at, want[i])
			}
		}
		_ = end()
	})
}

func TestFlowStandsStillWhenFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, in, out, end := startFlow(link{Impairment: Impairment{Latency: time.Second}})
		start := time.Now()
		go func() {
			_, _ = in.Write([]byte{0})
			p.Freeze() // with a byte on its way
			time.AfterFunc(10*time.Second, p.Heal)
			_, _ = in.Write([]byte{1})
		}()
		for i, at := range arrivals(t, out, start, 2) {
			if at != 10*time.Second {
				t.Errorf("byte %d came after %v, want 10s", i, at)
			}
		}
		_ = end()
	})
}

func TestFlowPassesTheEndOnInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, in, out, end := startFlow(link{Impairment: Impairment{Latency: time.Second}})
		start := time.Now()
		go func() {
			_, _ = in.Write([]byte{0})
			in.Close()
		}()
		if got, err := io.ReadAll(out); len(got) != 1 || err != nil {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if at := time.Since(start); at != time.Second {
			t.Errorf("the end came after %v, want 1s", at)
		}
		if err := end(); err != nil {
			t.Errorf("a flow that came to its end: %v", err)
		}
	})
}

func TestFlowIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, in, out, end := startFlow(link{Impairment: Impairment{Latency: time.Second}})
		start := time.Now()
		var took time.Duration
		go func() {
			// One read more than the bound may be in the queue.
			_, _ = in.Write(make([]byte, maxInFlight+2*flowBuffer))
			took = time.Since(start)
		}()
		if _, err := io.ReadFull(out, make([]byte, maxInFlight+2*flowBuffer)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if took < time.Second {
			t.Errorf("more than the bound was taken in within %v", took)
		}
		_ = end()
	})
}

func TestFlowEndsWhenReset(t *testing.T) {
	for _, l := range []link{{}, {Impairment: Impairment{Latency: time.Hour}}, {Impairment: Impairment{BytesPerSecond: 1}}, {frozen: true}} {
		synctest.Test(t, func(t *testing.T) {
			p, in, out, end := startFlow(l)
			go func() { _, _ = in.Write(make([]byte, maxInFlight+2*flowBuffer)) }()
			synctest.Wait()
			p.Cut()
			if err := end(); err == nil {
				t.Errorf("a flow on %+v ends without an error", l)
			}
			in.Close()
			out.Close()
		})
	}
}

func TestFlowJittersAndLoses(t *testing.T) {
	for name, tt := range map[string]struct {
		i   Impairment
		max time.Duration // of the first packet
	}{
		"jitter": {Impairment{Latency: time.Second, Jitter: time.Second}, 2 * time.Second},
		"loss":   {Impairment{Latency: time.Second, Loss: 0.5}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 200
				_, in, out, end := startFlow(link{Impairment: tt.i})
				start := time.Now()
				go func() {
					for i := range n {
						_, _ = in.Write([]byte{byte(i)})
					}
				}()
				at := arrivals(t, out, start, n) // in order
				if at[0] < time.Second || at[0] > tt.max {
					t.Errorf("the first came after %v", at[0])
				}
				late := 0
				for i := range n - 1 {
					if at[i+1] > at[i] {
						late++
					}
				}
				if late == 0 {
					t.Error("all came at the same time")
				}
				if err := end(); err == nil {
					t.Error("no error from a connection that was reset")
				}
			})
		})
	}
}

func TestImpairmentsThatCannotBe(t *testing.T) {
	p := echoProxy(t, "tcp")
	for _, i := range []Impairment{{Latency: -1}, {Jitter: -1}, {BytesPerSecond: -1}, {Loss: -0.1}, {Loss: 1}, {Loss: math.NaN()}} {
		if err := p.Impair(i); err == nil {
			t.Errorf("%+v is taken", i)
		}
	}
	if err := p.Impair(Impairment{Latency: time.Millisecond, Jitter: time.Millisecond, Loss: 0.1}); err != nil {
		t.Error(err)
	}
	say(t, dialProxy(t, p), "hello")
}
