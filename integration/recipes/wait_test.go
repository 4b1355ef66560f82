package recipes

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	recipe "github.com/seed-d18e112a/clientv3/experimental/recipes"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestWaitEvents(t *testing.T) {
	e := newEnv(t)
	const (
		put = mvccpb.Event_PUT
		del = mvccpb.Event_DELETE
	)
	key := e.prefix + "/e"
	first, err := e.Put(e.ctx, key, "1")
	shared.Must(t, err)
	rev := first.Header.Revision
	for _, op := range []clientv3.Op{
		clientv3.OpPut(key, "2"), clientv3.OpDelete(key), clientv3.OpPut(key, "3"), clientv3.OpPut(e.prefix+"/f", "4"),
	} {
		_, err := e.Do(e.ctx, op)
		shared.Must(t, err)
	}
	for _, c := range []struct {
		evs      []mvccpb.Event_EventType
		want     string
		onPrefix bool
	}{
		{evs: []mvccpb.Event_EventType{put}, want: "1"},
		{evs: []mvccpb.Event_EventType{put, put}, want: "2"},
		{evs: []mvccpb.Event_EventType{del}, want: ""},
		{evs: []mvccpb.Event_EventType{put, del}, want: ""},
		{evs: []mvccpb.Event_EventType{del, put}, want: "3"},
		{evs: []mvccpb.Event_EventType{put, put, put, put}, want: "4", onPrefix: true},
		{evs: []mvccpb.Event_EventType{del, put, put}, want: "4", onPrefix: true},
	} {
		ev, err := recipe.WaitPrefixEvents(e.Client, e.prefix, rev, c.evs)
		if err != nil || string(ev.Kv.Value) != c.want {
			t.Errorf("prefix, %v: %v, %v, want %q", c.evs, ev, err, c.want)
		}
		if c.onPrefix {
			continue
		}
		ev, err = recipe.WaitEvents(e.Client, key, rev, c.evs)
		if err != nil || string(ev.Kv.Value) != c.want {
			t.Errorf("%v: %v, %v, want %q", c.evs, ev, err, c.want)
		}
	}

	cli := shared.ClientFor(t, e.cluster)
	waiting := shared.Background(func() error {
		_, err := recipe.WaitEvents(cli, key, rev, []mvccpb.Event_EventType{put, put, put, put})
		return err
	})
	waits(t, waiting)
	shared.Must(t, cli.Close())
	if err := shared.Result(e.ctx, t, waiting); !errors.Is(err, context.Canceled) {
		t.Errorf("client closed: %v", err)
	}

	_, err = e.Compact(e.ctx, rev+2)
	shared.Must(t, err)
	if _, err := recipe.WaitEvents(e.Client, key, rev, []mvccpb.Event_EventType{put}); err != rpctypes.ErrCompacted { //nolint:errorlint // bare
		t.Errorf("compacted: %v", err)
	}
}
