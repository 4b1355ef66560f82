//go:build unix

package etcdtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/embed"
)

// writeVersion makes a program that says it is a version of etcd, and is nothing more.
func writeVersion(t *testing.T, v string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "etcd")
	script := fmt.Sprintf("#!/bin/sh\necho etcd Version: %s\necho Go Version: go1.19.8\n", v)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestServerByEnvironment(t *testing.T) {
	t.Setenv(binaryEnv, "")
	if got, err := Version(); got != version.Version || err != nil {
		t.Errorf("the version compiled in is %q, %v", got, err)
	}
	t.Setenv(binaryEnv, writeVersion(t, "3.4.23"))
	if got, err := Version(); got != "3.4.23" || err != nil {
		t.Errorf("the version by path is %q, %v", got, err)
	}

	mark := filepath.Join(t.TempDir(), "mark")
	t.Setenv(binaryEnv, writeWrapper(t, "echo \"$1\" >>"+mark))
	m := Run(t).Member(0)
	if err := m.Kill(); err != nil { // as only a child process can be
		t.Error(err)
	}
	if got, err := os.ReadFile(mark); !strings.Contains(string(got), "--name=m0") || err != nil {
		t.Errorf("the server by path was started with %q, %v", got, err)
	}

	_, err := Start(t.Context(), WithEmbedConfig(func(*embed.Config) {}))
	if err == nil || !strings.Contains(err.Error(), binaryEnv) {
		t.Errorf("WithEmbedConfig: %v", err)
	}
	t.Setenv(binaryEnv, writeVersion(t, "unknown"))
	if got, err := Version(); err == nil || !strings.Contains(err.Error(), "no version") {
		t.Errorf("the version of no etcd is %q, %v", got, err)
	}
}

func TestOptionsThatServersAreTooOldFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		version, option string
		opt             Option
		want            string // in the error, or "" where there is none
	}{
		{"3.6.16", "WithUnixSockets", WithUnixSockets(), "WithUnixSockets takes etcd 3.7 or later, and the server is 3.6"},
		{"3.7.0", "WithUnixSockets", WithUnixSockets(), ""},
		{"4.0.0", "WithUnixSockets", WithUnixSockets(), ""},
		{"3.5.35", "WithMaxLearners", WithMaxLearners(2), "WithMaxLearners takes etcd 3.6 or later"},
		{"3.6.0", "WithMaxLearners", WithMaxLearners(2), ""},
	} {
		_, err := newOptions([]Option{tt.opt, WithBinary(writeVersion(t, tt.version))})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s with %s: %v, want %q", tt.option, tt.version, err, tt.want)
		}
	}
}

func TestFlagsOfVersions(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]string{
		"3.4.23": "--experimental-watch-progress-notify-interval=2s",
		"3.5.35": "--experimental-watch-progress-notify-interval=2s",
		"3.6.16": "--watch-progress-notify-interval=2s",
	} {
		o, err := newOptions([]Option{WithBinary(writeVersion(t, v)), WithWatchProgressInterval(2 * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		if flags := (&launch{options: o}).flags(); !slices.Contains(flags, want) {
			t.Errorf("%s: %q, want %s", v, flags, want)
		}
	}
}
