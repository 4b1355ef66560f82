package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

// member is a server whose snapshots are scripted, and a directory to save them in.
type member struct {
	*testing.T
	server *scripted.Server
	cfg    clientv3.Config
	dir    string
}

func newMember(t *testing.T) *member {
	t.Helper()
	network := scripted.NewNetwork()
	return &member{
		T:      t,
		server: network.Serve(t, "member:2379"),
		cfg: clientv3.Config{
			Endpoints:   []string{"http://member:2379"},
			DialOptions: []grpc.DialOption{network.DialOption()},
		},
		dir: t.TempDir(),
	}
}

// send makes the server announce a database of a size, send pieces, and end with an error or without.
func (m *member) send(size int, end error, pieces ...[]byte) {
	m.server.HandleStream(pb.Maintenance_Snapshot_FullMethodName, func(call *scripted.Call) error {
		if err := call.Stream.RecvMsg(&pb.SnapshotRequest{}); err != nil {
			return err
		}
		sent := 0
		for _, piece := range pieces {
			sent += len(piece)
			resp := &pb.SnapshotResponse{Blob: piece, RemainingBytes: uint64(max(0, size-sent)), Version: "3.7.0"}
			if err := call.Stream.SendMsg(resp); err != nil {
				return err
			}
		}
		return end
	})
}

// files returns the names in the directory.
func (m *member) files() string {
	m.Helper()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		m.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return strings.Join(names, " ")
}

func (m *member) path() string { return filepath.Join(m.dir, "backup.db") }

var (
	database = bytes.Repeat([]byte("database"), 1000)
	sum      = sha256.Sum256(database)
)

func TestSnapshotIsSaved(t *testing.T) {
	m := newMember(t)
	m.send(len(database), nil, database[:100], nil, database[100:], sum[:])
	for range 2 { // the second replaces the first
		version, err := SaveWithVersion(t.Context(), nil, m.cfg, m.path())
		if err != nil || version != "3.7.0" {
			t.Fatalf("version %q, %v", version, err)
		}
		got, err := os.ReadFile(m.path())
		if err != nil || !bytes.Equal(got, append(database, sum[:]...)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if names := m.files(); names != "backup.db" {
			t.Errorf("files: %s", names)
		}
		info, err := os.Stat(m.path())
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
}

func TestProgressGrowsToTheWhole(t *testing.T) {
	m := newMember(t)
	m.send(len(database), nil, database[:100], database[100:], sum[:])
	var received []int64
	_, err := SaveWithProgress(t.Context(), nil, m.cfg, m.path(), func(n, total int64) {
		if total != int64(len(database)+len(sum)) {
			t.Errorf("total %d", total)
		}
		received = append(received, n)
	})
	if want := fmt.Sprint([]int{100, len(database), len(database) + len(sum)}); err != nil || fmt.Sprint(received) != want {
		t.Errorf("received %v, want %s; %v", received, want, err)
	}
}

// Whatever goes wrong there is an error with its cause, no new file, and the old one is as it was.
func TestFailuresLeaveNothing(t *testing.T) {
	damaged := bytes.Clone(database)
	damaged[77] ^= 1
	for name, tt := range map[string]struct {
		size   int
		end    error
		pieces [][]byte
		want   error // nil for any
	}{
		"cut between pieces":       {len(database), rpctypes.ErrGRPCStopped, [][]byte{database[:100]}, rpctypes.ErrStopped},
		"ended between pieces":     {len(database), nil, [][]byte{database[:100]}, io.ErrUnexpectedEOF},
		"ended before the sum":     {len(database), nil, [][]byte{database}, io.ErrUnexpectedEOF},
		"ended within the sum":     {len(database), nil, [][]byte{database, sum[:31]}, io.ErrUnexpectedEOF},
		"cut after the sum":        {len(database), rpctypes.ErrGRPCStopped, [][]byte{database, sum[:]}, rpctypes.ErrStopped},
		"longer than announced":    {len(database), nil, [][]byte{database, sum[:], sum[:]}, nil},
		"damaged":                  {len(database), nil, [][]byte{damaged, sum[:]}, nil},
		"damaged sum":              {len(database), nil, [][]byte{database, damaged[:32]}, nil},
		"refused":                  {0, rpctypes.ErrGRPCPermissionDenied, nil, rpctypes.ErrPermissionDenied},
		"ended before it began":    {0, nil, nil, io.ErrUnexpectedEOF},
		"shorter than its own sum": {0, nil, [][]byte{sum[:3]}, io.ErrUnexpectedEOF},
	} {
		for _, old := range []bool{false, true} {
			m := newMember(t)
			m.send(tt.size, tt.end, tt.pieces...)
			want := ""
			if old {
				want = "backup.db"
				if err := os.WriteFile(m.path(), []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			version, err := SaveWithVersion(t.Context(), nil, m.cfg, m.path())
			if err == nil || version != "" || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%s: version %q, error %v, want %v", name, version, err, tt.want)
			}
			if names := m.files(); names != want {
				t.Errorf("%s: files %q, want %q", name, names, want)
			}
			if content, _ := os.ReadFile(m.path()); old && string(content) != "old" {
				t.Errorf("%s: the old file has %d bytes", name, len(content))
			}
		}
	}
}

func TestEndOfTheContextLeavesNothing(t *testing.T) {
	m := newMember(t)
	m.server.HandleStream(pb.Maintenance_Snapshot_FullMethodName, func(call *scripted.Call) error {
		if err := call.Stream.SendMsg(&pb.SnapshotResponse{Blob: database[:100], RemainingBytes: 7900}); err != nil {
			return err
		}
		<-call.Context.Done()
		return call.Context.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := SaveWithProgress(ctx, nil, m.cfg, m.path(), func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if names := m.files(); names != "" {
		t.Errorf("files %q", names)
	}
}

func TestPanicLeavesNothing(t *testing.T) {
	m := newMember(t)
	m.send(len(database), nil, database, sum[:])
	defer func() {
		if recover() == nil || m.files() != "" {
			t.Errorf("files %q", m.files())
		}
	}()
	_, _ = SaveWithProgress(t.Context(), nil, m.cfg, m.path(), func(int64, int64) { panic("of the caller's") })
}

func TestBadPlacesAreErrors(t *testing.T) {
	m := newMember(t)
	m.send(len(database), nil, database, sum[:])
	if _, err := SaveWithVersion(t.Context(), nil, m.cfg, filepath.Join(m.dir, "none", "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if n := m.server.Count(pb.Maintenance_Snapshot_FullMethodName); n != 0 {
		t.Errorf("%d snapshots were asked for, with no place for them", n)
	}
	if err := os.MkdirAll(filepath.Join(m.path(), "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := SaveWithVersion(t.Context(), nil, m.cfg, m.path()); err == nil {
		t.Error("no error in the place of a directory")
	}
	if names := m.files(); names != "backup.db" {
		t.Errorf("files %q", names)
	}
}

func TestOneEndpointIsNeeded(t *testing.T) {
	for _, endpoints := range [][]string{nil, {"a", "b"}} {
		m := newMember(t)
		m.cfg.Endpoints = endpoints
		if _, err := SaveWithVersion(t.Context(), nil, m.cfg, m.path()); err == nil || m.files() != "" {
			t.Errorf("endpoints %q: %v, files %q", endpoints, err, m.files())
		}
	}
}
