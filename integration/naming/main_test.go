// Package naming holds the tests of packages naming/endpoints and naming/resolver against real etcd, and the latter with
// real gRPC clients and servers. It has no other code.
package naming

import (
	"testing"

	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestMain(m *testing.M) { shared.Main(m) }
