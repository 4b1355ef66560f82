package main

import (
	"fmt"
	"time"
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

// formatCount gives a number at least three digits.
func formatCount(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1f k", v/1e3)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func formatSeconds(v float64) string {
	d := time.Duration(v * float64(time.Second))
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", v*1e3)
	case d >= 10*time.Microsecond:
		return fmt.Sprintf("%.1f µs", v*1e6)
	}
	return fmt.Sprintf("%.2f µs", v*1e6)
}

func formatBytes(v float64) string {
	switch {
	case v >= 1<<30:
		return fmt.Sprintf("%.2f GiB", v/(1<<30))
	case v >= 1<<20:
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case v >= 1<<10:
		return fmt.Sprintf("%.1f KiB", v/(1<<10))
	}
	return fmt.Sprintf("%.0f B", v)
}
