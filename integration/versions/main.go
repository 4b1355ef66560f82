// Command versions runs the integration tests against other versions of the etcd server than the one compiled in. From
// the root of the repository:
//
//	go run ./integration/versions                          # against 3.4, 3.5 and 3.6
//	go run ./integration/versions 3.5                      # against one of them
//	go run ./integration/versions -etcd /usr/bin/etcd      # against whatever that is
//	go run ./integration/versions 3.6 -- -run Watch ./...  # with arguments of one's own for go test
//
// The servers 3.5 and 3.6 are built from the modules in etcdtest/servers. That of 3.4, which current Go does not build, is
// Debian's package etcd-server, fetched and unpacked with apt-get and dpkg-deb, without installing it. Both go to a folder
// of the user's cache and are made once only.
//
// Tests that a server is too old for are skipped, and listed at the end of its run with the reason. A server that cannot
// be had is an error.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "versions:", err)
		stop()
		os.Exit(1)
	}
}

// whole is what go test is asked for by default: every test, and none of the results of another time.
var whole = []string{"-timeout=20m", "./..."}

func run(ctx context.Context, args []string) error {
	tests := whole
	if i := slices.Index(args, "--"); i >= 0 {
		args, tests = args[:i], args[i+1:]
	}
	flags := flag.NewFlagSet("versions", flag.ExitOnError)
	path := flags.String("etcd", "", "run the tests against the server at `path`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	root, err := workspace(ctx)
	if err != nil {
		return err
	}
	if *path != "" {
		if flags.NArg() > 0 {
			return fmt.Errorf("-etcd and versions %q exclude each other", flags.Args())
		}
		binary, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		return suite{root: root, name: *path, binary: binary, args: tests}.run(ctx)
	}
	versions := flags.Args()
	if len(versions) == 0 {
		versions = []string{"3.4", "3.5", "3.6"}
	}
	// All servers first: one that cannot be had is told before a suite has run for minutes.
	var suites []suite
	for _, v := range versions {
		binary, err := server(ctx, root, v)
		if err != nil {
			return fmt.Errorf("getting etcd %s: %w", v, err)
		}
		suites = append(suites, suite{root: root, name: "etcd " + v, binary: binary, args: tests})
	}
	var failed []string
	for _, s := range suites {
		if err := s.run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "versions:", err)
			failed = append(failed, s.name)
		}
	}
	if failed != nil {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

// workspace returns the folder of the repository.
func workspace(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOWORK: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if filepath.Base(file) != "go.work" {
		return "", fmt.Errorf("to be run in a clone of the repository, with its go.work; GOWORK is %q", file)
	}
	return filepath.Dir(file), nil
}

// stopDelay is what an interrupted command gets to end by itself.
const stopDelay = 10 * time.Second

// command is a command in a folder, which gets an interrupt when ctx ends, and shows its errors.
func command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopDelay
	return cmd
}
