// Command faults shows what faults of one member of a cluster do to those who use it, with this client and with the
// official one:
//
//	go run ./bench/faults
//
// It takes about six minutes, needs a system on which processes can be halted (SIGSTOP), prints a table, and with -out
// writes a report in Markdown with a picture.
//
// The two clients are run one after the other, each on a new cluster of its own: side by side they would take the
// processor from each other just when one of them has more to do, and on one cluster the first would leave a member
// behind that has yet to catch up.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"time"
)

func main() {
	var (
		t    = phases{warmUp: 2 * time.Second}
		only = flag.String("run", "", "run only the faults whose names match this regular expression")
		out  = flag.String("out", "", "directory to write README.md and throughput.svg to")
		note = flag.String("note", "", "a sentence about the machine, for the report")
	)
	flag.DurationVar(&t.healthy, "healthy", 6*time.Second, "length of the healthy phase before the fault")
	flag.DurationVar(&t.fault, "fault", 12*time.Second, "length of the fault")
	flag.DurationVar(&t.recovery, "recovery", 8*time.Second, "length of the phase after the fault")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, t, *only, *out, *note); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, t phases, only, out, note string) error {
	if t.healthy <= 0 || t.fault <= 0 || t.recovery <= 0 {
		return fmt.Errorf("a phase of no length: healthy %v, fault %v, recovery %v", t.healthy, t.fault, t.recovery)
	}
	chosen, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	rep := report{phases: t, note: note}
	for _, s := range scenarios {
		if !chosen.MatchString(s.name) {
			continue
		}
		for _, c := range contenders {
			fmt.Fprintf(os.Stderr, "%s, %s\n", s.name, c.name)
			res, err := try(ctx, s, c, t)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, c.name, err)
			}
			for _, msg := range slices.Sorted(maps.Keys(res.failures)) {
				fmt.Fprintf(os.Stderr, "    %4d × %s\n", res.failures[msg], msg)
			}
			rep.results = append(rep.results, res)
		}
	}
	if len(rep.results) == 0 {
		return fmt.Errorf("-run %q: no such fault", only)
	}
	if err := rep.table().WriteText(os.Stdout); err != nil {
		return err
	}
	if out == "" {
		return nil
	}
	return rep.write(out)
}
