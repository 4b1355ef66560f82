// Command txn moves money between two accounts while others do the same. Both accounts are written in one transaction,
// and only if they are as they were read: so nothing is lost, and nothing is made, whoever else is at work.
package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/examples/internal/server"
)

const (
	alice, bob = "accounts/alice", "accounts/bob"
	opening    = 100
	tellers    = 4
	transfers  = 5 // of each teller
)

func main() { server.Main(run) }

func run(ctx context.Context, endpoints []string) error {
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer cli.Close()

	// A transaction without conditions: both are written, or none.
	open := strconv.Itoa(opening)
	if _, err := cli.Txn(ctx).Then(clientv3.OpPut(alice, open), clientv3.OpPut(bob, open)).Commit(); err != nil {
		return err
	}
	errs := make([]error, tellers)
	var wg sync.WaitGroup
	for i := range tellers {
		wg.Go(func() {
			for n := 0; n < transfers && errs[i] == nil; n++ {
				errs[i] = transfer(ctx, cli, alice, bob, 3)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	a, b, err := balances(ctx, cli, alice, bob)
	if err != nil {
		return err
	}
	fmt.Printf("alice has %d, bob has %d, together %d\n", a.amount, b.amount, a.amount+b.amount)
	return nil
}

// account is an account as it was read.
type account struct {
	amount   int
	revision int64 // in which it was written last
}

// balances reads two accounts as they are at one moment.
func balances(ctx context.Context, cli *clientv3.Client, first, second string) (a, b account, err error) {
	resp, err := cli.Txn(ctx).Then(clientv3.OpGet(first), clientv3.OpGet(second)).Commit()
	if err != nil {
		return a, b, err
	}
	for i, acc := range []*account{&a, &b} {
		kvs := resp.Responses[i].GetResponseRange().GetKvs()
		if len(kvs) == 0 {
			continue // an account that does not exist is one with nothing in it, last written in revision 0
		}
		acc.revision = kvs[0].ModRevision
		if acc.amount, err = strconv.Atoi(string(kvs[0].Value)); err != nil {
			return a, b, err
		}
	}
	return a, b, nil
}

// transfer moves an amount. When another one is quicker it tries again with what the accounts have then.
func transfer(ctx context.Context, cli *clientv3.Client, from, to string, amount int) error {
	for {
		src, dst, err := balances(ctx, cli, from, to)
		if err != nil {
			return err
		}
		if src.amount < amount {
			return fmt.Errorf("%s has %d, which is less than %d", from, src.amount, amount)
		}
		resp, err := cli.Txn(ctx).
			If(
				clientv3.Compare(clientv3.ModRevision(from), "=", src.revision),
				clientv3.Compare(clientv3.ModRevision(to), "=", dst.revision),
			).
			Then(
				clientv3.OpPut(from, strconv.Itoa(src.amount-amount)),
				clientv3.OpPut(to, strconv.Itoa(dst.amount+amount)),
			).
			Commit()
		if err != nil {
			return err
		}
		if resp.Succeeded {
			return nil
		}
	}
}
