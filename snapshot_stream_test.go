package clientv3

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

const snapshot = pb.Maintenance_Snapshot_FullMethodName

// snapshotOf serves a snapshot in these pieces, the last of which is the sum, of a database with total bytes.
func snapshotOf(end error, total int, pieces ...string) scripted.Stream {
	return func(call *scripted.Call) error {
		if err := call.Stream.RecvMsg(&pb.SnapshotRequest{}); err != nil {
			return err
		}
		sent := 0
		for _, piece := range pieces {
			sent += len(piece)
			resp := &pb.SnapshotResponse{Blob: []byte(piece), RemainingBytes: uint64(max(0, total-sent)), Version: "3.7.0"}
			if err := call.Stream.SendMsg(resp); err != nil {
				return err
			}
		}
		return end
	}
}

func TestSnapshotIsReadWhole(t *testing.T) {
	sum := strings.Repeat("s", 32)
	synctest.Test(t, func(t *testing.T) {
		for name, pieces := range map[string][]string{
			"in pieces":          {"0123", "456789", "ab", sum},
			"with an empty one":  {"0123456789", "", "ab", sum},
			"in one":             {"0123456789ab", sum},
			"of an empty member": {"", sum},
		} {
			m := newMembers(t, 2)
			total := len(strings.Join(pieces[:len(pieces)-1], ""))
			m.stream(snapshot, snapshotOf(nil, total, pieces...))
			c := m.client(t)
			resp, err := c.SnapshotWithVersion(t.Context())
			if err != nil || resp.Version != "3.7.0" {
				t.Fatalf("%s: %+v, %v", name, resp, err)
			}
			if resp.Size != int64(total+len(sum)) {
				t.Errorf("%s: size %d, want %d", name, resp.Size, total+len(sum))
			}
			got, err := io.ReadAll(resp.Snapshot)
			if err != nil || string(got) != strings.Join(pieces, "") {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			if n, err := resp.Snapshot.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // bare, by contract of Reader
				t.Errorf("%s: at the end: %d, %v", name, n, err)
			}
			if err := resp.Snapshot.Close(); err != nil {
				t.Errorf("%s: Close: %v", name, err)
			}
			r, err := c.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			small, err := io.ReadAll(io.LimitReader(r, 3))
			if err != nil || !strings.HasPrefix(strings.Join(pieces, ""), string(small)) {
				t.Errorf("%s: the first bytes: %q, %v", name, small, err)
			}
			if err := r.Close(); err != nil {
				t.Errorf("%s: Close half way: %v", name, err)
			}
		}
	})
}

func TestSnapshotIsNeverSilentlyShort(t *testing.T) {
	sum := strings.Repeat("s", 32)
	for name, tt := range map[string]struct {
		stream scripted.Stream
		is     func(error) bool
	}{
		"without its sum":  {snapshotOf(nil, 10, "01234", "56789"), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"half a sum":       {snapshotOf(nil, 10, "0123456789", sum[:16]), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"without its half": {snapshotOf(nil, 10, "01234"), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"with a gap":       {snapshotOf(nil, 10, "01234", sum), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"etcd error":       {snapshotOf(rpctypes.ErrGRPCCorrupt, 10, "01234"), func(err error) bool { return err == rpctypes.ErrCorrupt }}, //nolint:errorlint // identity
		"cut": {func(call *scripted.Call) error {
			_ = snapshotOf(nil, 10, "01234")(call)
			time.Sleep(time.Second)
			call.Cut()
			<-call.Context.Done()
			return nil
		}, func(err error) bool { return status.Code(err) == codes.Unavailable }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 1)
				m.stream(snapshot, tt.stream)
				r, err := m.client(t).Snapshot(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				got, err := io.ReadAll(r)
				if err == nil || !tt.is(err) || !strings.HasPrefix("0123456789"+sum, string(got[:5])) {
					t.Errorf("%q, %v", got, err)
				}
				if n, again := r.Read(make([]byte, 1)); n != 0 || again != err { //nolint:errorlint // the same one
					t.Errorf("read after the error: %d, %v", n, again)
				}
			})
		})
	}
}

func TestSnapshotEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		m.stream(snapshot, func(call *scripted.Call) error {
			_ = snapshotOf(nil, 10, "01234")(call)
			<-call.Context.Done()
			return nil
		})
		c := m.client(t)
		ctx, cancel := context.WithCancel(t.Context())
		r, err := c.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, cancel)
		if got, err := io.ReadAll(r); err != context.Canceled || string(got) != "01234" { //nolint:errorlint // bare
			t.Errorf("%q, %v", got, err)
		}
		if _, err := c.Snapshot(ctx); err != context.Canceled { //nolint:errorlint // bare
			t.Errorf("under an ended context: %v", err)
		}
		r, err = c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { _ = r.Close() })
		if _, err := io.ReadAll(r); err == nil {
			t.Error("a snapshot that was closed half way looks complete")
		}
		m.stream(snapshot, func(call *scripted.Call) error {
			deadline, _ := call.Context.Deadline()
			_ = snapshotOf(nil, 10, "01234")(call)
			time.Sleep(time.Until(deadline) - 10*time.Millisecond)
			return status.Error(codes.DeadlineExceeded, "mine")
		})
		r, err = c.Snapshot(within(t, time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); err != context.DeadlineExceeded { //nolint:errorlint // bare
			t.Errorf("by the server's clock: %v", err)
		}
	})
}

func TestSnapshotWithoutAMessageIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.stream(snapshot, snapshotOf(nil, 0))
		if _, err := c.Snapshot(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("error %v", err)
		}
		m.stream(snapshot, snapshotOf(rpctypes.ErrGRPCPermissionDenied, 0))
		if _, err := c.Snapshot(t.Context()); err != rpctypes.ErrPermissionDenied { //nolint:errorlint // identity
			t.Errorf("error %v", err)
		}
	})
}

func TestSnapshotIsOpenedAtAnotherMemberIfOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		failed := make(chan struct{}, 1)
		m.stream(snapshot, func(call *scripted.Call) error {
			select {
			case failed <- struct{}{}:
				return status.Error(codes.Unavailable, "not now")
			default:
				return snapshotOf(nil, 3, "012", strings.Repeat("s", 32))(call)
			}
		})
		c := m.client(t)
		time.Sleep(time.Second)
		r, err := c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || len(got) != 35 {
			t.Errorf("%q, %v", got, err)
		}
		if got := m.counts(snapshot); !slices.Equal(got, []int{1, 1}) {
			t.Errorf("attempts %v", got)
		}
	})
}
