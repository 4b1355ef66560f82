package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// Roles of processes that this program starts of itself. The role is the first argument.
const (
	nullServerRole = "null-server"
	contenderRole  = "contender"
)

// ranAsChild does what the process was started for if this program started it, and says whether that was so.
func ranAsChild() bool {
	if len(os.Args) < 2 {
		return false
	}
	var err error
	switch os.Args[1] {
	case nullServerRole:
		err = serveNull(os.Stdin, os.Stdout)
	case contenderRole:
		err = contend(os.Args[2:], os.Stdin, os.Stdout)
	default:
		return false
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	return true
}

// process is this program once more, in a role. It ends when its standard input does.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startProcess starts one that is killed when the context ends.
func startProcess(ctx context.Context, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, exe, args...)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) readLine() (string, error) { return p.out.ReadString('\n') }

// stop tells the process to end, and waits until it has.
func (p *process) stop() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}
