package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if ranAsChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

func TestBadCommandLines(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"expression": {[]string{"-case", "("}, "-case"},
		"no case":    {[]string{"-case", "no such thing"}, "no such case"},
		"rounds":     {[]string{"-rounds", "0"}, "-rounds 0"},
		"time":       {[]string{"-time", "-1s"}, "-time -1s"},
		"lease TTL":  {[]string{"-lease-ttl", "1500ms"}, "-lease-ttl 1.5s"},
		"argument":   {[]string{"Get"}, `unexpected argument "Get"`},
		"flag":       {[]string{"-what"}, "-what"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			err := command(t.Context(), test.args, &out, &errOut)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one about %s", err, test.want)
			}
			if out.Len() > 0 {
				t.Errorf("output: %s", &out)
			}
		})
	}
}

func TestListRunsNothing(t *testing.T) {
	var out, errOut bytes.Buffer
	if err := command(t.Context(), []string{"-list", "-case", "^Put"}, &out, &errOut); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 2*len(fullScale.Callers) || !strings.HasPrefix(out.String(), "Put, 1 caller") {
		t.Errorf("listed:\n%s", &out)
	}
	if errOut.Len() > 0 {
		t.Errorf("ran: %s", &errOut)
	}
}

// The whole way: servers and clients in processes of their own, report, pictures, profiles.
func TestCommandWritesReportAndProfiles(t *testing.T) {
	dir := t.TempDir()
	report, profiles := filepath.Join(dir, "report"), filepath.Join(dir, "profiles")
	var out, errOut bytes.Buffer
	err := command(t.Context(), []string{
		"-case", "^Get, 1 caller, null|^STM", "-rounds", "2", "-time", "20ms", "-out", report, "-profile", profiles,
		"-note", "A note.",
	}, &out, &errOut)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "results.json", "calls.svg", "stateful.svg"} {
		if info, err := os.Stat(filepath.Join(report, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"get-1-caller-null-server-clientv3.2.cpu.pprof", "get-1-caller-null-server-official.allocs.pprof"} {
		if info, err := os.Stat(filepath.Join(profiles, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, want := range []string{"Get, 1 caller, null server", "STM", official, own, stub} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}

func TestWorkerReportsWhatFails(t *testing.T) {
	o := &options{rounds: 1, time: time.Millisecond, scale: testScale}
	missing := benchCase{name: "no such case", server: nullKind, contenders: []string{own}}
	if _, err := run(t.Context(), missing, o); err == nil {
		t.Error("a case that does not exist was run")
	}
	// Streams of less than a chunk are refused by nobody, but do not bring what was asked for.
	o.scale.Stream = streamChunk/2 + 1
	short := rangeCases(o.scale)[2*len(o.scale.Ranges)]
	if _, err := run(t.Context(), short, o); err == nil || !strings.Contains(err.Error(), "instead of") {
		t.Errorf("error %v, want one about the missing bytes", err)
	}
}
