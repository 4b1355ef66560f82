package integration

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain closes the clusters that tests have shared, and fails if anything is still running after that.
func TestMain(m *testing.M) { goleak.VerifyTestMain(sharing{m}) }

type sharing struct{ m *testing.M }

func (s sharing) Run() int {
	code := s.m.Run()
	if !closeShared() {
		return max(code, 1)
	}
	return code
}
