package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
)

// profiler writes profiles of what is measured, and of nothing else.
type profiler struct {
	prefix  string // of the files' names
	written int    // CPU profiles so far
}

// startCPU begins the profile of an interval, in a file of its own, which is complete when it has been stopped. A nil
// profiler writes none.
func (p *profiler) startCPU() (stop func() error, err error) {
	if p == nil {
		return func() error { return nil }, nil
	}
	p.written++
	f, err := os.Create(fmt.Sprintf("%s.%d.cpu.pprof", p.prefix, p.written))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// writeAllocs writes the profile of all allocations since the process began: those of the preparations are in it.
func (p *profiler) writeAllocs() error {
	f, err := os.Create(p.prefix + ".allocs.pprof")
	if err != nil {
		return err
	}
	runtime.GC() // the profile is as of the last collection
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}
