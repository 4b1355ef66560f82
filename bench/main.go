// Command bench measures this client side by side with the official one, and with the stub that is generated for gRPC,
// the floor that every client on gRPC stands on:
//
//	go run ./bench                      # all cases, in some ten minutes
//	go run ./bench -case 'Get.*null'    # some of them
//	go run ./bench -out docs/bench      # write a report: Markdown, pictures, JSON
//	go run ./bench -profile /tmp/p      # write profiles of each client in each case
//
// The server is a process of its own, and so is each client: CPU time, allocations and heap are those of the client and
// its callers. Where the client alone is to be seen the server answers with prepared bytes (null server), else it is a
// real etcd, a new one for each case. In each round of a case the clients take turns, each round in another order, so that
// what else happens on the machine hits them alike. What counts are the ratios of one round, of which the report has the
// median; the figures themselves are those of the machine.
//
// What faults of a cluster's member do to both clients is shown by the command in faults.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"time"

	"github.com/seed-d18e112a/clientv3/bench/internal/page"
)

func main() {
	if ranAsChild() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options is what the command line says.
type options struct {
	chosen  *regexp.Regexp
	rounds  int
	time    time.Duration
	scale   scale
	out     string
	profile string
	note    string
	list    bool
}

func parse(args []string, errOut io.Writer) (*options, error) {
	o := &options{scale: fullScale}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(errOut)
	chosen := flags.String("case", "", "run only the cases whose names match this regular expression")
	flags.IntVar(&o.rounds, "rounds", 5, "number of rounds of a case; cases that take long have fewer")
	flags.DurationVar(&o.time, "time", 600*time.Millisecond, "length of one measurement")
	flags.DurationVar(&o.scale.LeaseTTL, "lease-ttl", o.scale.LeaseTTL,
		"TTL of the leases that are kept alive, in whole seconds, of which the measurement lasts a third")
	flags.StringVar(&o.out, "out", "", "directory to write README.md, results.json and pictures to")
	flags.StringVar(&o.profile, "profile", "", "directory to write profiles of CPU time and allocations to")
	flags.StringVar(&o.note, "note", "", "a sentence about the machine, for the report")
	flags.BoolVar(&o.list, "list", false, "list the cases, and run none")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if o.chosen, err = regexp.Compile(*chosen); err != nil {
		return nil, fmt.Errorf("-case: %w", err)
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.rounds < 1:
		return nil, fmt.Errorf("-rounds %d: at least one", o.rounds)
	case o.time <= 0:
		return nil, fmt.Errorf("-time %v: a measurement takes some time", o.time)
	case o.scale.LeaseTTL < 2*time.Second || o.scale.LeaseTTL%time.Second != 0:
		return nil, fmt.Errorf("-lease-ttl %v: whole seconds, at least two", o.scale.LeaseTTL)
	}
	return o, nil
}

func command(ctx context.Context, args []string, out, errOut io.Writer) error {
	o, err := parse(args, errOut)
	if err != nil {
		return err
	}
	var chosen []benchCase
	for _, c := range cases(o.scale) {
		if o.chosen.MatchString(c.name) {
			chosen = append(chosen, c)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("-case %q: no such case; -list lists them", o.chosen)
	}
	if o.list {
		for _, c := range chosen {
			if _, err := fmt.Fprintln(out, c.name); err != nil {
				return err
			}
		}
		return nil
	}
	rep := &report{Machine: page.Machine(), Note: o.note, Rounds: o.rounds, Time: o.time.String(), Scale: o.scale}
	for i, c := range chosen {
		if _, err := fmt.Fprintf(errOut, "%d of %d: %s\n", i+1, len(chosen), c.name); err != nil {
			return err
		}
		res, err := run(ctx, c, o)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		rep.Results = append(rep.Results, *res)
	}
	if err := rep.text(out); err != nil {
		return err
	}
	if o.out == "" {
		return nil
	}
	return rep.write(o.out)
}
