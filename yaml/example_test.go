package yaml_test

import (
	"log"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/yaml"
)

// A client is made as a file says.
func ExampleNewConfig() {
	cfg, err := yaml.NewConfig("/etc/etcd/client.yaml")
	if err != nil {
		log.Fatal(err)
	}
	cli, err := clientv3.New(*cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()
}
