package clientv3

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

const keepAlive = pb.Lease_LeaseKeepAlive_FullMethodName

// renewals answers every renewal on a stream with the TTL.
func renewals(ttl int64) scripted.Stream {
	return func(call *scripted.Call) error {
		for {
			var req pb.LeaseKeepAliveRequest
			if err := call.Stream.RecvMsg(&req); err != nil {
				return nil
			}
			if err := call.Stream.SendMsg(&pb.LeaseKeepAliveResponse{Header: testHeader, ID: req.ID, TTL: ttl}); err != nil {
				return err
			}
		}
	}
}

func TestGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.handle(pb.Lease_LeaseGrant_FullMethodName,
			scripted.Answer(&pb.LeaseGrantResponse{Header: testHeader, ID: 9, TTL: 6, Error: "said"}))
		for name, tt := range map[string]struct {
			ctx  context.Context //nolint:containedctx // a table
			ttl  int64
			want *pb.LeaseGrantRequest
		}{
			"plain":        {t.Context(), 5, &pb.LeaseGrantRequest{TTL: 5}},
			"negative":     {t.Context(), -1, &pb.LeaseGrantRequest{TTL: -1}},
			"with an id":   {WithLeaseID(t.Context(), 77), 5, &pb.LeaseGrantRequest{TTL: 5, ID: 77}},
			"with no id":   {WithLeaseID(t.Context(), NoLease), 5, &pb.LeaseGrantRequest{TTL: 5}},
			"the last one": {WithLeaseID(WithLeaseID(t.Context(), 1), 2), 5, &pb.LeaseGrantRequest{TTL: 5, ID: 2}},
		} {
			resp, err := c.Grant(tt.ctx, tt.ttl)
			if err != nil || resp.ID != 9 || resp.TTL != 6 || resp.Error != "said" || resp.Revision != 3 {
				t.Errorf("%s: %+v, %v", name, resp, err)
			}
			if got := m.last(t, pb.Lease_LeaseGrant_FullMethodName).Request; !proto.Equal(got, tt.want) {
				t.Errorf("%s: request %v, want %v", name, got, tt.want)
			}
		}
		m.handle(pb.Lease_LeaseGrant_FullMethodName, scripted.Fail(rpctypes.ErrGRPCLeaseExist))
		if resp, err := c.Grant(WithLeaseID(t.Context(), 77), 5); resp != nil || err != rpctypes.ErrLeaseExist { //nolint:errorlint // identity
			t.Errorf("%v, %v", resp, err)
		}
	})
}

func TestLeaseCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)

		revoked, err := c.Revoke(t.Context(), 9)
		if got := m.last(t, pb.Lease_LeaseRevoke_FullMethodName).Request; err != nil || revoked == nil || !proto.Equal(got, &pb.LeaseRevokeRequest{ID: 9}) {
			t.Errorf("Revoke: %v, %v, request %v", revoked, err, got)
		}

		ttl := &pb.LeaseTimeToLiveResponse{Header: testHeader, ID: 9, TTL: 4, GrantedTTL: 5, Keys: [][]byte{[]byte("k")}}
		m.handle(pb.Lease_LeaseTimeToLive_FullMethodName, scripted.Answer(ttl))
		left, err := c.TimeToLive(t.Context(), 9, WithAttachedKeys())
		if err != nil || left.ID != 9 || left.TTL != 4 || left.GrantedTTL != 5 || len(left.Keys) != 1 || left.Revision != 3 {
			t.Errorf("TimeToLive: %+v, %v", left, err)
		}
		if got := m.last(t, pb.Lease_LeaseTimeToLive_FullMethodName).Request; !proto.Equal(got, &pb.LeaseTimeToLiveRequest{ID: 9, Keys: true}) {
			t.Errorf("TimeToLive: request %v", got)
		}
		m.handle(pb.Lease_LeaseTimeToLive_FullMethodName, scripted.Answer(&pb.LeaseTimeToLiveResponse{ID: 9, TTL: -1}))
		if left, err := c.TimeToLive(t.Context(), 9); err != nil || left.TTL != -1 {
			t.Errorf("TimeToLive of no lease: %+v, %v", left, err)
		}

		list := &pb.LeaseLeasesResponse{Header: testHeader, Leases: []*pb.LeaseStatus{{ID: 1}, {ID: 2}}}
		m.handle(pb.Lease_LeaseLeases_FullMethodName, scripted.Answer(list))
		leases, err := c.Leases(t.Context())
		if err != nil || !slices.Equal(leases.Leases, []LeaseStatus{{ID: 1}, {ID: 2}}) || leases.Revision != 3 {
			t.Errorf("Leases: %+v, %v", leases, err)
		}

		for method, do := range map[string]func() error{
			pb.Lease_LeaseRevoke_FullMethodName:     func() error { return drop(c.Revoke(t.Context(), 9)) },
			pb.Lease_LeaseTimeToLive_FullMethodName: func() error { return drop(c.TimeToLive(t.Context(), 9)) },
			pb.Lease_LeaseLeases_FullMethodName:     func() error { return drop(c.Leases(t.Context())) },
		} {
			m.handle(method, scripted.Fail(rpctypes.ErrGRPCLeaseNotFound))
			if err := do(); err != rpctypes.ErrLeaseNotFound { //nolint:errorlint // identity
				t.Errorf("%s: %v", method, err)
			}
		}
	})
}

func TestKeepAliveOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.stream(keepAlive, renewals(7))
		resp, err := c.KeepAliveOnce(t.Context(), 9)
		if err != nil || resp.ID != 9 || resp.TTL != 7 || resp.Revision != 3 {
			t.Errorf("%+v, %v", resp, err)
		}
		for _, ttl := range []int64{0, -1} {
			m.stream(keepAlive, renewals(ttl))
			if resp, err := c.KeepAliveOnce(t.Context(), 9); resp != nil || err != rpctypes.ErrLeaseNotFound { //nolint:errorlint // identity
				t.Errorf("TTL %d: %v, %v", ttl, resp, err)
			}
		}
		m.stream(keepAlive, func(*scripted.Call) error { return rpctypes.ErrGRPCPermissionDenied })
		if _, err := c.KeepAliveOnce(t.Context(), 9); err != rpctypes.ErrPermissionDenied { //nolint:errorlint // identity
			t.Errorf("refused: %v", err)
		}
		m.stream(keepAlive, func(*scripted.Call) error { return nil })
		if resp, err := c.KeepAliveOnce(t.Context(), 9); resp != nil || err == nil {
			t.Errorf("a stream without answer: %v, %v", resp, err)
		}
		synctest.Wait()
		if n := c.endpoints.Statuses()[0].InFlight; n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

func TestKeepAliveOnceIsRetriedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		time.Sleep(time.Second)
		for range 20 {
			m.forget()
			failed := make(chan struct{}, 1)
			m.stream(keepAlive, func(call *scripted.Call) error {
				select {
				case failed <- struct{}{}:
					return status.Error(codes.Unavailable, "not now")
				default:
					return renewals(7)(call)
				}
			})
			if _, err := c.KeepAliveOnce(t.Context(), 9); err != nil {
				t.Error(err)
			}
			if got := m.counts(keepAlive); !slices.Equal(got, []int{1, 1}) {
				t.Errorf("attempts %v, want one at each member", got)
			}
			time.Sleep(time.Minute) // the retry budget is what it was
		}
	})
}

func TestKeepAliveOnceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.stream(keepAlive, func(call *scripted.Call) error {
			<-call.Context.Done()
			return status.FromContextError(call.Context.Err()).Err()
		})
		start := time.Now()
		_, err := c.KeepAliveOnce(within(t, time.Second), 9)
		if err != context.DeadlineExceeded || time.Since(start) != time.Second { //nolint:errorlint // bare
			t.Errorf("%v after %v", err, time.Since(start))
		}
		m.stream(keepAlive, func(call *scripted.Call) error {
			deadline, _ := call.Context.Deadline()
			time.Sleep(time.Until(deadline) - 10*time.Millisecond)
			return status.Error(codes.DeadlineExceeded, "mine")
		})
		if _, err := c.KeepAliveOnce(within(t, time.Second), 9); err != context.DeadlineExceeded { //nolint:errorlint // bare
			t.Errorf("by the server's clock: %v", err)
		}
	})
}

func TestKeepAliveRenewsUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.stream(keepAlive, renewals(6))
		ctx, cancel := context.WithCancel(t.Context())
		ch, err := c.KeepAlive(ctx, 9)
		if err != nil {
			t.Fatal(err)
		}
		if cap(ch) != LeaseResponseChSize {
			t.Errorf("channel of %d places, want %d", cap(ch), LeaseResponseChSize)
		}
		start := time.Now()
		for range 4 {
			if resp := <-ch; resp == nil || resp.ID != 9 || resp.TTL != 6 || resp.Revision != 3 {
				t.Fatalf("%+v", resp)
			}
		}
		if took := time.Since(start); took < 5*time.Second || took > 7*time.Second {
			t.Errorf("the first and three more renewals took %v, want them a third of the TTL apart", took)
		}
		time.Sleep(time.Hour) // nobody reads: what does not fit is dropped
		if n := len(ch); n != cap(ch) {
			t.Errorf("%d responses are kept", n)
		}
		cancel()
		synctest.Wait()
		n := 0
		for range ch {
			n++
		}
		if n != LeaseResponseChSize {
			t.Errorf("%d responses before the end", n)
		}
	})
}

func TestKeepAliveEndsWhenTheLeaseIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.stream(keepAlive, renewals(0))
		ch, err := c.KeepAlive(t.Context(), 9)
		if err != nil {
			t.Fatal(err)
		}
		if resp, open := <-ch; open {
			t.Errorf("%+v", resp)
		}
	})
}

// Who revokes a lease does not have it renewed, nor is told of renewals before.
func TestKeepAliveEndsWhenTheLeaseIsRevoked(t *testing.T) {
	for name, revoke := range map[string]scripted.Unary{
		"by this call": scripted.Answer(&pb.LeaseRevokeResponse{Header: testHeader}),
		"before":       scripted.Fail(rpctypes.ErrGRPCLeaseNotFound),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 1)
				c := m.client(t)
				m.stream(keepAlive, renewals(6))
				m.handle(pb.Lease_LeaseRevoke_FullMethodName, revoke)
				revoked, err := c.KeepAlive(t.Context(), 9)
				if err != nil {
					t.Fatal(err)
				}
				other, err := c.KeepAlive(t.Context(), 10)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				_, _ = c.Revoke(t.Context(), 9)
				if resp, ok := <-revoked; ok {
					t.Errorf("response %v", resp)
				}
				if resp, ok := <-other; !ok || resp.ID != 10 {
					t.Errorf("the other lease: %v", resp)
				}
			})
		})
	}
}

// A Revoke of which nobody knows what has come of it ends nothing.
func TestKeepAliveOutlivesAFailedRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.stream(keepAlive, renewals(6))
		m.handle(pb.Lease_LeaseRevoke_FullMethodName, scripted.Fail(rpctypes.ErrGRPCTimeout))
		ch, err := c.KeepAlive(t.Context(), 9)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Revoke(t.Context(), 9)
		for range 3 {
			if _, ok := <-ch; !ok {
				t.Fatal("the channel is closed")
			}
		}
	})
}

func TestLeaseOnAStubOfTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.stream(keepAlive, renewals(6))
		l := NewLeaseFromLeaseClient(RetryLeaseClient(c), nil, time.Second)
		if resp, err := l.KeepAliveOnce(t.Context(), 9); err != nil || resp.TTL != 6 {
			t.Errorf("%v, %v", resp, err)
		}
		ch, err := l.KeepAlive(t.Context(), 9)
		if err != nil {
			t.Fatal(err)
		}
		if resp := <-ch; resp == nil || resp.TTL != 6 {
			t.Errorf("%+v", resp)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for range ch {
		}
		if _, err := l.KeepAlive(t.Context(), 9); !errors.As(err, new(ErrKeepAliveHalted)) {
			t.Errorf("after Close: %v", err)
		}
		// With an owner it ends with that.
		ctx, cancel := context.WithCancel(t.Context())
		owned := NewLeaseFromLeaseClient(RetryLeaseClient(c), NewCtxClient(ctx), time.Second)
		ch, err = owned.KeepAlive(t.Context(), 9)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		for range ch {
		}
	})
}

func TestErrKeepAliveHalted(t *testing.T) {
	err := error(ErrKeepAliveHalted{Reason: io.EOF})
	if err.Error() != "etcdclient: leases keep alive halted: EOF" || !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	bare := error(ErrKeepAliveHalted{})
	if bare.Error() != "etcdclient: leases keep alive halted" || errors.Unwrap(bare) != nil {
		t.Errorf("%v", bare)
	}
}
