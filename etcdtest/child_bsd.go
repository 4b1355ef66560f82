//go:build unix && !linux

package etcdtest

import "syscall"

// childAttributes keeps the terminal's signals from a child: the parent decides when it ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
