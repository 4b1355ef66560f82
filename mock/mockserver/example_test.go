package mockserver_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/mock/mockserver"
)

// A client goes on with one server when the other one stops.
func Example() {
	servers, err := mockserver.StartMockServers(2)
	if err != nil {
		log.Fatal(err)
	}
	defer servers.Stop()
	cli, err := clientv3.New(clientv3.Config{
		Endpoints: []string{servers.Servers[0].Address, servers.Servers[1].Address},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	servers.StopAt(0)
	_, err = cli.Get(context.Background(), "key")
	fmt.Println(err)
	// Output: <nil>
}
