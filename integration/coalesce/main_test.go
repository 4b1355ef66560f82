// Package coalesce holds the tests of package coalesce against real etcd. It has no other code.
package coalesce

import (
	"testing"

	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestMain(m *testing.M) { shared.Main(m) }
