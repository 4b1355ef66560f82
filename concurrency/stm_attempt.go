package concurrency

import (
	"context"
	"errors"
	"runtime"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	v3 "github.com/seed-d18e112a/clientv3"
)

// How long the waits between the attempts of a transaction are that was in conflict with others. The first further
// attempt is made at once, with what was read in the instant of the conflict.
const (
	firstConflictPause = 2 * time.Millisecond
	maxConflictPause   = 250 * time.Millisecond
)

// attempts are the attempts at one transaction.
type attempts struct {
	client  *v3.Client
	options stmOptions

	// What the next attempt will probably read: that is read beforehand in one request, so that as little time as
	// possible lies between the reads and the commit. It is in the cache already if the last commit has read it.
	spans []span
	cache readSet
}

// try makes the n-th attempt, counted from 0. It returns neither a response nor an error if there is to be another one.
func (t *attempts) try(apply func(STM) error, n int) (*v3.TxnResponse, error) {
	if n > 1 {
		if err := sleep(t.options.ctx, jitter(firstConflictPause, maxConflictPause, n-2)); err != nil {
			return nil, err
		}
	}
	s := &stm{client: t.client, ctx: t.options.ctx, level: t.options.level, again: n > 0}
	if t.cache.rev != 0 {
		s.cache = t.cache
	} else {
		s.prefetch = t.spans
	}
	t.cache = readSet{}
	if err := s.run(apply); err != nil {
		if s.stale {
			return nil, nil
		}
		return nil, err
	}
	t.spans = s.reads.spans()
	conflicts := s.conflicts()
	txn := s.client.Txn(s.ctx).If(conflicts...).Then(s.writes.ops()...)
	if n == 0 && len(conflicts) > 0 {
		txn = txn.Else(getOps(t.spans, nil)...)
	}
	resp, err := txn.Commit()
	switch {
	case err != nil:
		return nil, err
	case resp.Succeeded:
		return resp, nil
	}
	for i, r := range resp.Responses {
		t.cache.add(t.spans[i], r.GetResponseRange().GetKvs(), resp.Header.GetRevision())
	}
	return nil, nil
}

// getOps returns the operations that read spans.
func getOps(spans []span, opts []v3.OpOption) []v3.Op {
	ops := make([]v3.Op, len(spans))
	for i, sp := range spans {
		ops[i] = sp.get(opts)
	}
	return ops
}

// stm is one attempt at a transaction.
type stm struct {
	client   *v3.Client
	ctx      context.Context // the transaction's, as that of every Txn
	level    Isolation
	again    bool   // it is not the first attempt
	prefetch []span // what is to be read beforehand

	cache  readSet // what was read beforehand; it counts as read only when apply asks for it
	reads  readSet
	writes writeSet

	err   error // why the attempt was aborted
	stale bool  // because it read as of a revision that is compacted
}

func (s *stm) sealed() {}

// run runs apply to its end, however it ends, and returns its error, or that for which the attempt was aborted.
//
// An attempt is aborted from inside a call of apply's, which cannot return then. runtime.Goexit ends apply without a
// panic: its deferred calls are made, and none of them can take the abort for something to recover from. That takes a
// goroutine.
func (s *stm) run(apply func(STM) error) (err error) {
	var (
		returned bool
		panicked any
		done     = make(chan struct{})
	)
	go func() {
		defer close(done)
		defer func() {
			if !returned {
				panicked = recover()
			}
		}()
		s.read(&s.cache, s.prefetch)
		err = apply(s)
		returned = true
	}()
	<-done
	switch {
	case panicked != nil:
		panic(panicked)
	case s.err != nil:
		return s.err
	case !returned:
		runtime.Goexit() // as apply did, for instance by testing.T.FailNow
	}
	return err
}

// abort ends the attempt. It does not return.
func (s *stm) abort(err error) {
	s.err = err
	runtime.Goexit()
}

func (s *stm) Get(keys ...string) string {
	if len(keys) == 0 {
		return ""
	}
	var unknown []span
	for _, key := range keys {
		if _, written := s.writes.get(key); !written && !s.known(key) {
			unknown = append(unknown, span{key: key})
		}
	}
	s.read(&s.reads, unknown)
	if val, written := s.writes.get(keys[0]); written {
		return val
	}
	kv, _ := s.reads.get(keys[0])
	return string(kv.GetValue())
}

func (s *stm) Rev(key string) int64 {
	if !s.known(key) {
		s.read(&s.reads, []span{{key: key}})
	}
	kv, _ := s.reads.get(key)
	return kv.GetModRevision()
}

func (s *stm) Put(key, val string, opts ...v3.OpOption) {
	s.writes.put(key, val, v3.OpPut(key, val, opts...))
}

func (s *stm) Del(key string) { s.writes.del(span{key: key}) }

func (s *stm) DelRange(key, end string) { s.writes.del(newSpan(key, end)) }

func (s *stm) GetRange(key, end string) []*mvccpb.KeyValue {
	sp := newSpan(key, end)
	if sp.empty() {
		return nil
	}
	kvs, ok := s.reads.within(sp)
	if !ok {
		if cached, ok := s.cache.exactly(sp); ok {
			s.reads.add(sp, cached, s.cache.rev)
		} else {
			s.read(&s.reads, []span{sp})
		}
		kvs, _ = s.reads.within(sp)
	}
	return s.writes.overlay(sp, kvs)
}

// known reports whether the key is read already. One that was read beforehand counts as read from now on.
func (s *stm) known(key string) bool {
	if _, ok := s.reads.get(key); ok {
		return true
	}
	kv, ok := s.cache.get(key)
	if ok {
		s.reads.addKey(key, kv, s.cache.rev)
	}
	return ok
}

// snapshot is the revision that an attempt reads as of, at the levels where there is one: that of its first read. It is
// 0 before.
func (s *stm) snapshot() int64 {
	if s.level > Serializable {
		return 0
	}
	return max(s.cache.rev, s.reads.rev)
}

// read reads spans from the cluster into a set, or aborts.
func (s *stm) read(into *readSet, spans []span) {
	if len(spans) == 0 {
		return
	}
	resps, rev, err := s.request(spans)
	switch {
	case err == nil:
	case s.snapshot() != 0 && errors.Is(err, rpctypes.ErrCompacted):
		s.stale = true // a new attempt reads as of a new revision
		fallthrough
	default:
		s.abort(err)
	}
	for i, sp := range spans {
		into.add(sp, resps[i].GetKvs(), rev)
	}
}

// request reads spans from the cluster, and returns the revision that the result is of.
//
// Reads as of the attempt's snapshot, and those at the weaker levels, need not be linearizable: what is read is
// compared at the commit, or may be out of date. So any member can answer from its own state, if that has come to the
// snapshot. But after a conflict an old state would only make for the next one.
func (s *stm) request(spans []span) ([]*pb.RangeResponse, int64, error) {
	rev := s.snapshot()
	if rev == 0 && (s.level <= Serializable || s.again) {
		return s.get(spans, nil)
	}
	var opts []v3.OpOption
	if rev != 0 {
		opts = append(opts, v3.WithRev(rev))
	}
	resps, found, err := s.get(spans, append(opts, v3.WithSerializable()))
	if errors.Is(err, rpctypes.ErrFutureRev) {
		resps, found, err = s.get(spans, opts)
	}
	if rev != 0 {
		found = rev // the member was further on
	}
	return resps, found, err
}

// get reads spans in one request, and returns the revision that the member was at.
func (s *stm) get(spans []span, opts []v3.OpOption) ([]*pb.RangeResponse, int64, error) {
	if len(spans) == 1 {
		resp, err := s.client.Do(s.ctx, spans[0].get(opts))
		if err != nil {
			return nil, 0, err
		}
		return []*pb.RangeResponse{(*pb.RangeResponse)(resp.Get())}, resp.Get().Header.GetRevision(), nil
	}
	resp, err := s.client.Txn(s.ctx).Then(getOps(spans, opts)...).Commit()
	if err != nil {
		return nil, 0, err
	}
	resps := make([]*pb.RangeResponse, len(spans))
	for i, r := range resp.Responses {
		resps[i] = r.GetResponseRange()
	}
	return resps, resp.Header.GetRevision(), nil
}

// conflicts returns the comparisons that hold if nothing has changed that the isolation level protects.
func (s *stm) conflicts() []v3.Cmp {
	if s.level == ReadCommitted {
		return nil
	}
	cmps := s.reads.unchanged()
	if s.level == SerializableSnapshot && s.reads.rev != 0 {
		cmps = append(cmps, s.writes.unwritten(s.reads)...)
	}
	return cmps
}
