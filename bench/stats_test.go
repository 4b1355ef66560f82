package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 100, 2}, 3},
	} {
		given := slices.Clone(test.values)
		if got := median(test.values); got != test.want {
			t.Errorf("median of %v is %v, want %v", test.values, got, test.want)
		}
		if !slices.Equal(given, test.values) {
			t.Errorf("%v has been changed to %v", given, test.values)
		}
	}
}

// The ratio is that of each round, not that of the medians: what slows down a round slows down all clients.
func TestRatiosAreMediansOfTheRounds(t *testing.T) {
	rounds := func(rates ...float64) []sample {
		var all []sample
		for _, r := range rates {
			all = append(all, sample{metricRate: r})
		}
		return all
	}
	res := result{Clients: []figures{
		{Client: own, Rounds: rounds(20, 2000, 600)},
		{Client: official, Rounds: rounds(10, 1000, 100)},
		{Client: stub, Rounds: []sample{{metricP50: 1}, {metricRate: 500}, {}}},
	}}
	res.evaluate()
	for i, want := range []struct {
		median, ratio sample
	}{
		{sample{metricRate: 600}, sample{metricRate: 2}},
		{sample{metricRate: 100}, sample{}},
		{sample{metricRate: 500, metricP50: 1}, sample{metricRate: 0.5}},
	} {
		f := res.Clients[i]
		for _, m := range []metric{metricRate, metricP50} {
			if f.Median[m] != want.median[m] || f.Ratio[m] != want.ratio[m] {
				t.Errorf("%s, %s: median %v, ratio %v; want %v", f.Client, m, f.Median[m], f.Ratio[m], want)
			}
		}
	}
}

func TestBucketsFollowEachOther(t *testing.T) {
	for bucket := range 60 * subBuckets {
		from, to := lowerBound(bucket), lowerBound(bucket+1)
		if bucketOf(from) != bucket || bucketOf(to-1) != bucket {
			t.Fatalf("bucket %d from %d to %d holds neither", bucket, from, to)
		}
		if from >= subBuckets && float64(to-from) > float64(from)/subBuckets {
			t.Fatalf("bucket %d from %d to %d is too wide", bucket, from, to)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var all, half, other histogram
	if got := all.quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	for i := range 10_000 {
		d := time.Duration(i+1) * time.Microsecond
		if rand.IntN(2) == 0 {
			half.add(d)
		} else {
			other.add(d)
		}
	}
	all.merge(&half)
	all.merge(&other)
	for q, want := range map[float64]time.Duration{0.01: 100 * time.Microsecond, 0.5: 5 * time.Millisecond,
		0.99: 9900 * time.Microsecond, 1: 10 * time.Millisecond} {
		if got := all.quantile(q); (got - want).Abs() > want/16 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
}

func TestFormats(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{formatCount(0), "0"},
		{formatCount(3.14159), "3.14"},
		{formatCount(99.97), "100"},
		{formatCount(1234), "1234"},
		{formatCount(12345), "12.3 k"},
		{formatCount(2.5e6), "2.5 M"},
		{formatSeconds(1.5), "1.5 s"},
		{formatSeconds(0.0123), "12.3 ms"},
		{formatSeconds(0.000_000_25), "0.25 µs"},
		{formatBytes(1 << 30), "1 GiB"},
		{formatBytes(1000 << 10), "1000 KiB"},
		{formatBytes(12), "12 B"},
		{formatRatio(11.12), "11×"},
		{formatRatio(0.5), "0.50×"},
		{formatRatio(0.0123), "0.012×"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
