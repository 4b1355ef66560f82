package concurrency

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestTransientErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{rpctypes.ErrNoLeader, true},
		{rpctypes.ErrLeaderChanged, true},
		{rpctypes.ErrTimeout, true},
		{rpctypes.ErrTimeoutDueToLeaderFail, true},
		{rpctypes.ErrTooManyRequests, true},
		{fmt.Errorf("wrapped: %w", rpctypes.ErrNoLeader), true},
		{status.Error(codes.Unavailable, "connection lost"), true},
		{rpctypes.ErrNoSpace, false},
		{rpctypes.ErrPermissionDenied, false},
		{rpctypes.ErrLeaseNotFound, false},
		{rpctypes.ErrEmptyKey, false},
		{status.Error(codes.Internal, "broken"), false},
		{context.Canceled, false},
		{errors.New("other"), false},
	} {
		if got := transient(c.err); got != c.want {
			t.Errorf("transient(%v) is %v", c.err, got)
		}
	}
	if !recoverable(rpctypes.ErrCompacted) || !recoverable(errWatchEnded) || recoverable(rpctypes.ErrPermissionDenied) {
		t.Error("recoverable is wrong")
	}
}

func TestJitterStaysWithinItsBounds(t *testing.T) {
	for attempt := range 100 {
		var longest time.Duration
		for range 200 {
			d := jitter(10*time.Millisecond, time.Second, attempt)
			if d < 0 {
				t.Fatalf("attempt %d: %v", attempt, d)
			}
			longest = max(longest, d)
		}
		ceiling := min(10*time.Millisecond<<min(attempt, 20), time.Second)
		if longest > ceiling || longest < ceiling/2 {
			t.Errorf("attempt %d: up to %v, want up to %v", attempt, longest, ceiling)
		}
	}
}
