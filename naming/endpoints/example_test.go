package endpoints_test

import (
	"context"
	"log"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/naming/endpoints"
)

// A server makes itself known as long as it runs.
func ExampleManager_addEndpoint() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	session, err := concurrency.NewSession(cli, concurrency.WithTTL(10))
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close() // takes the endpoint away

	em, err := endpoints.NewManager(cli, "shop/cart")
	if err != nil {
		log.Fatal(err)
	}
	err = em.AddEndpoint(context.Background(), "shop/cart/10.0.0.5:8080",
		endpoints.Endpoint{Addr: "10.0.0.5:8080"}, clientv3.WithLease(session.Lease()))
	if err != nil {
		log.Fatal(err)
	}
	// serve
}

// A program follows where a service can be reached.
func ExampleManager_newWatchChannel() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	em, err := endpoints.NewManager(cli, "shop/cart")
	if err != nil {
		log.Fatal(err)
	}
	updates, err := em.NewWatchChannel(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	addrs := make(map[string]string)
	for batch := range updates {
		for _, update := range batch {
			switch update.Op {
			case endpoints.Add:
				addrs[update.Key] = update.Endpoint.Addr
			case endpoints.Delete:
				delete(addrs, update.Key)
			}
		}
		log.Print(addrs)
	}
}
