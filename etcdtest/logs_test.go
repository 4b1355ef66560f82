package etcdtest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestLogsGoToWriterUntilClose(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		opts []Option
	}{
		{"in process", nil},
		{"child", []Option{WithChildProcesses()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var w strictWriter
			c, err := Start(t.Context(), append(tt.opts, WithMembers(2), WithLogs(&w))...)
			if err != nil {
				t.Fatal(err)
			}
			tail := c.Member(1).LogTail()
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			w.close()
			for _, name := range []string{"m0", "m1"} {
				if !bytes.Contains(w.got.Bytes(), []byte(name+" | ")) {
					t.Errorf("nothing from %s", name)
				}
			}
			for line := range strings.Lines(w.got.String()) {
				if !strings.HasPrefix(line, "m0 | ") && !strings.HasPrefix(line, "m1 | ") {
					t.Errorf("line %q", line)
				}
			}
			if !slices.ContainsFunc(tail, func(line string) bool { return strings.Contains(line, "m1") }) {
				t.Errorf("the tail is %q", tail)
			}
			if w.err != "" {
				t.Error(w.err)
			}
		})
	}
}

// strictWriter notes writes that overlap, are not whole lines, or come after its end.
type strictWriter struct {
	mu     sync.Mutex
	got    bytes.Buffer
	closed bool
	err    string
}

func (w *strictWriter) Write(p []byte) (int, error) {
	if !w.mu.TryLock() {
		w.err = "writes overlap"
		return len(p), nil
	}
	defer w.mu.Unlock()
	if w.closed {
		w.err = fmt.Sprintf("%q written after Close", p)
	}
	if bytes.Count(p, []byte("\n")) != 1 || p[len(p)-1] != '\n' {
		w.err = fmt.Sprintf("%q is not a line", p)
	}
	return w.got.Write(p)
}

func (w *strictWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

func TestMemberLogKeepsTheLastLines(t *testing.T) {
	t.Parallel()
	l := &memberLog{name: "m0", out: &logOutput{}}
	write := func(s string) {
		if n, err := l.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	write("be")
	write("fore\n")
	l.begin()
	write("fir")
	write("st\nsecond\nthi")
	if got, want := l.lines(), []string{"before", "first", "second", "thi"}; !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q", got, want)
	}
	if got, want := l.excerpt(), []string{"before", "first", "second", "thi"}; !slices.Equal(got, want) {
		t.Errorf("excerpt %q, want %q", got, want)
	}
	write("rd\n")
	for i := range 2 * logTailLines {
		write(fmt.Sprintf("line %d\n", i))
	}
	got := l.lines()
	if want := fmt.Sprintf("line %d", 2*logTailLines-1); len(got) != logTailLines || got[len(got)-1] != want {
		t.Errorf("%d lines, the last is %q, want %d and %q", len(got), got[len(got)-1], logTailLines, want)
	}
	if got := l.excerpt(); len(got) != excerptLines+2 || got[0] != "first" || got[1] != "..." {
		t.Errorf("excerpt %q", got)
	}
	write(strings.Repeat("x", 3*maxLogLine))
	write(strings.Repeat("y", maxLogLine) + "\nshort\n")
	got = l.lines()
	if got[len(got)-2] != strings.Repeat("x", maxLogLine) || got[len(got)-1] != "short" {
		t.Errorf("a long line is cut to %d bytes, and followed by %q", len(got[len(got)-2]), got[len(got)-1])
	}
}
