// Command election has candidates lead one after the other, while an observer follows who leads, and shows how a leader
// stops when it is replaced.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/examples/internal/server"
)

const (
	prefix = "elections/scheduler"
	term   = 200 * time.Millisecond // how long each leads
)

var candidates = []string{"alpha", "beta", "gamma"}

func main() { server.Main(run) }

func run(ctx context.Context, endpoints []string) error {
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer cli.Close()
	session, err := concurrency.NewSession(cli)
	if err != nil {
		return err
	}
	defer session.Close()

	observing, cancel := context.WithCancel(ctx)
	observed := make(chan struct{})
	go func() {
		defer close(observed)
		observe(observing, concurrency.NewElection(session, prefix))
	}()

	var wg sync.WaitGroup
	failures := make([]error, len(candidates))
	for i, name := range candidates {
		wg.Go(func() { failures[i] = campaign(ctx, cli, name) })
	}
	wg.Wait()
	cancel()
	<-observed
	return errors.Join(failures...)
}

// observe prints who leads, and what the leaders proclaim, until ctx ends.
func observe(ctx context.Context, election *concurrency.Election) {
	for resp := range election.Observe(ctx) {
		fmt.Printf("observer: the leader is %s\n", resp.Kvs[0].Value)
	}
}

// campaign waits until the candidate is elected, leads, and makes room for the next one. In a real program each
// candidate is a process, and leads as long as it can.
func campaign(ctx context.Context, cli *clientv3.Client, name string) error {
	// The leader leads as long as its session lives. When its process dies, the next one takes over after the time to
	// live.
	session, err := concurrency.NewSession(cli, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer session.Close()
	election := concurrency.NewElection(session, prefix)
	if err := election.Campaign(ctx, name); err != nil {
		return err
	}
	if err := lead(ctx, election, name); err != nil {
		return err
	}
	return election.Resign(ctx)
}

// lead is the leader's work. It is done under a context that ends when the leadership is lost.
func lead(ctx context.Context, election *concurrency.Election, name string) error {
	leading := election.Context()
	fmt.Printf("%s leads, token %d\n", name, election.Rev())
	if err := election.Proclaim(ctx, name+", at work"); err != nil {
		return err
	}
	// What the leader writes is carried out only while it leads, so one that was replaced unawares does no harm.
	if _, err := election.Txn(ctx).Then(clientv3.OpPut("scheduler/last", name)).Commit(); err != nil {
		return err
	}
	select {
	case <-time.After(term):
		return nil
	case <-leading.Done():
		return context.Cause(leading)
	case <-ctx.Done():
		return ctx.Err()
	}
}
