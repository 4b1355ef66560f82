package coalesce

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
)

// store is a model of etcd's: all of its revisions.
type store struct {
	states []map[string]*mvccpb.KeyValue // by revision
}

func newStore() *store {
	return &store{states: []map[string]*mvccpb.KeyValue{{}, {}}} // an empty etcd is at revision 1
}

func (s *store) revision() int64 { return int64(len(s.states) - 1) }

func (s *store) header() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1, MemberId: 2, RaftTerm: 3, Revision: s.revision()}
}

func (s *store) begin() map[string]*mvccpb.KeyValue { return maps.Clone(s.states[s.revision()]) }

// commit makes a new revision, unless nothing was written.
func (s *store) commit(state map[string]*mvccpb.KeyValue, written bool) {
	if written {
		s.states = append(s.states, state)
	}
}

// do carries out an operation that comes by itself.
func (s *store) do(op clientv3.Op) clientv3.OpResponse {
	state := s.begin()
	resp, written := execute(state, op, s.revision()+1)
	s.commit(state, written)
	switch {
	case op.IsGet():
		resp.Get().Header = s.header()
	case op.IsPut():
		resp.Put().Header = s.header()
	default:
		resp.Del().Header = s.header()
	}
	return resp
}

// txn carries out operations in one transaction.
func (s *store) txn(ops []clientv3.Op) clientv3.OpResponse {
	state := s.begin()
	txn := &pb.TxnResponse{Succeeded: true}
	changed := false
	for _, op := range ops {
		resp, written := execute(state, op, s.revision()+1)
		changed = changed || written
		header := &pb.ResponseHeader{Revision: s.revision()}
		if changed {
			header.Revision++
		}
		r := &pb.ResponseOp{}
		switch {
		case op.IsGet():
			resp.Get().Header = header
			r.Response = &pb.ResponseOp_ResponseRange{ResponseRange: (*pb.RangeResponse)(resp.Get())}
		case op.IsPut():
			resp.Put().Header = header
			r.Response = &pb.ResponseOp_ResponsePut{ResponsePut: (*pb.PutResponse)(resp.Put())}
		default:
			resp.Del().Header = header
			r.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: (*pb.DeleteRangeResponse)(resp.Del())}
		}
		txn.Responses = append(txn.Responses, r)
	}
	s.commit(state, changed)
	txn.Header = s.header()
	return (*clientv3.TxnResponse)(txn).OpResponse()
}

// execute carries out an operation on a state, at a revision if it writes, and reports whether it has.
func execute(state map[string]*mvccpb.KeyValue, op clientv3.Op, revision int64) (clientv3.OpResponse, bool) {
	key := string(op.KeyBytes())
	switch {
	case op.IsGet():
		resp := &clientv3.GetResponse{}
		for _, k := range within(state, op) {
			resp.Count++
			switch {
			case op.IsCountOnly():
			case op.Limit() > 0 && int64(len(resp.Kvs)) == op.Limit():
				resp.More = true
			default:
				kv := proto.Clone(state[k]).(*mvccpb.KeyValue)
				if op.IsKeysOnly() {
					kv.Value = nil
				}
				resp.Kvs = append(resp.Kvs, kv)
			}
		}
		return resp.OpResponse(), false
	case op.IsPut():
		resp := &clientv3.PutResponse{}
		kv := &mvccpb.KeyValue{Key: op.KeyBytes(), Value: op.ValueBytes(), CreateRevision: revision, ModRevision: revision}
		if before := state[key]; before != nil {
			kv.CreateRevision, kv.Version = before.CreateRevision, before.Version
			if op.IsPrevKV() {
				resp.PrevKv = before
			}
		}
		kv.Version++
		state[key] = kv
		return resp.OpResponse(), true
	default:
		resp := &clientv3.DeleteResponse{}
		for _, k := range within(state, op) {
			resp.Deleted++
			if op.IsPrevKV() {
				resp.PrevKvs = append(resp.PrevKvs, state[k])
			}
			delete(state, k)
		}
		return resp.OpResponse(), resp.Deleted > 0
	}
}

// within returns the keys of an operation that exist.
func within(state map[string]*mvccpb.KeyValue, op clientv3.Op) []string {
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(state)) {
		if k == string(op.KeyBytes()) || op.RangeBytes() != nil && k >= string(op.KeyBytes()) && k < string(op.RangeBytes()) {
			keys = append(keys, k)
		}
	}
	return keys
}

// server is a KV on a store which holds every request until the test decides about it.
type server struct {
	clientv3.KV // nil: nothing else is asked for

	mu    sync.Mutex
	store *store
	open  []*request
	total int
	deaf  bool // it does not notice that a context has ended
}

func newServer() *server { return &server{store: newStore()} }

// request is one that waits.
type request struct {
	s      *server
	ctx    context.Context
	ops    []clientv3.Op
	txn    bool
	answer chan func() (clientv3.OpResponse, error)
}

func (s *server) request(ctx context.Context, txn bool, ops ...clientv3.Op) (clientv3.OpResponse, error) {
	r := &request{s: s, ctx: ctx, ops: slices.Clone(ops), txn: txn, answer: make(chan func() (clientv3.OpResponse, error), 1)}
	s.mu.Lock()
	s.open = append(s.open, r)
	s.total++
	if s.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	s.mu.Unlock()
	select {
	case answer := <-r.answer:
		return answer()
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open = slices.DeleteFunc(s.open, func(o *request) bool { return o == r })
		return clientv3.OpResponse{}, ctx.Err()
	}
}

func (s *server) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	return s.request(ctx, false, op)
}

func (s *server) Txn(ctx context.Context) clientv3.Txn { return &txn{s: s, ctx: ctx} }

type txn struct {
	clientv3.Txn
	s   *server
	ctx context.Context
	ops []clientv3.Op
}

func (t *txn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.ops = ops
	return t
}

func (t *txn) Commit() (*clientv3.TxnResponse, error) {
	resp, err := t.s.request(t.ctx, true, t.ops...)
	return resp.Txn(), err
}

// pending waits until nothing moves and returns the requests that are under way, in the order in which they came.
func (s *server) pending() []*request {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.open)
}

// only returns the one request that is under way.
func (s *server) only(t *testing.T) *request {
	t.Helper()
	requests := s.pending()
	if len(requests) != 1 {
		t.Fatalf("%d requests under way, want 1", len(requests))
	}
	return requests[0]
}

// requests returns how many requests there have been.
func (s *server) requests() int {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

func (r *request) end(answer func() (clientv3.OpResponse, error)) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.open = slices.DeleteFunc(r.s.open, func(o *request) bool { return o == r })
	r.answer <- answer
}

// succeed carries the request out.
func (r *request) succeed() {
	r.s.mu.Lock()
	var resp clientv3.OpResponse
	if r.txn {
		resp = r.s.store.txn(r.ops)
	} else {
		resp = r.s.store.do(r.ops[0])
	}
	r.s.mu.Unlock()
	r.end(func() (clientv3.OpResponse, error) { return resp, nil })
}

func (r *request) fail(err error) {
	r.end(func() (clientv3.OpResponse, error) { return clientv3.OpResponse{}, err })
}

// keys returns the keys of the request's operations.
func (r *request) keys() string {
	all := ""
	for _, op := range r.ops {
		all += string(op.KeyBytes())
	}
	return all
}

// drain lets all requests succeed until there are none.
func (s *server) drain() {
	for requests := s.pending(); len(requests) > 0; requests = s.pending() {
		for _, r := range requests {
			r.succeed()
		}
	}
}

// result is what a caller is told.
type result struct {
	resp clientv3.OpResponse
	err  error
}

// calling is a call that runs.
type calling struct {
	done   chan struct{}
	cancel context.CancelFunc
	result
}

// begin makes a call in a goroutine of its own, under a context that can be cancelled.
func begin(ctx context.Context, do func(context.Context) (clientv3.OpResponse, error)) *calling {
	ctx, cancel := context.WithCancel(ctx)
	c := &calling{done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(c.done)
		defer cancel()
		c.resp, c.err = do(ctx)
	}()
	synctest.Wait()
	return c
}

// ended waits until nothing moves and reports whether the call has returned.
func (c *calling) ended() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// get makes a get through kv.
func get(ctx context.Context, kv clientv3.KV, key string, opts ...clientv3.OpOption) *calling {
	return begin(ctx, func(ctx context.Context) (clientv3.OpResponse, error) {
		resp, err := kv.Get(ctx, key, opts...)
		if err != nil {
			return clientv3.OpResponse{}, err
		}
		return resp.OpResponse(), nil
	})
}

// put makes a put through w.
func put(ctx context.Context, w *Writer, key, val string, opts ...clientv3.OpOption) *calling {
	return begin(ctx, func(ctx context.Context) (clientv3.OpResponse, error) {
		resp, err := w.Put(ctx, key, val, opts...)
		if err != nil {
			return clientv3.OpResponse{}, err
		}
		return resp.OpResponse(), nil
	})
}

// del makes a deletion through w.
func del(ctx context.Context, w *Writer, key string, opts ...clientv3.OpOption) *calling {
	return begin(ctx, func(ctx context.Context) (clientv3.OpResponse, error) {
		resp, err := w.Delete(ctx, key, opts...)
		if err != nil {
			return clientv3.OpResponse{}, err
		}
		return resp.OpResponse(), nil
	})
}
