package renew

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3/internal/retry"
)

// ErrStalled is why a stream ended that the engine dropped, since it was not open or had no answer in time.
var ErrStalled = errors.New("renew: no answer to lease renewals in time")

// stream is one LeaseKeepAlive call, from the backoff before it to its end.
type stream struct {
	engine   *Engine
	ctx      context.Context
	cancel   context.CancelFunc
	delay    time.Duration // before it is opened
	newToken bool          // and a token fetched
	attempt  int
	previous error
	more     chan struct{} // capacity 1: outbox is not empty

	// Guarded by Engine.mu.
	open     bool
	openBy   time.Duration
	progress time.Duration // when the last response came
	newest   uint64        // highest lease.order that was answered
	outbox   []int64       // leases to be sent; at most as many as there may be in flight
}

// openStream starts a stream.
func (e *Engine) openStream(now time.Duration) {
	s := &stream{
		engine:   e,
		newToken: e.newToken,
		attempt:  e.attempts,
		previous: e.previous,
		more:     make(chan struct{}, 1),
	}
	if e.attempts > 0 {
		s.delay = streamBackoff.Delay(e.attempts - 1)
	}
	s.openBy = now + s.delay + openTimeout<<min(e.attempts, maxOpenShift)
	s.ctx, s.cancel = context.WithCancel(e.ctx)
	e.stream = s
	e.window = startWindow
	e.tasks.Go(s.run)
}

// drop ends the stream, if it has not ended by itself, and makes what was in flight ready again.
func (e *Engine) drop(now time.Duration, cause error) {
	e.stream.cancel()
	e.stream = nil
	e.attempts++
	e.lastError, e.previous = cause, cause
	e.paced = true
	if e.cfg.Reauthenticate != nil && staleToken(cause) {
		e.newToken = true
	}
	flight := e.flight.drain()
	level := zap.DebugLevel
	if e.attempts == 1 && len(flight) > 0 {
		level = zap.InfoLevel
	}
	e.log.Log(level, "lease keepalive stream ended",
		zap.Int("unanswered", len(flight)), zap.Int("attempts", e.attempts), zap.Error(cause))
	var oldest *lease
	for _, l := range flight {
		if oldest == nil || l.order < oldest.order {
			oldest = l
		}
	}
	if oldest != nil {
		oldest.blame(cause)
	}
	for _, l := range flight {
		switch {
		case l.callers == nil:
			e.forget(l)
		case l == oldest && l.faults >= heldFaults:
			// Not too late for another try, however little of its time is left.
			wait := min(holdBackoff.Ceiling(int(l.faults-heldFaults)), max(holdBackoff.Base, (l.expires-now)/2))
			e.idle.put(l, min(now+wait, l.expires))
		default:
			e.makeReady(l)
		}
	}
	if rpctypes.Error(cause) == rpctypes.ErrNoLeader {
		e.refused()
	}
}

// run opens the stream and works on it until it ends.
func (s *stream) run() {
	defer s.cancel()
	err := s.serve()
	e := s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stream == s {
		now := e.now()
		e.drop(now, err)
		e.wakeBy(now)
	}
}

// serve does the work of run. It returns why the stream ended.
func (s *stream) serve() error {
	e := s.engine
	if err := retry.Sleep(s.ctx, s.delay); err != nil {
		return err
	}
	if s.newToken {
		if err := e.cfg.Reauthenticate(s.ctx); err != nil {
			return err
		}
		e.mu.Lock()
		e.newToken = false
		e.mu.Unlock()
	}
	ctx := s.ctx
	if e.cfg.StreamContext != nil {
		ctx = e.cfg.StreamContext(ctx, s.attempt, s.previous)
	}
	rpc, err := e.cfg.Client.LeaseKeepAlive(ctx, e.cfg.CallOptions...)
	if err != nil {
		return err
	}
	s.opened()
	var sender sync.WaitGroup
	var sendErr error
	sender.Go(func() {
		sendErr = s.send(rpc)
		if errors.Is(sendErr, io.EOF) || s.ctx.Err() != nil {
			sendErr = nil // the stream has ended, and receive knows why
		} else if sendErr != nil {
			s.cancel() // so that receive returns
		}
	})
	err = s.receive(rpc)
	s.cancel()
	sender.Wait()
	if sendErr != nil {
		return sendErr
	}
	return err
}

// opened lets run send.
func (s *stream) opened() {
	e := s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stream != s {
		return
	}
	now := e.now()
	s.open, s.progress = true, now
	e.wakeBy(now)
}

// receive handles responses until the stream ends, and returns why it has.
func (s *stream) receive(rpc pb.Lease_LeaseKeepAliveClient) error {
	for {
		resp, err := rpc.Recv()
		if err != nil {
			return err
		}
		s.engine.answer(s, resp)
	}
}

// send sends what step has put in the outbox, until Send fails, or the stream's context ends.
func (s *stream) send(rpc pb.Lease_LeaseKeepAliveClient) error {
	var ids []int64
	for {
		select {
		case <-s.more:
		case <-s.ctx.Done():
			return nil
		}
		s.engine.mu.Lock()
		ids, s.outbox = s.outbox, ids[:0]
		s.engine.mu.Unlock()
		// Not reused, since statistics handlers may look at messages after Send has returned.
		requests := make([]pb.LeaseKeepAliveRequest, len(ids))
		for i, id := range ids {
			requests[i].ID = id
			if err := rpc.Send(&requests[i]); err != nil {
				return err
			}
		}
	}
}

// staleToken tells whether a server refused the call's auth token, or its absence. ErrUserEmpty is what it says to a
// call without one, made before authentication was enabled.
func staleToken(err error) bool {
	switch rpctypes.Error(err) {
	case rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision, rpctypes.ErrUserEmpty:
		return true
	}
	return code(err) == codes.Unauthenticated
}

// code returns the error's gRPC code. A stream that the server ended without an error has codes.OK.
func code(err error) codes.Code {
	if errors.Is(err, io.EOF) {
		return codes.OK
	}
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}
