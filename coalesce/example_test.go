package coalesce_test

import (
	"context"
	"fmt"
	"log"
	"sync"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/coalesce"
)

// A hundred callers write and read keys of their own; those who call at the same time share requests.
func Example() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()
	writer := coalesce.NewWriter(cli.KV)
	cli.KV = coalesce.NewKV(cli.KV)

	var callers sync.WaitGroup
	for i := range 100 {
		callers.Go(func() {
			ctx, key := context.Background(), fmt.Sprintf("sensor/%d", i)
			if _, err := writer.Put(ctx, key, "21.5"); err != nil {
				log.Print(err)
				return
			}
			resp, err := cli.Get(ctx, key)
			if err != nil {
				log.Print(err)
				return
			}
			fmt.Printf("%s\n", resp.Kvs[0].Value)
		})
	}
	callers.Wait()
}
