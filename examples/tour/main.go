// Command tour walks through what etcd offers, step by step, against a real etcd: one that it starts in process, with
// its data in a temporary folder, or with -endpoints a running cluster. On a running cluster it works below a prefix of
// its own, and deletes it at the end.
package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/examples/internal/server"
)

func main() { server.Main(run) }

func run(ctx context.Context, endpoints []string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer cli.Close()

	t := &tour{cli: cli, prefix: fmt.Sprintf("tour-%d/", time.Now().UnixNano())}
	for _, s := range []struct {
		title string
		step  func(context.Context) error
	}{
		{"The server", t.server},
		{"Put and get", t.putAndGet},
		{"A range by prefix, sorted and limited", t.ranges},
		{"Reading an earlier revision", t.revisions},
		{"Compare and swap", t.compareAndSwap},
		{"A nested transaction", t.nested},
		{"A large range, as a stream", t.stream},
		{"Watching a prefix", t.watch},
		{"A lease", t.lease},
		{"What an error looks like", t.errors},
		{"Deleting a prefix", t.deletePrefix},
	} {
		fmt.Printf("\n── %s\n", s.title)
		if err := s.step(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
	}
	return nil
}

// tour is what the steps share.
type tour struct {
	cli    *clientv3.Client
	prefix string // of all keys
}

// key returns a key of the tour.
func (t *tour) key(name string) string { return t.prefix + name }

// name returns a key without the tour's prefix, to print it.
func (t *tour) name(key []byte) string { return strings.TrimPrefix(string(key), t.prefix) }

// say prints a step, and what it did.
func say(step string, format string, args ...any) {
	fmt.Printf("   %-46s %s\n", step, fmt.Sprintf(format, args...))
}
