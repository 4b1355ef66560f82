package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// nullWatches are the watches of one stream.
type nullWatches struct {
	stream grpc.ServerStream
	sends  sync.Mutex // a stream has one sender at a time
	nextID int64
	floods map[int64]func() // what ends each, and waits until it has sent its last event
	wg     sync.WaitGroup
}

// serveWatches accepts any number of watches on the stream. Those of floodPrefix get events as fast as they are taken,
// the others none.
func serveWatches(stream grpc.ServerStream) error {
	w := &nullWatches{stream: stream, floods: make(map[int64]func())}
	defer w.wg.Wait()
	for {
		var b []byte
		if err := stream.RecvMsg(&b); err != nil {
			return ignoreEOF(err)
		}
		var req pb.WatchRequest
		if err := proto.Unmarshal(b, &req); err != nil {
			return err
		}
		if create := req.GetCreateRequest(); create != nil {
			if err := w.create(create); err != nil {
				return err
			}
		}
		if cancel := req.GetCancelRequest(); cancel != nil {
			if err := w.cancel(cancel.WatchId); err != nil {
				return err
			}
		}
	}
}

func (w *nullWatches) create(req *pb.WatchCreateRequest) error {
	id := req.WatchId
	if id == 0 {
		id = w.nextID
		w.nextID++
	}
	if err := w.send(&pb.WatchResponse{Header: preparedHeader, WatchId: id, Created: true}); err != nil {
		return err
	}
	if !strings.HasPrefix(string(req.Key), floodPrefix) {
		return nil
	}
	template, err := newEventTemplate(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(w.stream.Context())
	ended := make(chan struct{})
	w.floods[id] = func() { cancel(); <-ended }
	w.wg.Go(func() {
		defer cancel()
		defer close(ended)
		for first := int64(firstRevision); ctx.Err() == nil; first += eventsPerResponse {
			if w.sendRaw(template.from(first)) != nil {
				return // the receiving side sees the stream's end, too
			}
		}
	})
	return nil
}

func (w *nullWatches) cancel(id int64) error {
	if stop, ok := w.floods[id]; ok {
		stop()
		delete(w.floods, id)
	}
	return w.send(&pb.WatchResponse{Header: preparedHeader, WatchId: id, Canceled: true})
}

func (w *nullWatches) send(resp *pb.WatchResponse) error {
	b, err := proto.Marshal(resp)
	if err != nil {
		return err
	}
	return w.sendRaw(b)
}

func (w *nullWatches) sendRaw(b []byte) error {
	w.sends.Lock()
	defer w.sends.Unlock()
	return w.stream.SendMsg(b)
}

// eventTemplate is an encoded response of eventsPerResponse events, each of a revision of its own.
type eventTemplate struct {
	encoded   []byte
	revisions []int // where the events' revisions are
}

// firstRevision is so high that all revisions of a run are encoded in the same number of bytes.
const firstRevision = 1 << 36

func newEventTemplate(watchID int64) (*eventTemplate, error) {
	resp := &pb.WatchResponse{Header: preparedHeader, WatchId: watchID}
	for i := range eventsPerResponse {
		kv := preparedKV(i, valueSize)
		kv.ModRevision = firstRevision + int64(i)
		resp.Events = append(resp.Events, &mvccpb.Event{Kv: kv})
	}
	encoded, err := proto.Marshal(resp)
	if err != nil {
		return nil, err
	}
	t := &eventTemplate{encoded: encoded}
	for i := range eventsPerResponse {
		at := bytes.Index(encoded, modRevision(firstRevision+int64(i)))
		if at < 0 {
			return nil, fmt.Errorf("no revision of event %d in the template", i)
		}
		t.revisions = append(t.revisions, at)
	}
	return t, nil
}

// from returns a response whose first event has that revision. It is a copy, since gRPC has not written the last one yet.
func (t *eventTemplate) from(first int64) []byte {
	b := bytes.Clone(t.encoded)
	for i, at := range t.revisions {
		copy(b[at:], modRevision(first+int64(i)))
	}
	return b
}

// modRevision is the field of an event's key-value with that revision, encoded.
func modRevision(revision int64) []byte {
	b := protowire.AppendTag(make([]byte, 0, 8), 3, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(revision))
}

// grant grants a lease whose id tells the TTL, so that nothing need be kept for its renewal.
func (s *nullServer) grant(stream grpc.ServerStream, req []byte) error {
	var r pb.LeaseGrantRequest
	if err := proto.Unmarshal(req, &r); err != nil {
		return err
	}
	s.mu.Lock()
	s.leases++
	id := s.leases<<ttlBits | r.TTL
	s.mu.Unlock()
	b, err := proto.Marshal(&pb.LeaseGrantResponse{Header: preparedHeader, ID: id, TTL: r.TTL})
	if err != nil {
		return err
	}
	return stream.SendMsg(b)
}

const ttlBits = 20

func serveRenewals(stream grpc.ServerStream) error {
	for {
		var req []byte
		if err := stream.RecvMsg(&req); err != nil {
			return ignoreEOF(err)
		}
		var r pb.LeaseKeepAliveRequest
		if err := proto.Unmarshal(req, &r); err != nil {
			return err
		}
		b, err := proto.Marshal(&pb.LeaseKeepAliveResponse{Header: preparedHeader, ID: r.ID, TTL: r.ID & (1<<ttlBits - 1)})
		if err != nil {
			return err
		}
		if err := stream.SendMsg(b); err != nil {
			return err
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
