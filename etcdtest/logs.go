package etcdtest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// logTailLines is how many of a member's last log lines are kept, and excerptLines how many of them go into an
	// error.
	logTailLines = 100
	excerptLines = 10
	// maxLogLine is where longer lines are cut.
	maxLogLine = 16 << 10
)

// logOutput is where the logs of all members of a cluster go: the user's writer, one line at a time.
type logOutput struct {
	mu sync.Mutex
	w  io.Writer // nil when nobody asked for logs, or the cluster is closed
}

func (o *logOutput) line(name string, line []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.w != nil {
		// There is nobody to tell about a writer that fails.
		_, _ = fmt.Fprintf(o.w, "%s | %s\n", name, line)
	}
}

// close ends the use of the user's writer: a test's output must not be touched after the test.
func (o *logOutput) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.w = nil
}

// memberLog takes the log of one member, cuts it into lines, and keeps the last of them. It is an io.Writer for a
// child process's output and a zapcore.WriteSyncer for a member in process.
type memberLog struct {
	name string
	out  *logOutput

	mu      sync.Mutex
	partial []byte   // a line whose end has not come yet, up to maxLogLine
	tail    []string // up to logTailLines
	count   int      // lines since the server's last start
	first   string   // the first of them
}

// begin notes that the server starts.
func (l *memberLog) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count, l.first = 0, ""
}

func (l *memberLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for {
		line, rest, found := bytes.Cut(p, []byte("\n"))
		l.partial = append(l.partial, line[:min(len(line), maxLogLine-len(l.partial))]...)
		if !found {
			return n, nil
		}
		l.add(l.partial)
		l.partial = l.partial[:0]
		p = rest
	}
}

func (l *memberLog) add(line []byte) {
	l.out.line(l.name, line)
	text := string(line)
	if l.count == 0 {
		l.first = text
	}
	l.count++
	if len(l.tail) == logTailLines {
		l.tail = slices.Delete(l.tail, 0, 1)
	}
	l.tail = append(l.tail, text)
}

// Sync is a part of zapcore.WriteSyncer.
func (l *memberLog) Sync() error { return nil }

func (l *memberLog) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := slices.Clone(l.tail)
	if len(l.partial) > 0 {
		lines = append(lines, string(l.partial))
	}
	return lines
}

// excerpt is for error messages: the first line since the start, where etcd puts its complaint about a flag, ahead of
// pages of help; and the last few lines, where it says what it died of.
func (l *memberLog) excerpt() []string {
	lines := l.lines()
	l.mu.Lock()
	count, first := l.count, l.first
	l.mu.Unlock()
	last := lines[max(0, len(lines)-excerptLines):]
	if count <= excerptLines {
		return last
	}
	return append([]string{first, "..."}, last...)
}

// logger makes the logger of a member in process.
func (l *memberLog) logger() *zap.Logger {
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000000")
	core := zapcore.NewCore(zapcore.NewConsoleEncoder(encoding), l, zapcore.InfoLevel)
	return zap.New(core, zap.WithFatalHook(fatalHook{l}))
}

// fatalHook ends the process as zap does by default when etcd gives up, which here is the whole test: not without a
// word, as the quiet log would have it.
type fatalHook struct{ log *memberLog }

func (h fatalHook) OnWrite(entry *zapcore.CheckedEntry, _ []zapcore.Field) {
	fmt.Fprintf(os.Stderr, "etcdtest: member %s gave up: %s; its last log lines:\n", h.log.name, entry.Message)
	for _, line := range h.log.lines() {
		fmt.Fprintf(os.Stderr, "  %s\n", line)
	}
	os.Exit(1)
}
