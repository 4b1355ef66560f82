package integration

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// TestMain closes the clusters that tests have shared, and fails if anything is still running after that.
func TestMain(m *testing.M) { goleak.VerifyTestMain(sharing{m}) }

type sharing struct{ m *testing.M }

func (s sharing) Run() int {
	// Most tests wait for clusters most of the time, so there can be more of them at once than processors.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	code := s.m.Run()
	if !closeShared() {
		return max(code, 1)
	}
	return code
}
