package dropin

import "testing"

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
