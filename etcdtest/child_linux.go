package etcdtest

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// childAttributes makes a child die with its parent, even one that does not watch its standard input, and keeps the
// terminal's signals from it: the parent decides when it ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// awaitFrozen waits until a child that has been sent the signal has come to a halt: a thread that is running just
// then runs on for a moment, long enough to answer a request. It is over, too, once the child has ended.
func (c *child) awaitFrozen() error {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, &info, unix.WSTOPPED|unix.WNOHANG, nil)
		if err != nil && err != unix.EINTR && err != unix.ECHILD {
			return fmt.Errorf("waiting for process %d to halt: %w", c.cmd.Process.Pid, os.NewSyscallError("waitid", err))
		}
		if info.Signo != 0 {
			return nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-c.ended:
			return nil
		}
	}
}
