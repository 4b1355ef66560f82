package main

import (
	"errors"
	"testing"
	"time"
)

var beginning = time.Unix(1000, 0)

// moments are times in seconds after the beginning.
func moments(seconds ...float64) []time.Time {
	times := make([]time.Time, len(seconds))
	for i, s := range seconds {
		times[i] = beginning.Add(time.Duration(s * float64(time.Second)))
	}
	return times
}

func TestGap(t *testing.T) {
	tests := map[string]struct {
		happened []float64
		want     time.Duration
	}{
		"nothing":                        {nil, 10 * time.Second},
		"all the time":                   {[]float64{10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, time.Second},
		"a pause":                        {[]float64{10, 11, 15, 16, 17, 18, 19, 20}, 4 * time.Second},
		"none at the end":                {[]float64{10, 11, 12, 13, 14}, 6 * time.Second},
		"one that begins before":         {[]float64{1, 8, 15, 18, 20}, 7 * time.Second},
		"a pause before does not count":  {[]float64{1, 9.5, 11, 13, 15, 17, 19}, 2 * time.Second},
		"what comes after does not help": {[]float64{10, 12, 30}, 8 * time.Second},
	}
	edges := moments(10, 20)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := gap(moments(test.happened...), edges[0], edges[1]); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestCompareCountsWhatWasLostAndRepeated(t *testing.T) {
	lost, repeated := compare([]string{"a", "b", "c", "d"}, []string{"a", "c", "c", "d", "c"})
	if lost != 1 || repeated != 2 {
		t.Errorf("got %d lost and %d repeated, want 1 and 2", lost, repeated)
	}
}

func TestEvaluate(t *testing.T) {
	m := moments(0, 4, 8, 10)
	w := windows{healthy: m[0], fault: m[1], recovery: m[2], end: m[3]}
	l := &load{beats: &metronome{wrote: moments(0, 2, 4, 6, 8, 10)}, truth: []string{"a", "b"}}
	for i := range clients {
		l.watches[i].seen, l.watches[i].at = []string{"a", "b"}, moments(3, 5, 7, 9)
	}
	bad := errors.New("bad")
	calls := func(c *caller, err error, seconds ...float64) {
		for _, at := range moments(seconds...) {
			c.calls = append(c.calls, call{at: at, err: err})
		}
	}
	calls(&l.readers[0], nil, -1, 0.5, 1, 2, 3) // of which the first is before all
	calls(&l.readers[0], nil, 5, 9)
	calls(&l.readers[1], bad, 5, 6, 9)
	calls(&l.readers[2], bad, 1) // before the fault
	calls(&l.writers[0], nil, 4.5)
	l.sessions[3].lost = true
	l.sessions[4].lost, l.sessions[4].at = true, moments(5)[0]
	l.watches[2].seen = []string{"b", "b"}

	got := l.evaluate(w)
	if got.reads.done != 1 || got.reads.failed != 3 || got.reads.worst != 3 || got.writes.done != 1 || got.writes.failed != 0 {
		t.Errorf("calls: %+v %+v", got.reads, got.writes)
	}
	if got.work != 0.5 {
		t.Errorf("work: %v, want half", got.work)
	}
	if got.sessionsLost != 2 || got.lostLate != 1 || got.lost != 1 || got.repeated != 1 {
		t.Errorf("%d sessions lost, %d events lost, %d repeated", got.sessionsLost, got.lost, got.repeated)
	}
	if got.watchGap != 2*time.Second || got.clusterGap != 2*time.Second {
		t.Errorf("gaps of watches %v and of the cluster %v, want 2s", got.watchGap, got.clusterGap)
	}
	if got.failures["bad"] != 4 {
		t.Errorf("failures: %v", got.failures)
	}
	if n := len(got.series.perSecond); n != 40 || got.series.perSecond[2] != 4 || got.series.perSecond[36] != 4 {
		t.Errorf("series of %d: %v", n, got.series.perSecond)
	}
}
