package main

import (
	"context"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// testScale is what a test has time for.
var testScale = scale{
	Callers:   []int{1, 4},
	Ranges:    []int{10, 200},
	Stream:    2 * streamChunk,
	Idle:      20,
	LeaseTTL:  6 * time.Second,
	Clients:   5,
	EventKeys: 300,
}

// Every contender does what every case asks of it, and something is measured.
func TestEveryCase(t *testing.T) {
	endpoints := make(map[serverKind]string)
	for _, kind := range []serverKind{nullKind, etcdKind} {
		endpoint, stop, err := kind.start(context.Background()) // it is stopped below
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
		endpoints[kind] = endpoint
	}
	for _, c := range cases(testScale) {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.name, "leases") {
				t.Parallel() // they have time
			}
			if c.fill != nil {
				if err := fillServer(t.Context(), endpoints[c.server], c.fill); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range c.contenders {
				t.Run(name, func(t *testing.T) {
					if strings.Contains(c.name, "leases") {
						t.Parallel()
					}
					checkSample(t, c, measureHere(t, c, name, endpoints[c.server]))
				})
			}
		})
	}
}

// measureHere makes one measurement in this process.
func measureHere(t *testing.T, c benchCase, name, endpoint string) sample {
	t.Helper()
	who, ok := contenderNamed(name)
	if !ok {
		t.Fatal("no such contender")
	}
	m := &meter{scale: testScale, time: 20 * time.Millisecond, dial: func() (client, error) { return who.dial(endpoint) }}
	defer m.close()
	a := measureOnce(&c, m)
	if a.Error != "" {
		t.Fatal(a.Error)
	}
	return a.Sample
}

func checkSample(t *testing.T, c benchCase, s sample) {
	t.Helper()
	want := []metric{metricCPU, metricAllocs, metricBytes}
	switch {
	case c.topic == topicCalls:
		want = append(want, metricRate, metricP50, metricP99)
	case c.topic == topicRanges:
		want = append(want, metricRate)
	case strings.Contains(c.name, "idle") || strings.Contains(c.name, "clients"):
		want = append(want, metricRate, metricHeld)
	case strings.Contains(c.name, "Lock"):
		want = append(want, metricP50, metricP99)
	}
	for _, m := range want {
		if s[m] <= 0 && m != metricHeld {
			t.Errorf("%s is %v", m, s[m])
		}
	}
	for m, v := range s {
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 && m != metricGoroutines {
			t.Errorf("%s is %v", m, v)
		}
	}
	if p99, ok := s[metricP99]; ok && s[metricP50] > p99 {
		t.Errorf("p50 %v is more than p99 %v", s[metricP50], p99)
	}
}

func TestCasesHaveNamesOfTheirOwn(t *testing.T) {
	var names, files []string
	for _, c := range cases(fullScale) {
		names, files = append(names, c.name), append(files, fileName(c.name))
		if !strings.HasSuffix(c.name, string(c.server)) {
			t.Errorf("%s: does not end with %s", c.name, c.server)
		}
		if !slices.Contains(c.contenders, official) || !slices.Contains(c.contenders, own) {
			t.Errorf("%s: contenders %v", c.name, c.contenders)
		}
		if !slices.Contains(topics, c.topic) {
			t.Errorf("%s: no topic", c.name)
		}
	}
	for _, all := range [][]string{names, files} {
		slices.Sort(all)
		if n := len(slices.Compact(slices.Clone(all))); n != len(all) {
			t.Errorf("%d names of %d cases", n, len(all))
		}
	}
}

func TestCallsStopAtTheFirstError(t *testing.T) {
	m := &meter{time: time.Hour, sample: make(sample)}
	calls := 0
	err := m.calls(t.Context(), 1, func(context.Context, int) error {
		if calls++; calls == 3 {
			return errWatchClosed
		}
		return nil
	})
	if err != errWatchClosed || calls != 3 || len(m.sample) > 0 {
		t.Errorf("error %v after %d calls, sample %v", err, calls, m.sample)
	}
}

// fakeRenewals are as many as were counted, of a lease that is still there or not.
type fakeRenewals struct {
	n     int
	alive bool
}

func (r fakeRenewals) first() error      { return nil }
func (r fakeRenewals) more() (int, bool) { return r.n, r.alive }

func TestLeasesMustHaveBeenRenewed(t *testing.T) {
	of := func(renewed, not int) []renewals {
		leases := slices.Repeat([]renewals{fakeRenewals{2, true}}, renewed)
		return append(leases, slices.Repeat([]renewals{fakeRenewals{0, true}}, not)...)
	}
	if err := checkRenewals(of(9, 1)); err != nil {
		t.Error(err)
	}
	if checkRenewals(of(8, 2)) == nil {
		t.Error("eight of ten are enough")
	}
	if checkRenewals(append(of(99, 0), fakeRenewals{1, false})) == nil {
		t.Error("a lost lease does not matter")
	}
}

func TestPeakHeapSeesWhatIsGoneInTheEnd(t *testing.T) {
	const size = 64 << 20
	m := &meter{sample: make(sample)}
	if err := m.peakHeap(func() error {
		held := make([]byte, size)
		time.Sleep(50 * time.Millisecond) // the heap is looked at now and then
		runtime.KeepAlive(held)
		runtime.GC()
		time.Sleep(50 * time.Millisecond)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if peak := m.sample[metricPeakHeap]; peak < size {
		t.Errorf("peak of %v", peak)
	}
}

func TestOperationsCostWhatTheyUse(t *testing.T) {
	m := &meter{sample: make(sample)}
	var sink []byte
	if err := m.measure(func() (int, error) {
		for range 100 {
			sink = make([]byte, 10_000)
		}
		return 100, nil
	}); err != nil {
		t.Fatal(err)
	}
	if sink == nil || m.sample[metricBytes] < 10_000 || m.sample[metricAllocs] < 1 || m.sample[metricAllocs] > 10 {
		t.Errorf("sample %v", m.sample)
	}
}

// The contenders would be compared by different code otherwise: official.go is made from own.go by go generate.
func TestOfficialIsMadeFromOwn(t *testing.T) {
	source, err := os.ReadFile("own.go")
	if err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile("official.go")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("github.com/seed-d18e112a/clientv3", "go.etcd.io/etcd/client/v3", "newOwn", "newOfficial",
		"ownClient", "officialClient", "ownRenewals", "officialRenewals", "ownSession", "officialSession").Replace(string(source))
	if string(made) != want {
		t.Error("official.go is not what go generate makes from own.go")
	}
}
