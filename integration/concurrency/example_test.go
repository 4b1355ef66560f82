package concurrency

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

// connect returns a client of the shared cluster.
func connect() *clientv3.Client {
	cluster, err := shared.Start()
	if err != nil {
		log.Fatal(err)
	}
	cli, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints()})
	if err != nil {
		log.Fatal(err)
	}
	return cli
}

// check ends the program if there is an error.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A lock is lost, and what its holder still writes under it is refused.
func Example_lock() {
	cli := connect()
	defer cli.Close()
	session, err := concurrency.NewSession(cli)
	check(err)
	defer session.Close()
	ctx := context.Background()

	mutex := concurrency.NewMutex(session, "example/lock")
	check(mutex.Lock(ctx))
	held := mutex.Context()
	_, err = mutex.Txn(ctx).Then(clientv3.OpPut("example/guarded", "written while held")).Commit()
	check(err)

	_, err = cli.Delete(ctx, mutex.Key()) // by somebody else, say
	check(err)
	<-held.Done()
	fmt.Println(context.Cause(held))
	_, err = mutex.Txn(ctx).Then(clientv3.OpPut("example/guarded", "written too late")).Commit()
	fmt.Println("refused:", errors.Is(err, concurrency.ErrLockLost))
	resp, err := cli.Get(ctx, "example/guarded")
	check(err)
	fmt.Printf("%s\n", resp.Kvs[0].Value)
	// Output:
	// mutex: lock is lost
	// refused: true
	// written while held
}

// A leader is elected, proclaims, and resigns.
func Example_election() {
	cli := connect()
	defer cli.Close()
	session, err := concurrency.NewSession(cli)
	check(err)
	defer session.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	election := concurrency.NewElection(session, "example/election")
	reports := election.Observe(ctx)
	check(election.Campaign(ctx, "starting"))
	fmt.Printf("%s\n", (<-reports).Kvs[0].Value)
	check(election.Proclaim(ctx, "at work"))
	fmt.Printf("%s\n", (<-reports).Kvs[0].Value)
	check(election.Resign(ctx))
	_, err = election.Leader(ctx)
	fmt.Println(err)
	// Output:
	// starting
	// at work
	// election: no leader
}

// Two counters are swapped in one transaction.
func Example_transaction() {
	cli := connect()
	defer cli.Close()
	ctx := context.Background()
	for key, value := range map[string]string{"example/a": "1", "example/b": "2"} {
		_, err := cli.Put(ctx, key, value)
		check(err)
	}
	_, err := concurrency.NewSTM(cli, func(stm concurrency.STM) error {
		a, b := stm.Get("example/a"), stm.Get("example/b")
		stm.Put("example/a", b)
		stm.Put("example/b", a)
		return nil
	}, concurrency.WithPrefetch("example/a", "example/b"))
	check(err)
	for _, key := range []string{"example/a", "example/b"} {
		resp, err := cli.Get(ctx, key)
		check(err)
		fmt.Printf("%s = %s\n", key, resp.Kvs[0].Value)
	}
	// Output:
	// example/a = 2
	// example/b = 1
}
