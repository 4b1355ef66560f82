package bench

import (
	"runtime"
	"syscall"
	"time"
)

// cpuTime is the CPU time that this process has used so far, in user and kernel mode.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only for a bad argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// footprint is what idle things cost while nothing happens.
type footprint struct {
	heap       uint64
	stacks     uint64
	goroutines int
}

// measureFootprint returns the live heap, the stacks and the goroutines of this process.
func measureFootprint() footprint {
	runtime.GC()
	runtime.GC() // what finalizers and pools held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{heap: m.HeapAlloc, stacks: m.StackInuse, goroutines: runtime.NumGoroutine()}
}
