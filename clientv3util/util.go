// Package clientv3util has the two comparisons that transactions need most often.
package clientv3util

import (
	"github.com/seed-d18e112a/clientv3"
)

// KeyExists returns the comparison that holds if the key exists.
func KeyExists(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.Version(key), ">", 0)
}

// KeyMissing returns the comparison that holds if the key does not exist.
func KeyMissing(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.Version(key), "=", 0)
}
