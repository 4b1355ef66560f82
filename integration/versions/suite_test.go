package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	err := r.read(strings.NewReader(`{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestGood"}
{"Action":"output","Package":"p","Test":"TestGood","Output":"    a_test.go:1: all is well\n"}
{"Action":"pass","Package":"p","Test":"TestGood","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestBad","Output":"    a_test.go:2: it is broken\n"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"--- FAIL: TestBad (0.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestBad","Elapsed":0}
{"Action":"output","Package":"p","Test":"TestOld","Output":"=== RUN   TestOld\n"}
{"Action":"output","Package":"p","Test":"TestOld","Output":"    a_test.go:3: etcd 3.4.23 lacks a thing: of late\n"}
{"Action":"output","Package":"p","Test":"TestOld","Output":"--- SKIP: TestOld (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestOld","Elapsed":0}
{"Action":"output","Package":"p","Output":"found unexpected goroutines\n"}
{"Action":"fail","Package":"p","Elapsed":1.5}
{"ImportPath":"q","Action":"build-output","Output":"q.go:1: undefined\n"}
`))
	if err != nil {
		t.Fatal(err)
	}
	r.summary(2 * time.Second)
	want := `    a_test.go:2: it is broken
--- FAIL: TestBad (0.00s)
found unexpected goroutines
fail	p	1.5s
q.go:1: undefined
skipped, etcd 3.4.23 lacks a thing: of late:
	TestOld
failed: TestBad
1 tests passed, 1 failed, 1 skipped in 2s
`
	if out.String() != want {
		t.Errorf("it says\n%s\nwant\n%s", out.String(), want)
	}
	if err := newReport(&out).read(strings.NewReader("no JSON\nat all")); err == nil || !strings.HasSuffix(out.String(), "at all") {
		t.Errorf("output that is no JSON: %v, %q", err, out.String())
	}
}

func TestServerThatIsAnotherVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho etcd Version: 3.5.16\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := check(t.Context(), path, "3.5"); err != nil {
		t.Error(err)
	}
	if err := check(t.Context(), path, "3.4"); err == nil || !strings.Contains(err.Error(), "3.5.16") {
		t.Errorf("error %v", err)
	}
}

// Where there is no way to a server, this is an error.
func TestServerThatCannotBeHad(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	if path, err := server(t.Context(), ".", "3.4"); err == nil || !strings.Contains(err.Error(), "-etcd") {
		t.Errorf("path %s, error %v", path, err)
	}
	if path, err := server(t.Context(), ".", "3.7"); err == nil || !strings.Contains(err.Error(), "3.4, 3.5 and 3.6") {
		t.Errorf("path %s, error %v", path, err)
	}
}
