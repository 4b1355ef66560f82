package etcdtest

import "syscall"

// childAttributes makes a child die with its parent, even one that is frozen or does not watch its standard input, and
// keeps the terminal's signals from it: the parent decides when it ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
