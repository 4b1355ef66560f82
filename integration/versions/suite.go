package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A suite is the integration tests on one server.
type suite struct {
	root   string
	name   string
	binary string
	args   []string // for go test
}

// event is what go test -json writes of a test or, without a test, of a package.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

func (s suite) run(ctx context.Context) error {
	fmt.Printf("\n== %s\n", s.name)
	start := time.Now()
	args := append([]string{"test", "-json", "-count=1"}, s.args...)
	cmd := command(ctx, filepath.Join(s.root, "integration"), "go", args...)
	cmd.Env = append(os.Environ(), "ETCDTEST_BINARY="+s.binary)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r := newReport(os.Stdout)
	readErr := r.read(out)
	err = errors.Join(cmd.Wait(), readErr)
	r.summary(time.Since(start))
	if err != nil {
		return fmt.Errorf("%s: go test: %w", s.name, err)
	}
	return nil
}

// A report is what is told of the tests: what those print that fail, one line for each package, and in the end all
// tests that were skipped, by reason, and once more those that failed.
type report struct {
	w       io.Writer
	output  map[string][]string // of each test that has not ended, by package and name
	passed  int
	failed  []string
	skipped map[string][]string // by reason
}

func newReport(w io.Writer) *report {
	return &report{w: w, output: make(map[string][]string), skipped: make(map[string][]string)}
}

// say writes to somebody who may have stopped listening: whether the tests pass matters more.
func (r *report) say(format string, args ...any) { _, _ = fmt.Fprintf(r.w, format, args...) }

func (r *report) read(from io.Reader) error {
	dec := json.NewDecoder(from)
	for {
		var e event
		err := dec.Decode(&e)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			// To its end, or go test would wait for a reader.
			_, copyErr := io.Copy(r.w, io.MultiReader(dec.Buffered(), from))
			return errors.Join(fmt.Errorf("reading what go test says: %w", err), copyErr)
		}
		r.note(e)
	}
}

func (r *report) note(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
		return
	case "build-output":
		r.say("%s", e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	said := r.output[key]
	delete(r.output, key)
	if e.Action == "fail" {
		r.say("%s", strings.Join(said, ""))
	}
	switch {
	case e.Test == "":
		r.say("%s\t%s\t%.1fs\n", e.Action, e.Package, e.Elapsed)
	case e.Action == "pass":
		r.passed++
	case e.Action == "fail":
		r.failed = append(r.failed, e.Test)
	case e.Action == "skip":
		why := reason(said)
		r.skipped[why] = append(r.skipped[why], e.Test)
	}
}

// reason is what a skipped test has said, without the frame that go test puts around it.
func reason(said []string) string {
	var words []string
	for _, line := range said {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		if _, text, found := strings.Cut(line, ".go:"); found { // file.go:12: text
			_, line, _ = strings.Cut(text, ": ")
		}
		words = append(words, line)
	}
	return strings.Join(words, " ")
}

func (r *report) summary(took time.Duration) {
	skipped := 0
	for _, why := range slices.Sorted(maps.Keys(r.skipped)) {
		tests := r.skipped[why]
		skipped += len(tests)
		r.say("skipped, %s:\n\t%s\n", why, strings.Join(tests, " "))
	}
	for _, test := range r.failed {
		r.say("failed: %s\n", test)
	}
	r.say("%d tests passed, %d failed, %d skipped in %v\n", r.passed, len(r.failed), skipped, took.Round(time.Second))
}
