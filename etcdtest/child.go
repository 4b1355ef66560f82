package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

// childEnv is set in the environment of a process that is to become an etcd server. Its value is the parent's process
// id.
const childEnv = "ETCDTEST_CHILD_OF"

// A program that imports this package turns into an etcd server here, before its main function or its tests, when
// childEnv says so. What has not been initialised by now never is: this package and all it imports are.
func init() { //nolint:gochecknoinits // whoever imports the package should have to do nothing more
	parent, isChild := os.LookupEnv(childEnv)
	if !isChild {
		return
	}
	if parent != strconv.Itoa(os.Getppid()) {
		// The parent died before it could be waited for.
		fmt.Fprintf(os.Stderr, "etcdtest: process %s, which wanted this etcd server, is gone\n", parent)
		os.Exit(1)
	}
	// Whatever etcd may start is not to become one more etcd.
	if err := os.Unsetenv(childEnv); err != nil {
		fmt.Fprintln(os.Stderr, "etcdtest:", err)
		os.Exit(1)
	}
	go func() {
		// The parent holds the other end and never writes: this ends when the parent does.
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	etcdmain.Main(append([]string{"etcd"}, os.Args[1:]...))
	os.Exit(0)
}

// child is a server in a process of its own.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{}
	why   error // how it ended, once ended is closed
}

func startChild(l *launch, log *memberLog) (server, error) {
	path := l.binary
	env := childEnviron()
	if path == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("finding this executable, to run it as etcd: %w", err)
		}
		path = exe
		env = append(env, childEnv+"="+strconv.Itoa(os.Getpid()))
	}
	cmd := exec.Command(path, l.flags()...)
	cmd.Env = env
	cmd.Stdout = log
	cmd.Stderr = log
	cmd.SysProcAttr = childAttributes()
	// A script in the server's place may leave processes behind that hold the output open.
	cmd.WaitDelay = time.Second
	// By this the child sees its parent's end. Nothing is ever written to it, and the command closes it.
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	c := &child{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error)
	go c.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	return c, nil
}

// run starts the process and waits for its end. It keeps its thread until then: on Linux the child is killed when its
// parent ends, and the parent, there, is the thread that started it.
func (c *child) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := c.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	err = c.cmd.Wait()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		err = errors.New("exit status 0")
	}
	c.why = fmt.Errorf("the server process ended: %w", err)
	close(c.ended)
}

func (c *child) stop(ctx context.Context) error {
	if err := c.signal(terminate); err != nil {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		c.kill()
		return context.Cause(ctx)
	}
}

func (c *child) kill() {
	// It fails only when the process has ended already.
	_ = c.cmd.Process.Kill()
	<-c.ended
}

// halt freezes the process, and returns when it stands still; or thaws it.
func (c *child) halt(frozen bool) error {
	if !frozen {
		return c.signal(thaw)
	}
	if err := c.signal(freeze); err != nil {
		return err
	}
	return c.awaitFrozen()
}

// signal sends s, unless the process has ended.
func (c *child) signal(s os.Signal) error {
	err := c.cmd.Process.Signal(s)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signalling process %d: %w", c.cmd.Process.Pid, err)
	}
	return nil
}

func (c *child) done() <-chan struct{} { return c.ended }

func (c *child) err() error { return c.why }

// childEnviron is this process's environment without what etcd would take for settings.
func childEnviron() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "ETCD_") || name == "NOTIFY_SOCKET" {
			continue
		}
		env = append(env, kv)
	}
	return env
}
