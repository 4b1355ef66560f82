package dropin

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "bring testdata/swap/go.mod and go.sum up to date")

// swapped is the module with this client in the official one's place, for all tests.
var swapped *swap

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	const module = "testdata/swap"
	dir, err := os.MkdirTemp("", "swap")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if swapped, err = newSwap(dir, module, "../.."); err == nil && *update {
		err = swapped.update(module)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
