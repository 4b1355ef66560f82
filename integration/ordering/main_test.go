// Package ordering holds the tests of package ordering against real etcd. It has no other code.
package ordering

import (
	"testing"

	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestMain(m *testing.M) { shared.Main(m) }
