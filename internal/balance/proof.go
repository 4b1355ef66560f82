package balance

import (
	"context"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

// proof is whether the cluster has proved that it has a leader since a connection to one of its members was lost: that
// member may have led it. Until the others have elected another, which takes them a second or two, they forward writes to
// it, where they are lost, and their callers do not learn that before their deadlines.
type proof struct {
	due atomic.Bool // written under the Set's mu

	// Guarded by the Set's mu.
	lost   uint64             // counts the connections that were lost
	given  chan struct{}      // closed when the proof in progress is given, or given up; nil if none is in progress
	giveUp context.CancelFunc // ends the proof in progress
}

// Agree makes a linearizable read on the stub, which takes the agreement of the members. It returns nil if that was not
// what was missing: the read was answered, or refused, say by authentication, which comes after the agreement (server:
// Range).
func Agree(ctx context.Context, kv pb.KVClient) error {
	_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("leader"), CountOnly: true})
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return err
	}
	return nil
}

// doubtLeader makes the next write wait for the proof that the cluster has a leader, if there are members to have it.
// The caller holds mu.
func (s *Set) doubtLeader() {
	if s.monitor == nil || s.monitor.prove == nil || len(s.endpoints) < 2 {
		return
	}
	s.proof.lost++
	s.proof.due.Store(true)
}

// InDoubt reports whether a connection was lost since the cluster last proved that it has a leader.
func (s *Set) InDoubt() bool { return s.proof.due.Load() }

// AwaitProof returns nil when the cluster has proved that it has a leader, if that is in doubt; when it is known to have
// none, so that no write is forwarded; when no endpoint is connected, or the connection is closed; and the error of ctx
// if that ends first. The proof is made once for all who wait for it, and not before somebody does.
func (s *Set) AwaitProof(ctx context.Context) error {
	for s.proof.due.Load() {
		s.mu.Lock()
		given := s.startProof()
		s.mu.Unlock()
		if given == nil {
			return nil
		}
		select {
		case <-given:
		case <-s.closed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// startProof returns what is closed when the proof in progress is, which it starts if there is none; or nil if there is
// nothing to wait for. The caller holds mu.
func (s *Set) startProof() chan struct{} {
	if !s.proof.due.Load() || s.monitor.closed || !s.provable() {
		return nil
	}
	if s.proof.given == nil {
		s.proof.given = make(chan struct{})
		ctx, giveUp := context.WithCancel(s.monitor.ctx)
		s.proof.giveUp = giveUp
		lost := s.proof.lost
		s.monitor.tasks.Go(func() { s.makeProof(ctx, lost) })
	}
	return s.proof.given
}

// makeProof asks for the proof once. A connection that is lost meanwhile makes it worthless.
func (s *Set) makeProof(ctx context.Context, lost uint64) {
	err := s.monitor.prove(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && lost == s.proof.lost {
		s.proof.due.Store(false)
	}
	s.proof.giveUp()
	close(s.proof.given)
	s.proof.given = nil
}

// provable reports whether somebody is connected who may have a leader. The caller holds mu.
func (s *Set) provable() bool {
	for _, e := range s.endpoints {
		if e.state == connectivity.Ready && e.watch.refusal == "" {
			return true
		}
	}
	return false
}

// reviewProof gives the proof in progress up when there is nobody left to give it. It is called when an endpoint refuses
// or its connection changes. The caller holds mu.
func (s *Set) reviewProof() {
	if s.proof.given != nil && !s.provable() {
		s.proof.giveUp()
	}
}
