package clientv3util_test

import (
	"context"
	"log"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/clientv3util"
)

// A key is made only if it is not there yet.
func ExampleKeyMissing() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	resp, err := cli.Txn(context.Background()).
		If(clientv3util.KeyMissing("job/7")).
		Then(clientv3.OpPut("job/7", "mine")).
		Commit()
	if err != nil {
		log.Fatal(err)
	}
	if !resp.Succeeded {
		log.Print("somebody was faster")
	}
}

// A key is deleted, and its name kept elsewhere, in one step, if it is there.
func ExampleKeyExists() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	_, err = cli.Txn(context.Background()).
		If(clientv3util.KeyExists("job/7")).
		Then(clientv3.OpDelete("job/7"), clientv3.OpPut("done/7", "")).
		Commit()
	if err != nil {
		log.Fatal(err)
	}
}
