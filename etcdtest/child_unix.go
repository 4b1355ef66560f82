//go:build unix

package etcdtest

import "syscall"

const (
	terminate = syscall.SIGTERM
	freeze    = syscall.SIGSTOP
	thaw      = syscall.SIGCONT
)
