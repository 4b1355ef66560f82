package concurrency_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
)

// Work is done under a lock, and stops when the lock is lost.
func ExampleMutex() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()
	session, err := concurrency.NewSession(cli, concurrency.WithTTL(10))
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()

	ctx := context.Background()
	mutex := concurrency.NewMutex(session, "locks/report")
	if err := mutex.Lock(ctx); err != nil {
		log.Fatal(err)
	}
	defer func() { _ = mutex.Unlock(ctx) }()

	held := mutex.Context() // ends with the lock
	for page := range 10 {
		if held.Err() != nil {
			log.Fatal(context.Cause(held))
		}
		// Carried out only if the lock is held when etcd does so.
		key := fmt.Sprintf("report/%d", page)
		if _, err := mutex.Txn(held).Then(clientv3.OpPut(key, "text")).Commit(); err != nil {
			log.Fatal(err)
		}
	}
}

// A lock that somebody else has is not waited for.
func ExampleMutex_TryLock() {
	run := func(ctx context.Context, session *concurrency.Session) error {
		mutex := concurrency.NewMutex(session, "locks/nightly")
		err := mutex.TryLock(ctx)
		if errors.Is(err, concurrency.ErrLocked) {
			return nil // somebody else does it
		}
		if err != nil {
			return err
		}
		fmt.Println("the nightly work is mine")
		return mutex.Unlock(ctx)
	}
	_ = run
}

// One of many processes leads, until it dies or resigns; the others wait for their turn.
func ExampleElection() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()
	session, err := concurrency.NewSession(cli, concurrency.WithTTL(10))
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()

	ctx := context.Background()
	election := concurrency.NewElection(session, "elections/scheduler")
	if err := election.Campaign(ctx, "http://10.0.0.1:8080"); err != nil {
		log.Fatal(err)
	}
	leading := election.Context() // for the leader's work
	<-leading.Done()
	log.Print("no longer the leader: ", context.Cause(leading))
}

// Those who are not candidates follow who leads.
func ExampleElection_Observe() {
	follow := func(ctx context.Context, session *concurrency.Session) {
		election := concurrency.NewElection(session, "elections/scheduler")
		for resp := range election.Observe(ctx) {
			fmt.Printf("the leader is at %s\n", resp.Kvs[0].Value)
		}
	}
	_ = follow
}

// Money is moved from one account to another. Whatever others do meanwhile, none is lost.
func ExampleNewSTM() {
	move := func(ctx context.Context, cli *clientv3.Client, from, to string, amount int) error {
		_, err := concurrency.NewSTM(cli, func(stm concurrency.STM) error {
			stm.Get(from, to) // both in one request
			source, err := strconv.Atoi(stm.Get(from))
			if err != nil {
				return err // nothing is written
			}
			target, err := strconv.Atoi(stm.Get(to))
			if err != nil {
				return err
			}
			if source < amount {
				return errors.New("not enough money")
			}
			stm.Put(from, strconv.Itoa(source-amount))
			stm.Put(to, strconv.Itoa(target+amount))
			return nil
		}, concurrency.WithAbortContext(ctx))
		return err
	}
	_ = move
}

// A range is read and deleted, and it is certain that nothing was put into it in between.
func ExampleRangeSTM() {
	drain := func(ctx context.Context, cli *clientv3.Client) (tasks []string, err error) {
		end := clientv3.GetPrefixRangeEnd("tasks/")
		_, err = concurrency.NewSTM(cli, func(stm concurrency.STM) error {
			tasks = nil // it may be run more than once
			ranges := stm.(concurrency.RangeSTM)
			for _, kv := range ranges.GetRange("tasks/", end) {
				tasks = append(tasks, string(kv.Value))
			}
			ranges.DelRange("tasks/", end)
			return nil
		}, concurrency.WithAbortContext(ctx))
		return tasks, err
	}
	_ = drain
}
