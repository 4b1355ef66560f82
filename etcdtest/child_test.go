//go:build unix

package etcdtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestDataOutlivesRestart(t *testing.T) {
	t.Parallel()
	down := map[string]func(context.Context, *Member) error{
		"kill": func(_ context.Context, m *Member) error { return m.Kill() },
		"stop": func(ctx context.Context, m *Member) error { return m.Stop(ctx) },
		"none": func(context.Context, *Member) error { return nil },
		"freeze, then stop": func(ctx context.Context, m *Member) error {
			return errors.Join(m.Freeze(), m.Stop(ctx))
		},
		"freeze, then kill": func(_ context.Context, m *Member) error { return errors.Join(m.Freeze(), m.Kill()) },
		"freeze":            func(_ context.Context, m *Member) error { return m.Freeze() },
	}
	for _, tt := range []struct {
		how  string
		opts []Option
	}{
		{"stop", nil},
		{"none", nil},
		{"stop", []Option{WithMutualTLS(), WithProxies()}},
		{"stop", []Option{WithUnixSockets()}},
		{"kill", []Option{WithChildProcesses()}},
		{"stop", []Option{WithChildProcesses()}},
		{"none", []Option{WithChildProcesses()}},
		{"kill", []Option{WithChildProcesses(), WithUnixSockets(), WithTLS()}},
		{"kill", []Option{WithChildProcesses(), WithAuth(Auth{})}},
		{"freeze", []Option{WithChildProcesses()}},
		{"freeze, then stop", []Option{WithChildProcesses()}},
		{"freeze, then kill", []Option{WithChildProcesses()}},
	} {
		t.Run(fmt.Sprintf("%s, %d options", tt.how, len(tt.opts)), func(t *testing.T) {
			t.Parallel()
			c := Run(t, tt.opts...)
			m := c.Member(0)
			ctx := testContext(t)
			conn, err := m.Dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := put(ctx, conn, "key", "value"); err != nil {
				t.Fatal(err)
			}
			endpoint, id := m.Endpoint(), m.ID()

			if err := down[tt.how](ctx, m); err != nil {
				t.Fatal(err)
			}
			if want := tt.how == "none" || tt.how == "freeze"; m.Running() != want {
				t.Errorf("running is %v after %s", m.Running(), tt.how)
			}
			if err := m.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			if err := m.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			if got, err := get(ctx, conn, "key"); got != "value" || err != nil {
				t.Errorf("get = %q, %v", got, err)
			}
			if m.Endpoint() != endpoint || m.ID() != id {
				t.Errorf("endpoint %s, id %x, was %s, %x", m.Endpoint(), m.ID(), endpoint, id)
			}
		})
	}
}

func TestClusterGoesOnWithoutKilledMember(t *testing.T) {
	t.Parallel()
	c := Run(t, WithMembers(3), WithChildProcesses())
	ctx := testContext(t)
	lead, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Member(lead).Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Member(lead).WaitReady(ctx); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("waiting for the dead: %v", err)
	}
	next, err := c.Leader(ctx)
	if err != nil || next == lead {
		t.Fatalf("leader is %d, %v, and %d was killed", next, err, lead)
	}
	conn := dialEndpoint(t, c.Member(next).Endpoint(), nil)
	if err := put(ctx, conn, "key", "value"); err != nil {
		t.Fatal(err)
	}
	if err := c.Member(lead).Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := get(ctx, dialEndpoint(t, c.Member(lead).Endpoint(), nil), "key"); got != "value" || err != nil {
		t.Errorf("get from the one that was down = %q, %v", got, err)
	}
}

func TestFrozenMemberAnswersOnceThawed(t *testing.T) {
	t.Parallel()
	c := Run(t, WithChildProcesses())
	m := c.Member(0)
	ctx := testContext(t)
	conn := dialEndpoint(t, m.Endpoint(), nil)
	if err := put(ctx, conn, "key", "value"); err != nil {
		t.Fatal(err)
	}
	if err := m.Freeze(); err != nil {
		t.Fatal(err)
	}
	if !m.Running() {
		t.Error("a frozen member is not running")
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := get(short, conn, "key"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("get from a frozen member: %v, want no answer", err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Errorf("waiting for all but the frozen: %v", err)
	}
	if err := m.Thaw(); err != nil {
		t.Fatal(err)
	}
	if got, err := get(ctx, conn, "key"); got != "value" || err != nil {
		t.Errorf("get from a thawed member = %q, %v", got, err)
	}
}

func TestLeaderIsAnotherOnceFrozen(t *testing.T) {
	t.Parallel()
	c := Run(t, WithMembers(3), WithChildProcesses())
	ctx := testContext(t)
	before, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Member(before).Freeze(); err != nil {
		t.Fatal(err)
	}
	after, err := c.Leader(ctx)
	if err != nil || after == before {
		t.Errorf("leader is %d, %v, and %d is frozen", after, err, before)
	}
	// Close ends the frozen one too.
}

func TestOnlyChildrenAreKilled(t *testing.T) {
	t.Parallel()
	c := Run(t)
	m := c.Member(0)
	for _, do := range []func() error{m.Kill, m.Freeze, m.Thaw} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "not a child process") {
			t.Errorf("error %v", err)
		}
	}
	child := Run(t, WithChildProcesses()).Member(0)
	if err := child.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Freeze(); err == nil || !strings.Contains(err.Error(), "down") {
		t.Errorf("freezing the dead: %v", err)
	}
	if err := child.Kill(); err != nil {
		t.Errorf("killing the dead: %v", err)
	}
	if err := child.Stop(t.Context()); err != nil {
		t.Errorf("stopping the dead: %v", err)
	}
}

// A leader wants to hand over before it stops, and waits for seconds when nobody takes over; the caller may not want
// to.
func TestStopEndsWithContext(t *testing.T) {
	t.Parallel()
	// The election timeout is longer than the test: a leader that nobody hears steps down.
	c := Run(t, WithChildProcesses(), WithMembers(3), WithTimings(100*time.Millisecond, 3*time.Second))
	lead, err := c.Leader(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range c.Members() {
		if i == lead {
			continue
		}
		if err := m.Freeze(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := c.Member(lead).Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Stop: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("Stop took %v", took)
	}
	if c.Member(lead).Running() {
		t.Error("the member runs on")
	}
}

func TestStopInProcessWithoutPatience(t *testing.T) {
	t.Parallel()
	c := Run(t, WithMembers(3), WithTLS())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, m := range c.Members() {
		if err := m.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Stop: %v", err)
		}
		if m.Running() {
			t.Error("the member runs on")
		}
	}
}

// Whatever is going on when the cluster is closed, it ends, and nothing is left.
func TestCloseDuringChanges(t *testing.T) {
	checkNothingLeft(t)
	for _, opts := range [][]Option{
		{WithProxies()},
		{WithChildProcesses()},
	} {
		for round := range 5 {
			c, err := Start(t.Context(), append(opts, WithTimings(multiHeartbeat, multiElection))...)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			m := c.Member(0)
			began := make(chan struct{}, 8)
			var wg sync.WaitGroup
			for _, do := range []func(){
				func() { _ = m.Restart(ctx) },
				func() { _ = m.Stop(ctx) },
				func() { _, _ = c.AddMember(ctx) },
				func() { _, _ = c.Leader(ctx) },
				func() { _ = c.WaitReady(ctx) },
				func() { _ = m.Freeze() },
				func() { _ = m.Thaw() },
				func() { _ = m.Kill() },
			} {
				wg.Go(func() {
					began <- struct{}{}
					do()
				})
			}
			for range cap(began) {
				<-began
			}
			time.Sleep(time.Duration(round) * 5 * time.Millisecond) // so that it hits them at different points
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			wg.Wait()
			if ctx.Err() != nil {
				t.Error("something went on until its time was up")
			}
			cancel()
			if m.Running() {
				t.Error("a member runs on")
			}
		}
	}
}

func TestBinaryByPath(t *testing.T) {
	t.Parallel()
	mark := filepath.Join(t.TempDir(), "mark")
	path := writeWrapper(t, `[ "$1" = --version ] || echo started >>`+mark)
	c := Run(t, WithBinary(path), WithFlags("--max-txn-ops=1"))
	ctx := testContext(t)
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}
	conn := dialEndpoint(t, c.Endpoints()[0], nil)
	if _, err := pb.NewKVClient(conn).Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op, op}}); err == nil {
		t.Error("the flag has no effect")
	}
	if err := c.Member(0).Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Member(0).WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(mark); strings.Count(string(got), "started") != 2 || err != nil {
		t.Errorf("the binary left %q, %v, want to see two starts", got, err)
	}
}

func TestEnvironmentDoesNotReachChild(t *testing.T) {
	t.Setenv("ETCD_MAX_TXN_OPS", "nonsense")
	t.Setenv("ETCD_NAME", "other")
	if name := Run(t, WithChildProcesses()).Member(0).Name(); name != "m0" {
		t.Errorf("the member is called %q", name)
	}
}

// fatalEnv makes the test binary log a fatal error of a member in process.
const fatalEnv = "ETCDTEST_FATAL"

// The logs are quiet, but not about what ends the whole test.
func TestFatalErrorIsTold(t *testing.T) {
	if os.Getenv(fatalEnv) != "" {
		logger := (&memberLog{name: "m7", out: &logOutput{}}).logger()
		logger.Info("first words")
		logger.Fatal("last words")
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFatalErrorIsTold$")
	cmd.Env = append(os.Environ(), fatalEnv+"=yes")
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("the process ended with %v", err)
	}
	for _, want := range []string{"m7 gave up", "first words", "last words"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("output %q, want %q in it", out, want)
		}
	}
}

// parentEnv makes the test binary start a cluster and wait to be killed.
const parentEnv = "ETCDTEST_PARENT"

func TestChildDiesWithParent(t *testing.T) {
	if os.Getenv(parentEnv) != "" {
		beParent(t)
	}
	t.Parallel()
	parent := exec.Command(os.Args[0], "-test.run=^TestChildDiesWithParent$")
	parent.Env = append(os.Environ(), parentEnv+"=yes", "TMPDIR="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	want := 2
	if runtime.GOOS == "linux" {
		want = 3
	}
	for lines := bufio.NewScanner(out); len(pids) < want && lines.Scan(); {
		if text, found := strings.CutPrefix(lines.Text(), "child "); found {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	killErr := parent.Process.Kill()
	_ = parent.Wait()
	if len(pids) < want || killErr != nil {
		t.Fatalf("children %v, %v", pids, killErr)
	}
	ctx := testContext(t)
	for _, pid := range pids {
		for alive(pid) {
			select {
			case <-time.After(pollInterval):
			case <-ctx.Done():
				t.Fatalf("process %d outlives its parent", pid)
			}
		}
	}
}

// beParent starts two members and freezes one, on Linux also one that does not watch its standard input, tells their
// process ids, and waits for the end.
func beParent(t *testing.T) {
	c := Run(t, WithMembers(2), WithChildProcesses())
	if err := c.Member(1).Freeze(); err != nil {
		t.Fatal(err)
	}
	members := c.Members()
	if runtime.GOOS == "linux" {
		// A pipe that has a writer all the time, the reader itself, and never anything in it.
		pipe := filepath.Join(t.TempDir(), "pipe")
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		members = append(members, Run(t, WithBinary(writeWrapper(t, "exec 0<>"+pipe))).Member(0))
	}
	for _, m := range members {
		fmt.Printf("child %d\n", m.srv.(*child).cmd.Process.Pid)
	}
	select {}
}

// writeWrapper makes a program that does what the script says, and becomes etcd.
func writeWrapper(t *testing.T, script string) (path string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "etcd")
	script = fmt.Sprintf("#!/bin/sh\n%s\nexport %s=$PPID\nexec %s \"$@\"\n", script, childEnv, exe)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// alive reports whether a process runs: one that nobody has waited for does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true // no such file system, and the process is there
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}
