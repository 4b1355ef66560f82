package ordering_test

import (
	"context"
	"errors"
	"log"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/ordering"
)

// Serializable reads are fast, and here never go back in time.
func ExampleNewKV() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{
		"http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379",
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()
	cli.KV = ordering.NewKV(cli.KV, ordering.NewOrderViolationSwitchEndpointClosure(cli))

	resp, err := cli.Get(context.Background(), "config", clientv3.WithSerializable())
	if errors.Is(err, ordering.ErrNoGreaterRev) {
		log.Fatal("only members that lag behind can be reached")
	}
	if err != nil {
		log.Fatal(err)
	}
	log.Print(resp.Header.Revision)
}
