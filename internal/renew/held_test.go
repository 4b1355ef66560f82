package renew

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestSuspicion(t *testing.T) {
	for _, tc := range []struct {
		cause error
		want  uint8
	}{
		{ErrStalled, 1},
		{rpctypes.ErrGRPCPermissionDenied, heldFaults},
		{rpctypes.ErrGRPCLeaseNotFound, heldFaults},
		{status.Error(codes.Unknown, "scripted"), heldFaults},
		{status.Error(codes.Internal, "scripted"), heldFaults},
		{io.EOF, 0},
		{context.Canceled, 0},
		{context.DeadlineExceeded, 0},
		{errGone, 0},
		{rpctypes.ErrGRPCNoLeader, 0},
		{rpctypes.ErrGRPCTimeout, 0},
		{rpctypes.ErrGRPCInvalidAuthToken, 0},
		{rpctypes.ErrGRPCAuthOldRevision, 0},
		{rpctypes.ErrGRPCUserEmpty, 0},
		{rpctypes.ErrGRPCRequestTooManyRequests, 0},
	} {
		if got := suspicion(tc.cause); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.cause, got, tc.want)
		}
	}
}

func TestHeldLeaseGoesLastUnlessUrgentWhileNothingElseIs(t *testing.T) {
	for _, tc := range []struct {
		held, ready time.Duration // time left; 0 means that there is none
		want        int64
	}{
		{held: 50 * time.Second, ready: 50 * time.Second, want: 2},
		{held: 10 * time.Second, ready: 50 * time.Second, want: 1},
		{held: 10 * time.Second, ready: 12 * time.Second, want: 2},
		{held: 50 * time.Second, ready: 10 * time.Second, want: 2},
		{held: 50 * time.Second, want: 1},
		{ready: 50 * time.Second, want: 2},
	} {
		e := New(Config{})
		if tc.held > 0 {
			e.held.put(&lease{id: 1, ttl: time.Minute, expires: tc.held}, tc.held)
		}
		if tc.ready > 0 {
			e.ready.put(&lease{id: 2, ttl: time.Minute, expires: tc.ready}, tc.ready)
		}
		if l := e.pick(0); l.id != tc.want {
			t.Errorf("%+v: picked %d", tc, l.id)
		}
	}
}

// Renewing a lease with keys that are forbidden to the user ends the stream; the other leases must not suffer.
func TestLeaseThatBreaksStreamsDoesNotTakeTheOthersAlong(t *testing.T) {
	for name, poison := range map[string]func(*fakeStream) error{
		"error": func(*fakeStream) error { return rpctypes.ErrGRPCPermissionDenied },
		"hang":  (*fakeStream).hang,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var bad atomic.Bool
				j := newJournal()
				c := &fakeClient{}
				c.serve = func(st *fakeStream) error {
					for {
						id, err := st.next()
						if err != nil {
							return err
						}
						j.add(st, id)
						if id == 0 && time.Since(j.start) > time.Minute {
							bad.Store(true)
							return poison(st)
						}
						ttl := int64(6)
						if id == 0 {
							ttl = 60
						}
						st.answer(id, ttl)
					}
				}
				e := start(t, Config{Client: c})
				first := keep(t, e, t.Context(), 0)
				var others []*recorder
				for id := range int64(50) {
					others = append(others, keep(t, e, t.Context(), 1+id))
					pass(100 * time.Millisecond)
				}
				pass(5 * time.Minute)
				if !bad.Load() {
					t.Fatal("no stream was broken")
				}
				for _, r := range others {
					r.wantOpen()
				}
				for id := range int64(50) {
					var last time.Duration
					for _, at := range j.of(1 + id) {
						if last > 0 && at-last > 5*time.Second {
							t.Errorf("lease %d renewed %v after the last time", id, at-last)
						}
						last = at
					}
				}
				if at := first.wantClosed(ErrExpired); at < time.Minute+40*time.Second {
					t.Errorf("closed after %v", at)
				}
				if name == "error" {
					first.wantClosed(rpctypes.ErrGRPCPermissionDenied)
				}
				if n := c.opened(); n > 300 {
					t.Errorf("%d streams for a lease that has 40 s left", n)
				}
			})
		})
	}
}

func TestHeldLeaseIsTriedUntilItsTimeHasPassed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal()
		allowed := 9 * time.Second
		c := &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				j.add(st, id)
				if at := time.Since(j.start); id == 7 && at > time.Second && at < allowed {
					return rpctypes.ErrGRPCPermissionDenied
				}
				st.answer(id, 10)
			}
		}}
		e := start(t, Config{Client: c})
		r := keep(t, e, t.Context(), 7)
		keep(t, e, t.Context(), 8)
		pass(30 * time.Second)
		r.wantOpen()
		locked(e, func(time.Duration) {
			if l := e.leases[7]; l.faults != 0 || l.cause != nil {
				t.Errorf("%d faults after an answer", l.faults)
			}
		})
	})
}
