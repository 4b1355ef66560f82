// Package snapshot holds the tests of package snapshot against real etcd. It has no other code.
package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/snapshot"
)

func TestMain(m *testing.M) { shared.Main(m) }

func TestSavedFileIsTheDatabase(t *testing.T) {
	ctx, cli := shared.Context(t), shared.Client(t)
	marker := "marked by " + shared.Prefix(t)
	if _, err := cli.Put(ctx, shared.Prefix(t), marker); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "backup.db")
	var received, total int64
	_, err := snapshot.SaveWithProgress(ctx, zap.NewNop(), shared.Config(t, shared.Cluster(t).Endpoints()...), path,
		func(r, n int64) { received, total = r, n })
	if err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(saved)) != total || received != total {
		t.Errorf("%d bytes saved, %d of %d reported", len(saved), received, total)
	}
	database, sum := saved[:len(saved)-sha256.Size], saved[len(saved)-sha256.Size:]
	if want := sha256.Sum256(database); !bytes.Equal(sum, want[:]) || !bytes.Contains(database, []byte(marker)) {
		t.Error("the file has a wrong sum, or not the key")
	}
}

// The connection is cut at 20 places of the snapshot. Each time there is an error and no file; then, uncut, all is there.
func TestSnapshotThatIsCutLeavesNoFile(t *testing.T) {
	ctx := shared.Context(t)
	cluster := etcdtest.Run(t)
	cli := shared.ClientOf(t, cluster.Endpoints()...)
	for i := range 40 {
		if _, err := cli.Put(ctx, fmt.Sprint("key", i), strings.Repeat("v", 200<<10)); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "backup.db")
	cfg := shared.Config(t, cluster.Endpoints()...)
	var total int64
	_, err := snapshot.SaveWithProgress(ctx, zap.NewNop(), cfg, path, func(_, n int64) { total = n })
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewSource(1))
	for range 20 {
		// Before anything has come the client would try again.
		const begun = 64 << 10
		at := begun + rng.Int63n(total-begun)
		cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(cutAfter(at))}
		_, err := snapshot.SaveWithVersion(ctx, zap.NewNop(), cfg, path)
		entries, readErr := os.ReadDir(dir)
		if err == nil || ctx.Err() != nil || readErr != nil || len(entries) != 0 {
			t.Errorf("cut at %d of %d: error %v, %v; files %v", at, total, err, readErr, entries)
		}
	}
}

// cutAfter returns a dialer whose connections break when so many bytes have been received.
func cutAfter(n int64) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return &cutConn{Conn: conn, left: n}, nil
	}
}

// cutConn is read by one goroutine.
type cutConn struct {
	net.Conn
	left int64
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		_ = c.Close()
		return 0, syscall.ECONNRESET
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}
