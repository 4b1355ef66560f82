// Package namespace holds the tests of package namespace against real etcd. It has no other code.
package namespace

import (
	"testing"

	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestMain(m *testing.M) { shared.Main(m) }
