package main

import (
	"fmt"
	"time"
)

// windows are the moments at which the phases of a run began, and the end of the last.
type windows struct{ healthy, fault, recovery, end time.Time }

// tally is what became of calls of one kind.
type tally struct {
	done   int           // in the fault
	failed int           // from the fault to the end
	worst  int           // the most that failed of one caller
	gap    time.Duration // the longest time without success of one caller, from the fault to the end
}

// result is how a client came through a fault.
type result struct {
	scenario, client string
	reads, writes    tally
	work             float64 // calls done per second in the fault, as a part of those in the healthy phase
	sessionsLost     int
	lostLate         int           // of these, those that were lost after the fault's end
	watchGap         time.Duration // the longest time without an event of one watch, from the fault to the end
	clusterGap       time.Duration // the longest time without a write of the metronome's: the cluster's own part
	lost, repeated   int           // events, of all watches
	failures         map[string]int
	series           series
}

// series is the calls done over time, all callers together.
type series struct {
	perSecond              []float64 // in steps of seriesStep, from the beginning of the healthy phase
	fault, recovery, total time.Duration
}

const seriesStep = 250 * time.Millisecond

// evaluate returns what the load saw. It must have finished.
func (l *load) evaluate(w windows) result {
	res := result{failures: make(map[string]int), series: newSeries(w)}
	var before, during int
	count := func(t *tally, callers []caller) {
		for _, c := range callers {
			var successes []time.Time
			failed := 0
			for _, call := range c.calls {
				switch {
				case call.err != nil && call.at.Before(w.healthy):
				case call.err != nil:
					res.failures[call.err.Error()]++
					if !call.at.Before(w.fault) {
						failed++
					}
				default:
					successes = append(successes, call.at)
					res.series.add(call.at.Sub(w.healthy))
					if within(call.at, w.healthy, w.fault) {
						before++
					}
					if within(call.at, w.fault, w.recovery) {
						during++
						t.done++
					}
				}
			}
			t.failed += failed
			t.worst = max(t.worst, failed)
			t.gap = max(t.gap, gap(successes, w.fault, w.end))
		}
	}
	count(&res.reads, l.readers[:])
	count(&res.writes, l.writers[:])
	if before > 0 {
		rate := func(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }
		res.work = rate(during, w.recovery.Sub(w.fault)) / rate(before, w.fault.Sub(w.healthy))
	}
	for i := range l.sessions {
		s := &l.sessions[i]
		if !s.lost {
			continue
		}
		res.sessionsLost++
		if s.at.IsZero() || s.at.After(w.recovery) {
			res.lostLate++
		}
		if s.at.IsZero() {
			res.failures["session lost: its lease is gone, and the client does not know"]++
		} else {
			res.failures[fmt.Sprintf("session lost %v after the fault began", s.at.Sub(w.fault).Round(time.Second))]++
		}
	}
	for i := range l.watches {
		watch := &l.watches[i]
		if watch.err != nil {
			res.failures["watch ended: "+watch.err.Error()]++
		}
		res.watchGap = max(res.watchGap, gap(watch.at, w.fault, w.end))
		lost, repeated := compare(l.truth, watch.seen)
		res.lost += lost
		res.repeated += repeated
	}
	res.clusterGap = gap(l.beats.wrote, w.fault, w.end)
	return res
}

func within(t, from, to time.Time) bool { return !t.Before(from) && t.Before(to) }

// gap returns the longest time in which nothing happened that touches the time between from and to. What happened comes in
// order.
func gap(happened []time.Time, from, to time.Time) time.Duration {
	last := from
	longest := time.Duration(0)
	for _, t := range happened {
		if t.After(to) {
			break
		}
		if t.After(from) {
			longest = max(longest, t.Sub(last))
		}
		last = t
	}
	return max(longest, to.Sub(last))
}

// compare returns how many of the keys that were written once each were not seen, and how many sights were too many.
func compare(written, seen []string) (lost, repeated int) {
	times := make(map[string]int, len(seen))
	for _, key := range seen {
		times[key]++
	}
	for _, key := range written {
		if times[key] == 0 {
			lost++
		}
	}
	return lost, len(seen) - len(times)
}

func newSeries(w windows) series {
	total := w.end.Sub(w.healthy)
	return series{
		perSecond: make([]float64, total/seriesStep), // the last, incomplete step is left out
		fault:     w.fault.Sub(w.healthy),
		recovery:  w.recovery.Sub(w.healthy),
		total:     total,
	}
}

// add counts a call done so long after the beginning.
func (s *series) add(at time.Duration) {
	if i := int(at / seriesStep); at >= 0 && i < len(s.perSecond) {
		s.perSecond[i] += 1 / seriesStep.Seconds()
	}
}
