package namespace

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/stub"
)

func TestWatchedKeysAreTranslated(t *testing.T) {
	for _, tt := range []struct {
		prefix, key string
		opts        []clientv3.OpOption
		want        string
	}{
		{"p/", "a", nil, `"p/a"-""`},
		{"p/", "", nil, `"p/\x00"-""`}, // servers take the empty key of a watch for the first one
		{"p/", "a", []clientv3.OpOption{clientv3.WithPrefix()}, `"p/a"-"p/b"`},
		{"p/", "a", []clientv3.OpOption{clientv3.WithRange("c")}, `"p/a"-"p/c"`},
		{"p/", "a", []clientv3.OpOption{clientv3.WithFromKey()}, `"p/a"-"p0"`},
		{"p/", "", []clientv3.OpOption{clientv3.WithPrefix()}, `"p/\x00"-"p0"`},
		{"p/", "", []clientv3.OpOption{clientv3.WithFromKey()}, `"p/\x00"-"p0"`},
		{"p/", "", []clientv3.OpOption{clientv3.WithRange("c")}, `"p/\x00"-"p/c"`},
		{"\xff", "a", []clientv3.OpOption{clientv3.WithFromKey()}, `"\xffa"-"\x00"`},
		{"", "a", nil, `"a"-""`},
		{"", "", []clientv3.OpOption{clientv3.WithPrefix()}, `"\x00"-"\x00"`},
	} {
		inner := &stub.Watcher{}
		w := NewWatcher(inner, tt.prefix)
		opts := append(tt.opts, clientv3.WithRev(5), clientv3.WithPrevKV())
		w.Watch(t.Context(), tt.key, opts...)
		op := inner.Watches()[0].Op
		if got := fmt.Sprintf("%q-%q", op.KeyBytes(), op.RangeBytes()); got != tt.want || op.Rev() != 5 || !op.IsPrevKV() {
			t.Errorf("prefix %q, watch %q: got %s at %d, want %s", tt.prefix, tt.key, got, op.Rev(), tt.want)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestEventsAreTranslatedAndNotChanged(t *testing.T) {
	event := func(prefix string) *clientv3.Event {
		return full(&clientv3.Event{}, func(e *clientv3.Event) {
			e.Kv, e.PrevKv = pair(prefix+"a"), pair(prefix+"a")
		})
	}
	inner := &stub.Watcher{}
	w := NewWatcher(inner, "p/")
	defer w.Close()
	ch := w.Watch(t.Context(), "a")
	shared := event("p/")
	in := clientv3.WatchResponse{
		Header: &pb.ResponseHeader{Revision: 3}, Events: []*clientv3.Event{shared, {Kv: pair("p/a")}}, CompactRevision: 7,
		Canceled: true, Created: true, CancelReason: "why",
	}
	inner.Watches()[0].Ch <- in
	out := <-ch
	if len(out.Events) != 2 || !proto.Equal(out.Events[0], event("")) || string(out.Events[1].Kv.Key) != "a" ||
		out.Events[1].PrevKv != nil {
		t.Errorf("events %v", out.Events)
	}
	if !proto.Equal(shared, event("p/")) {
		t.Errorf("the event was changed: %v", shared)
	}
	if out.Err() == nil || out.Err().Error() != in.Err().Error() || out.Header.Revision != 3 || !out.Created ||
		out.CancelReason != "why" {
		t.Errorf("response %+v", out)
	}
	if err := w.RequestProgress(t.Context()); err != nil || inner.Requests() != 1 {
		t.Errorf("progress: %d requests, %v", inner.Requests(), err)
	}
}

// A reader that does not read is told of the end once it does, and holds up neither Close nor its own context.
func TestWatchesEndWithoutTheirReader(t *testing.T) {
	resp := func(rev int64) clientv3.WatchResponse {
		return clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: rev}}
	}
	synctest.Test(t, func(t *testing.T) {
		inner := &stub.Watcher{}
		w := NewWatcher(inner, "p/")
		ctx, cancel := context.WithCancel(t.Context())
		left, kept := w.Watch(ctx, "a"), w.Watch(t.Context(), "b")
		for _, watch := range inner.Watches() {
			for rev := range int64(3) { // one for the channel, one in hand, one in the inner channel
				watch.Ch <- resp(rev)
				synctest.Wait()
			}
		}
		cancel()
		synctest.Wait()
		if r := <-left; r.Header.Revision != 0 {
			t.Errorf("unread response %v", r)
		}
		if r, ok := <-left; ok {
			t.Errorf("after the end of the context: %v", r)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if r := <-kept; !r.Canceled || r.Err() == nil {
			t.Errorf("after Close: %v", r)
		}
		if r, ok := <-kept; ok {
			t.Errorf("after the last response: %v", r)
		}
		late := w.Watch(t.Context(), "c")
		if r, ok := <-late; ok {
			t.Errorf("watch on a closed Watcher: %v", r)
		}
		if err := w.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}
