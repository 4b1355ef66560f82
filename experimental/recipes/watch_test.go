package recipe

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	v3 "github.com/seed-d18e112a/clientv3"
)

const (
	put = mvccpb.Event_PUT
	del = mvccpb.Event_DELETE
)

// watches is a Watcher whose watches deliver what a test says, one watch after the other. The last one stays open.
type watches struct {
	v3.Watcher
	v3.KV
	scripts [][]v3.WatchResponse
	revs    []int64 // at which they were begun
}

func newWatches(t *testing.T, scripts ...[]v3.WatchResponse) (*watches, *v3.Client) {
	t.Helper()
	w := &watches{scripts: scripts}
	c := v3.NewCtxClient(context.Background())
	c.KV, c.Watcher = w, w
	t.Cleanup(func() { _ = c.Close() })
	return w, c
}

func (w *watches) Close() error { return nil }

// Get tells of revision 6.
func (w *watches) Get(context.Context, string, ...v3.OpOption) (*v3.GetResponse, error) {
	return &v3.GetResponse{Header: &pb.ResponseHeader{Revision: 6}}, nil
}

func (w *watches) Watch(ctx context.Context, key string, opts ...v3.OpOption) v3.WatchChan {
	op := v3.OpWatch(key, opts...)
	w.revs = append(w.revs, op.Rev())
	script := w.scripts[len(w.revs)-1]
	ch := make(chan v3.WatchResponse, len(script))
	for _, resp := range script {
		ch <- resp
	}
	if len(w.revs) < len(w.scripts) {
		close(ch)
	} else {
		context.AfterFunc(ctx, func() { close(ch) })
	}
	return ch
}

// events are a response with events of one revision.
func events(rev int64, types ...mvccpb.Event_EventType) v3.WatchResponse {
	var resp v3.WatchResponse
	for _, typ := range types {
		resp.Events = append(resp.Events, &v3.Event{Type: typ, Kv: &mvccpb.KeyValue{ModRevision: rev}})
	}
	return resp
}

// noLeader is the end of a watch whose member has no leader.
func noLeader() v3.WatchResponse {
	return v3.WatchResponse{Canceled: true, CancelReason: rpctypes.ErrNoLeader.Error()}
}

func TestWaitEventsSeesThemInTheirOrder(t *testing.T) {
	for name, c := range map[string]struct {
		rev     int64
		evs     []mvccpb.Event_EventType
		scripts [][]v3.WatchResponse
		want    int64   // the revision of the event
		revs    []int64 // of the watches
	}{
		"first": {
			rev: 3, evs: []mvccpb.Event_EventType{del}, want: 5, revs: []int64{3},
			scripts: [][]v3.WatchResponse{{events(3, put), events(5, put, del)}},
		},
		"one after the other": {
			rev: 3, evs: []mvccpb.Event_EventType{del, put, put}, want: 8, revs: []int64{3},
			scripts: [][]v3.WatchResponse{{events(3, put), events(5, del, del), events(6, put), events(8, put), events(9, put)}},
		},
		"the watch breaks": {
			rev: 3, evs: []mvccpb.Event_EventType{put, del}, want: 7, revs: []int64{3, 3, 5, 5},
			scripts: [][]v3.WatchResponse{{noLeader()}, {events(4, put), noLeader()}, {}, {events(7, del)}},
		},
		"from now": {
			evs: []mvccpb.Event_EventType{put}, want: 8, revs: []int64{7, 7},
			scripts: [][]v3.WatchResponse{{noLeader()}, {events(8, put)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, client := newWatches(t, c.scripts...)
				for _, wait := range []func(*v3.Client, string, int64, []mvccpb.Event_EventType) (*v3.Event, error){
					WaitEvents, WaitPrefixEvents,
				} {
					w.revs = nil
					ev, err := wait(client, "key", c.rev, c.evs)
					if err != nil || ev.Kv.ModRevision != c.want {
						t.Errorf("event %v, %v, want that of %d", ev, err, c.want)
					}
					if len(w.revs) != len(c.revs) {
						t.Fatalf("watches from %v, want %v", w.revs, c.revs)
					}
					for i, rev := range c.revs {
						if w.revs[i] != rev {
							t.Errorf("watches from %v, want %v", w.revs, c.revs)
						}
					}
				}
			})
		})
	}
}

func TestWaitEventsFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, client := newWatches(t, []v3.WatchResponse{{Canceled: true, CompactRevision: 9}}, nil)
		if ev, err := WaitEvents(client, "key", 3, []mvccpb.Event_EventType{put}); !errors.Is(err, rpctypes.ErrCompacted) {
			t.Errorf("compacted: %v, %v", ev, err)
		}
		_, client = newWatches(t, nil)
		done := make(chan error)
		go func() {
			_, err := WaitEvents(client, "key", 3, []mvccpb.Event_EventType{put})
			done <- err
		}()
		synctest.Wait()
		_ = client.Close()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("client closed: %v", err)
		}
		if ev, err := WaitEvents(client, "key", 3, nil); ev != nil || err != nil {
			t.Errorf("nothing to wait for: %v, %v", ev, err)
		}
	})
}

func TestZeroRemoteKV(t *testing.T) {
	var kv EphemeralKV
	if kv.Key() != "" || kv.Value() != "" || kv.Revision() != 0 || kv.Delete() != nil || kv.Put("x") == nil {
		t.Error("it stands for a key")
	}
}
