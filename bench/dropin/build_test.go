package dropin

import (
	"os"
	"testing"
	"time"
)

// Etcd's own server (its in-process client, its gRPC proxy, its lock and election services among it) and etcdctl compile
// with this client.
func TestServerAndEtcdctlCompile(t *testing.T) {
	out, err := swapped.command("build", "-trimpath",
		officialPath+"/...",
		"go.etcd.io/etcd/server/v3/...",
		"go.etcd.io/etcd/etcdctl/v3/...",
	).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// The go command does not know of the files that are read in another module, and would reuse the results although they
// have changed. It does not if a test has read a file of this module that was written in the last two seconds.
func TestResultsAreNotReused(t *testing.T) {
	const file = "testdata/swap/go.mod"
	if err := os.Chtimes(file, time.Time{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
}
