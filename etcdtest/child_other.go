//go:build !unix

package etcdtest

import (
	"os"
	"syscall"
)

// There is no gentle way to end a process here, and none to freeze it: sending it the other two is an error.
var (
	terminate = os.Kill
	freeze    = syscall.Signal(0x13)
	thaw      = syscall.Signal(0x12)
)

func childAttributes() *syscall.SysProcAttr { return nil }
