package main

import (
	"context"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

func TestFloodHasARevisionForEachEvent(t *testing.T) {
	template, err := newEventTemplate(7)
	if err != nil {
		t.Fatal(err)
	}
	const first = firstRevision + 12_345
	var resp pb.WatchResponse
	if err := proto.Unmarshal(template.from(first), &resp); err != nil {
		t.Fatal(err)
	}
	if resp.WatchId != 7 || len(resp.Events) != eventsPerResponse {
		t.Fatalf("watch %d, %d events", resp.WatchId, len(resp.Events))
	}
	for i, ev := range resp.Events {
		if got := ev.Kv.ModRevision; got != first+int64(i) || len(ev.Kv.Value) != valueSize {
			t.Fatalf("event %d: revision %d, value of %d bytes", i, got, len(ev.Kv.Value))
		}
	}
}

// A watch that has been cancelled gets no more events, and does not hold up others of the stream.
func TestNullServerServesManyWatchesOnAStream(t *testing.T) {
	endpoint, stop, err := startNullServer(context.Background()) // it is stopped below
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c, err := newStub(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stream, err := c.watch.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send := func(req *pb.WatchRequest) {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
	}
	create := func(key string, id int64) {
		t.Helper()
		send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
			CreateRequest: &pb.WatchCreateRequest{Key: []byte(key), WatchId: id},
		}})
	}
	await := func(what string, is func(*pb.WatchResponse) bool) {
		t.Helper()
		for {
			resp, err := stream.Recv()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if is(resp) {
				return
			}
		}
	}
	create(floodPrefix, 5)
	await("events", func(r *pb.WatchResponse) bool { return r.WatchId == 5 && len(r.Events) > 0 })
	create("idle", 9)
	await("the second watch", func(r *pb.WatchResponse) bool { return r.WatchId == 9 && r.Created })
	send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: 5}}})
	await("the end of the first", func(r *pb.WatchResponse) bool { return r.WatchId == 5 && r.Canceled })
	create("idle", 11)
	await("the third watch", func(r *pb.WatchResponse) bool {
		if len(r.Events) > 0 {
			t.Error("events of a watch that has been cancelled")
		}
		return r.WatchId == 11 && r.Created
	})
}
