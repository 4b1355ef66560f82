// Package server gives the examples something to talk to: the cluster named on the command line, or a real etcd started
// in process.
package server

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// Main parses the command line and runs an example with the endpoints to use, until it returns or the program is
// interrupted. It ends the process.
func Main(run func(ctx context.Context, endpoints []string) error) {
	endpoints := flag.String("endpoints", "", "client URLs of a running cluster, separated by commas; "+
		"by default a server is started in process, with its data in a temporary folder")
	flag.Parse()
	if err := with(*endpoints, run); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func with(endpoints string, run func(ctx context.Context, endpoints []string) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if endpoints != "" {
		return run(ctx, strings.Split(endpoints, ","))
	}
	cluster, err := etcdtest.Start(ctx, etcdtest.WithMembers(1))
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	err = run(ctx, cluster.Endpoints())
	if closeErr := cluster.Close(); err == nil {
		err = closeErr
	}
	return err
}
