// Command lock lets workers take turns under a lock, and shows how what the lock guards stays safe when a worker loses
// the lock without noticing.
package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/examples/internal/server"
)

const (
	workers = 5
	turns   = 3
	lock    = "locks/counter"
	counter = "counter"
)

func main() { server.Main(run) }

func run(ctx context.Context, endpoints []string) error {
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer cli.Close()
	if _, err := cli.Delete(ctx, counter); err != nil {
		return err
	}

	var wg sync.WaitGroup
	failures := make([]error, workers)
	for i := range workers {
		wg.Go(func() { failures[i] = work(ctx, cli, i) })
	}
	wg.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	n, err := read(ctx, cli)
	if err != nil {
		return err
	}
	fmt.Printf("%d workers, %d turns each: the counter is %d\n", workers, turns, n)

	return lose(ctx, cli)
}

// work takes the lock and increments the counter, turn by turn. In a real program each worker is a process.
func work(ctx context.Context, cli *clientv3.Client, worker int) error {
	// The session is what holds the lock. When its process dies, the lock is free after the time to live.
	session, err := concurrency.NewSession(cli, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer session.Close()
	mutex := concurrency.NewMutex(session, lock)
	for range turns {
		if err := mutex.Lock(ctx); err != nil {
			return err
		}
		fmt.Printf("worker %d has the lock, token %d\n", worker, mutex.Rev())
		if err := increment(ctx, cli, mutex); err != nil {
			return err
		}
		if err := mutex.Unlock(ctx); err != nil {
			return err
		}
	}
	return nil
}

// increment reads the counter and writes it. The write is carried out only if the lock is held at that very moment.
func increment(ctx context.Context, cli *clientv3.Client, mutex *concurrency.Mutex) error {
	n, err := read(ctx, cli)
	if err != nil {
		return err
	}
	_, err = mutex.Txn(ctx).Then(clientv3.OpPut(counter, strconv.Itoa(n+1))).Commit()
	return err
}

func read(ctx context.Context, cli *clientv3.Client) (int, error) {
	resp, err := cli.Get(ctx, counter)
	if err != nil || len(resp.Kvs) == 0 {
		return 0, err
	}
	return strconv.Atoi(string(resp.Kvs[0].Value))
}

// lose takes the lock and has it taken away, as happens to a process that is halted for longer than its lease lives.
func lose(ctx context.Context, cli *clientv3.Client) error {
	session, err := concurrency.NewSession(cli)
	if err != nil {
		return err
	}
	defer session.Close()
	mutex := concurrency.NewMutex(session, lock)
	if err := mutex.Lock(ctx); err != nil {
		return err
	}
	held := mutex.Context() // for the work that is done under the lock
	if _, err := cli.Delete(ctx, mutex.Key()); err != nil {
		return err
	}
	select {
	case <-held.Done():
		fmt.Println("the work is told:", context.Cause(held))
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := increment(ctx, cli, mutex); !errors.Is(err, concurrency.ErrLockLost) {
		return fmt.Errorf("a write without the lock: %w", err)
	}
	n, err := read(ctx, cli)
	fmt.Printf("its write is refused: the counter is still %d\n", n)
	return err
}
