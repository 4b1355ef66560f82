package main

import (
	"strconv"
	"strings"
)

// metric is something that is measured.
type metric string

// What is measured. Costs are those of one operation of the case.
const (
	metricRate       metric = "perSecond"
	metricCPU        metric = "cpuSeconds"
	metricAllocs     metric = "allocations"
	metricBytes      metric = "allocatedBytes"
	metricP50        metric = "p50Seconds"
	metricP99        metric = "p99Seconds"
	metricPeakHeap   metric = "peakHeapBytes"
	metricHeld       metric = "heldBytes"
	metricGoroutines metric = "goroutines"
)

// sample is what one measurement gave. Times are in seconds.
type sample map[metric]float64

// metricInfo says how a metric is shown.
type metricInfo struct {
	metric metric
	title  string
	format func(float64) string
	// higher says that more is better.
	higher bool
}

// shown are the metrics in the order in which they are shown.
var shown = []metricInfo{
	{metric: metricRate, title: "per second", format: formatCount, higher: true},
	{metric: metricCPU, title: "CPU", format: formatSeconds},
	{metric: metricAllocs, title: "allocations", format: formatCount},
	{metric: metricBytes, title: "allocated", format: formatBytes},
	{metric: metricP50, title: "p50", format: formatSeconds},
	{metric: metricP99, title: "p99", format: formatSeconds},
	{metric: metricPeakHeap, title: "peak heap", format: formatBytes},
	{metric: metricHeld, title: "memory held", format: formatBytes},
	{metric: metricGoroutines, title: "goroutines", format: formatCount},
}

func formatCount(v float64) string {
	switch {
	case v >= 1e6:
		return digits(v/1e6) + " M"
	case v >= 1e4:
		return digits(v/1e3) + " k"
	}
	return digits(v)
}

func formatSeconds(v float64) string {
	switch {
	case v >= 1:
		return digits(v) + " s"
	case v >= 1e-3:
		return digits(v*1e3) + " ms"
	}
	return digits(v*1e6) + " µs"
}

func formatBytes(v float64) string {
	switch {
	case v >= 1<<30:
		return digits(v/(1<<30)) + " GiB"
	case v >= 1<<20:
		return digits(v/(1<<20)) + " MiB"
	case v >= 1<<10:
		return digits(v/(1<<10)) + " KiB"
	}
	return digits(v) + " B"
}

// digits writes a number with three digits, or all that there are before the point.
func digits(v float64) string {
	places := 2
	switch {
	case v >= 99.95:
		places = 0
	case v >= 9.995:
		places = 1
	}
	text := strconv.FormatFloat(v, 'f', places, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}
