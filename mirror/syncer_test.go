package mirror

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/stub"
)

// store answers gets from keys that do not change, at revisions that grow with every request.
type store struct {
	stub.KV
	keys  []string
	value string
	rev   int64
	fail  error // of the third get
	gets  int
}

func newStore(n int, value string) *store {
	s := &store{value: value, rev: 6}
	for i := range n {
		s.keys = append(s.keys, fmt.Sprintf("p/%05d", i))
	}
	s.Answer = s.answer
	return s
}

func (s *store) answer(op clientv3.Op) (clientv3.OpResponse, error) {
	s.gets++
	if s.gets == 3 && s.fail != nil {
		return clientv3.OpResponse{}, s.fail
	}
	s.rev++
	resp := &clientv3.GetResponse{Header: &pb.ResponseHeader{Revision: s.rev}}
	if op.IsCountOnly() {
		return resp.OpResponse(), nil
	}
	from := sort.SearchStrings(s.keys, string(op.KeyBytes()))
	to := min(len(s.keys), from+int(op.Limit()))
	for _, key := range s.keys[from:to] {
		resp.Kvs = append(resp.Kvs, &mvccpb.KeyValue{Key: []byte(key), Value: []byte(s.value)})
	}
	resp.More = to < len(s.keys)
	return resp.OpResponse(), nil
}

func client(t *testing.T, kv clientv3.KV, w clientv3.Watcher) *clientv3.Client {
	t.Helper()
	cli := clientv3.NewCtxClient(t.Context())
	cli.KV, cli.Watcher = kv, w
	t.Cleanup(func() { _ = cli.Close() })
	return cli
}

func TestAllPagesAreOfTheRevisionThatWasTakenFirst(t *testing.T) {
	s := newStore(3210, "v")
	syncer := NewSyncer(client(t, s, &stub.Watcher{}), "p/", 0)
	pages, errs := syncer.SyncBase(t.Context())
	var got []string
	for page := range pages {
		for _, kv := range page.Kvs {
			got = append(got, string(kv.Key))
		}
	}
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	if strings.Join(got, " ") != strings.Join(s.keys, " ") {
		t.Errorf("%d keys, want %d", len(got), len(s.keys))
	}
	for i, op := range s.Ops() {
		if want := int64(7); i > 0 && op.Rev() != want {
			t.Errorf("page %d is of revision %d, want %d", i, op.Rev(), want)
		}
		if want := "p0"; i > 0 && string(op.RangeBytes()) != want {
			t.Errorf("page %d ends at %q, want %q", i, op.RangeBytes(), want)
		}
	}
}

func TestUpdatesFollowTheCopy(t *testing.T) {
	w := &stub.Watcher{}
	for i, tt := range []struct {
		prefix   string
		rev      int64
		key, end string
		from     int64
	}{
		{"p/", 0, "p/", "p0", 8},
		{"p/", 41, "p/", "p0", 42},
		{"", 41, "\x00", "\x00", 42},
	} {
		syncer := NewSyncer(client(t, newStore(1, "v"), w), tt.prefix, tt.rev)
		pages, errs := syncer.SyncBase(t.Context())
		for range pages {
		}
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
		syncer.SyncUpdates(t.Context())
		op := w.Watches()[i].Op
		if string(op.KeyBytes()) != tt.key || string(op.RangeBytes()) != tt.end || op.Rev() != tt.from {
			t.Errorf("%+v: watch of %q to %q from %d", tt, op.KeyBytes(), op.RangeBytes(), op.Rev())
		}
	}
}

func TestUpdatesNeedACopy(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewSyncer(client(t, newStore(1, "v"), &stub.Watcher{}), "p/", 0).SyncUpdates(t.Context())
}

func TestPagesOfLargeValuesHaveFewKeys(t *testing.T) {
	s := newStore(400, strings.Repeat("v", pageBytes/10))
	pages, errs := NewSyncer(client(t, s, &stub.Watcher{}), "p/", 1).SyncBase(t.Context())
	sizes, total := []int{}, 0
	for page := range pages {
		sizes = append(sizes, len(page.Kvs))
		total += len(page.Kvs)
	}
	if err := <-errs; err != nil || total != len(s.keys) {
		t.Errorf("%d keys, %v", total, err)
	}
	if fmt.Sprint(sizes[:5]) != "[100 50 25 12 12]" {
		t.Errorf("pages of %d keys", sizes)
	}
}

// Whenever it comes, the error is there when the pages have ended.
func TestErrorsAreTold(t *testing.T) {
	kv := newStore(1000, "v")
	kv.fail = rpctypes.ErrCompacted
	pages, errs := NewSyncer(client(t, kv, &stub.Watcher{}), "p/", 0).SyncBase(t.Context())
	n := 0
	for range pages {
		n++
	}
	if err := <-errs; n != 1 || !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("after %d pages: %v", n, err)
	}
	if err, more := <-errs; more {
		t.Errorf("another error: %v", err)
	}

	refuse := &stub.KV{Answer: func(clientv3.Op) (clientv3.OpResponse, error) {
		return clientv3.OpResponse{}, rpctypes.ErrPermissionDenied
	}}
	pages, errs = NewSyncer(client(t, refuse, &stub.Watcher{}), "p/", 0).SyncBase(t.Context())
	if _, more := <-pages; more {
		t.Error("a page without a revision")
	}
	if err := <-errs; !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("error %v", err)
	}
}

// The reader is slow, and then gone.
func TestReadingGoesNoFurtherThanItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newStore(100_000, "v")
		cli := clientv3.NewCtxClient(ctx)
		cli.KV = s
		pages, errs := NewSyncer(cli, "p/", 0).SyncBase(ctx)
		synctest.Wait()
		if n := len(s.Ops()); n != 3 { // the revision, a page in the channel, one in hand
			t.Errorf("%d requests before the first page was taken", n)
		}
		cancel()
		synctest.Wait()
		<-pages
		if _, more := <-pages; more {
			t.Error("another page after the end of the context")
		}
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		_ = cli.Close()
	})
}
