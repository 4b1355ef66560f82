package endpoints

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/stub"
)

func newManager(t *testing.T, kv clientv3.KV, w clientv3.Watcher) Manager {
	t.Helper()
	cli := clientv3.NewCtxClient(t.Context())
	cli.KV, cli.Watcher = kv, w
	t.Cleanup(func() { _ = cli.Close() })
	m, err := NewManager(cli, "svc")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestManagerNeedsAClientAndATarget(t *testing.T) {
	if _, err := NewManager(nil, "svc"); err == nil {
		t.Error("no error without a client")
	}
	if _, err := NewManager(clientv3.NewCtxClient(t.Context()), ""); err == nil {
		t.Error("no error without a target")
	}
}

func TestUpdatesAreOneTransaction(t *testing.T) {
	kv := &stub.KV{}
	m := newManager(t, kv, &stub.Watcher{})
	err := m.Update(t.Context(), []*UpdateWithOpts{
		NewAddUpdateOpts("svc/a", Endpoint{Addr: "1.2.3.4:5", Metadata: map[string]any{"weight": 3}}),
		NewAddUpdateOpts("svc/b", Endpoint{Addr: "b"}, clientv3.WithPrevKV()),
		NewDeleteUpdateOpts("svc/c", clientv3.WithPrevKV()),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AddEndpoint(t.Context(), "svc/d", Endpoint{}); err != nil {
		t.Fatal(err)
	}
	if err := m.DeleteEndpoint(t.Context(), "svc/d"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, op := range kv.Ops() {
		_, thenOps, _ := op.Txn()
		for _, op := range thenOps {
			got = append(got, fmt.Sprintf("%s %s %t %t", op.KeyBytes(), op.ValueBytes(), op.IsDelete(), op.IsPrevKV()))
		}
		got = append(got, "commit")
	}
	want := []string{
		`svc/a {"Op":0,"Addr":"1.2.3.4:5","Metadata":{"weight":3}} false false`,
		`svc/b {"Op":0,"Addr":"b","Metadata":null} false true`,
		`svc/c  true true`,
		`commit`,
		`svc/d {"Op":0,"Addr":"","Metadata":null} false false`,
		`commit`,
		`svc/d  true false`,
		`commit`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestBadUpdatesAreRefused(t *testing.T) {
	kv := &stub.KV{}
	m := newManager(t, kv, &stub.Watcher{})
	for name, update := range map[string]*UpdateWithOpts{
		"the target itself": NewAddUpdateOpts("svc", Endpoint{}),
		"another target":    NewAddUpdateOpts("svc2/a", Endpoint{}),
		"elsewhere":         NewDeleteUpdateOpts("a"),
		"no JSON":           NewAddUpdateOpts("svc/a", Endpoint{Metadata: func() {}}),
		"no operation":      {Update: Update{Op: 7, Key: "svc/a"}},
	} {
		err := m.Update(t.Context(), []*UpdateWithOpts{NewAddUpdateOpts("svc/good", Endpoint{}), update})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(kv.Ops()); n != 0 {
		t.Errorf("%d transactions", n)
	}
}

func listing(rev int64, kvs ...*mvccpb.KeyValue) *clientv3.GetResponse {
	return &clientv3.GetResponse{Header: &pb.ResponseHeader{Revision: rev}, Kvs: kvs}
}

// key is the key of an endpoint that was written in a revision.
func key(name, addr string, rev int64) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: []byte("svc/" + name), Value: []byte(`{"Op":0,"Addr":"` + addr + `","Metadata":{"n":1}}`), ModRevision: rev,
	}
}

func TestListReadsWhatIsThere(t *testing.T) {
	kv := &stub.KV{Answer: func(clientv3.Op) (clientv3.OpResponse, error) {
		return listing(5,
			key("a", "1.2.3.4:5", 1),
			&mvccpb.KeyValue{Key: []byte("svc/b"), Value: []byte(`{"addr":"other spelling"}`)},
			&mvccpb.KeyValue{Key: []byte("svc/c"), Value: []byte(`no JSON`)},
		).OpResponse(), nil
	}}
	all, err := newManager(t, kv, &stub.Watcher{}).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Key2EndpointMap{
		"svc/a": {Addr: "1.2.3.4:5", Metadata: map[string]any{"n": 1.0}},
		"svc/b": {Addr: "other spelling"},
	}
	if !reflect.DeepEqual(all, want) {
		t.Errorf("got %v, want %v", all, want)
	}
	op := kv.Ops()[0]
	if string(op.KeyBytes()) != "svc/" || string(op.RangeBytes()) != "svc0" || !op.IsSerializable() {
		t.Errorf("range %q-%q, serializable %t", op.KeyBytes(), op.RangeBytes(), op.IsSerializable())
	}
}

func TestErrorsKeepTheirCause(t *testing.T) {
	kv := &stub.KV{Answer: func(clientv3.Op) (clientv3.OpResponse, error) {
		return clientv3.OpResponse{}, rpctypes.ErrPermissionDenied
	}}
	m := newManager(t, kv, &stub.Watcher{})
	_, list := m.List(t.Context())
	_, watch := m.NewWatchChannel(t.Context())
	for name, err := range map[string]error{
		"add": m.AddEndpoint(t.Context(), "svc/a", Endpoint{}), "list": list, "watch": watch,
	} {
		if !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
