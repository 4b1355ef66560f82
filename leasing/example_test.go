package leasing_test

import (
	"context"
	"log"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/leasing"
)

// A key that is looked at all the time is answered from memory, until somebody changes it.
func ExampleNewKV() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	kv, closeKV, err := leasing.NewKV(cli, "leasing/")
	if err != nil {
		log.Fatal(err)
	}
	defer closeKV()

	for range 1_000_000 {
		resp, err := kv.Get(context.Background(), "feature/dark-mode")
		if err != nil {
			log.Fatal(err)
		}
		if len(resp.Kvs) > 0 && string(resp.Kvs[0].Value) == "on" {
			break
		}
	}
}
