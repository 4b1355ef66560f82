// Package examples holds the test that all examples run. It has no other code.
package examples

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Each example is started as the README says, without anything else running.
func TestExamplesRun(t *testing.T) {
	programs, err := filepath.Glob("*/main.go")
	if err != nil || len(programs) < 5 {
		t.Fatalf("examples %v, %v", programs, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, program := range programs {
		name := filepath.Dir(program)
		t.Run(name, func(t *testing.T) {
			out, err := exec.CommandContext(ctx, "go", "run", "./"+name).CombinedOutput() //nolint:gosec // its own folders
			if err != nil || len(out) == 0 {
				t.Errorf("%v\n%s", err, out)
			}
			t.Logf("\n%s", out)
		})
	}
}
