package servers

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadmeHasTheTable(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "\n"+Table()+"\n") {
		t.Errorf("README.md lacks this, or has it otherwise:\n%s", Table())
	}
	if !slices.IsSortedFunc(Features, func(a, b *Feature) int { return strings.Compare(a.Since, b.Since) }) {
		t.Error("the features are not in order")
	}
}

func TestOlderServersLackWhatCameLater(t *testing.T) {
	for _, tt := range []struct {
		version, since string
		want           bool
	}{
		{"3.4.23", "3.5", false},
		{"3.5.0", "3.5", true},
		{"3.5.35", "3.6", false},
		{"3.10.1", "3.7", true},
		{"4.0.0", "3.7", true},
	} {
		path := filepath.Join(t.TempDir(), "etcd")
		script := fmt.Sprintf("#!/bin/sh\necho etcd Version: %s\n", tt.version)
		if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("ETCDTEST_BINARY", path)
		if got := Has(t, &Feature{Since: tt.since}); got != tt.want {
			t.Errorf("%s has what came with %s: %v", tt.version, tt.since, got)
		}
	}
}
