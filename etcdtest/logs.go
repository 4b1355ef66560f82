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

// logTailLines is how many of a member's last log lines are kept. A start that fails says why in the last few.
const logTailLines = 40

// maxLogLine bounds what is kept of a line; the rest of a longer one goes to the user's writer only.
const maxLogLine = 4 << 10

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

// memberLog takes the log of one member, cuts it into lines, and keeps the last of them. It is an io.Writer for a child
// process's output and a zapcore.WriteSyncer for a member in process.
type memberLog struct {
	name string
	out  *logOutput

	mu      sync.Mutex
	partial []byte // a line whose end has not come yet
	tail    []string
}

func (l *memberLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		line, rest, found := bytes.Cut(l.partial, []byte("\n"))
		if !found {
			break
		}
		l.add(line)
		l.partial = rest
	}
	if len(l.partial) == 0 {
		l.partial = nil // or it would hold on to the lines that are through
	}
	return len(p), nil
}

func (l *memberLog) add(line []byte) {
	l.out.line(l.name, line)
	if len(l.tail) == logTailLines {
		l.tail = slices.Delete(l.tail, 0, 1)
	}
	l.tail = append(l.tail, string(line[:min(len(line), maxLogLine)]))
}

// Sync is a part of zapcore.WriteSyncer.
func (l *memberLog) Sync() error { return nil }

func (l *memberLog) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := slices.Clone(l.tail)
	if len(l.partial) > 0 {
		lines = append(lines, string(l.partial[:min(len(l.partial), maxLogLine)]))
	}
	return lines
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
