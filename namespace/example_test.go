package namespace_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/namespace"
)

// A client is confined to the keys below "team/blue/".
func Example() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()
	all := cli.KV

	cli.KV = namespace.NewKV(cli.KV, "team/blue/")
	cli.Watcher = namespace.NewWatcher(cli.Watcher, "team/blue/")
	cli.Lease = namespace.NewLease(cli.Lease, "team/blue/")

	ctx := context.Background()
	if _, err := cli.Put(ctx, "color", "#00f"); err != nil {
		log.Fatal(err)
	}
	resp, err := all.Get(ctx, "team/blue/color")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", resp.Kvs[0].Value)
}
