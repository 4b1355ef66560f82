// Command etcd is the etcd server 3.6, for tests. It is in a module of its own so that what it depends on touches no
// other.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
