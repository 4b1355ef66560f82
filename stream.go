package clientv3

import (
	"context"
	"io"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3/internal/balance"
)

// streamInterceptor returns the interceptor of every stream on a connection to the set. It gives streams the metadata of
// every call, counts their messages as signs of life, leads those of watches and renewals away from endpoints on which
// the ones before them have ended, and ends them when they are to move. It does not retry: what streams belong to knows
// how to go on.
func (c *Client) streamInterceptor(set *balance.Set) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer,
		opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		trail := c.trails[method]
		call := balance.CallFrom(ctx)
		if call == nil {
			// A watch is on a member with a leader while there is one: the others see nothing. The server ends the
			// stream when the member has lost it.
			watch := method == pb.Watch_Watch_FullMethodName && set.HasLeader()
			call = c.newCall(ctx, set, watch)
			ctx = call
		}
		s := &stream{set: set, trail: trail, call: call}
		if trail != nil {
			trail.Lead(call)
			ctx, s.cancel = context.WithCancel(ctx)
			call.OnLeave(s.leave)
		}
		var err error
		if s.ClientStream, err = streamer(ctx, desc, conn, method, opts...); err != nil {
			return nil, s.ended(err)
		}
		return s, nil
	}
}

// stream is a stream that tells how it fares.
type stream struct {
	grpc.ClientStream
	set     *balance.Set
	trail   *balance.Trail // nil for streams that are not meant to last; the following is of those that are
	call    *balance.Call
	cancel  context.CancelFunc
	left    atomic.Pointer[string] // why it is to move
	working bool                   // a message was received; RecvMsg's only, which is not called concurrently
}

// leave ends the stream, whose owner takes that for the loss of the connection.
func (s *stream) leave(reason string) {
	s.left.CompareAndSwap(nil, &reason)
	s.cancel()
}

func (s *stream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return s.ended(err)
	}
	s.call.Progress()
	if s.trail != nil && !s.working {
		s.working = true
		s.trail.Working()
	}
	return nil
}

func (s *stream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	if err != nil && s.left.Load() != nil {
		return io.EOF // as of any stream that has ended
	}
	return err
}

// ended notes the end of the stream and returns its error.
func (s *stream) ended(err error) error {
	if s.trail == nil {
		return err
	}
	s.cancel()
	s.trail.Ended(s.call)
	s.set.Refused(s.call, err)
	if reason := s.left.Load(); reason != nil {
		return status.Error(codes.Unavailable, "etcdclient: stream moved from "+s.call.String()+": "+*reason)
	}
	return err
}
