package concurrency

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v3 "github.com/seed-d18e112a/clientv3"
)

// errWatchEnded is the end of a watch for which it gave no reason.
var errWatchEnded = errors.New("concurrency: watch ended")

// awaitDelete returns nil when the key is deleted in the revision or later. A member without a leader, which might not
// hear of it, is not relied on: the watch goes elsewhere, or ends with rpctypes.ErrNoLeader.
func awaitDelete(ctx context.Context, client *v3.Client, key string, rev int64) error {
	ctx, cancel := context.WithCancel(v3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range client.Watch(ctx, key, v3.WithRev(rev), v3.WithFilterPut()) {
		if err := resp.Err(); err != nil {
			return err
		}
		if len(resp.Events) > 0 {
			return nil
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errWatchEnded
}

// recoverable reports whether a wait that was ended by err can be taken up again, after another look at the keys.
func recoverable(err error) bool {
	return transient(err) || errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, errWatchEnded)
}

// transient reports whether err is one that may be gone the next time: the cluster cannot do it now, or cannot be
// reached.
func transient(err error) bool {
	if errors.Is(err, rpctypes.ErrTooManyRequests) {
		return true
	}
	code := status.Code(err)
	if etcdErr, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		code = etcdErr.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// How long waits between attempts are: of things that failed for want of a cluster.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
)

// pause waits before the attempt that follows the given number of failed ones, counted from 0, or until ctx ends.
func pause(ctx context.Context, attempt int) error {
	return sleep(ctx, jitter(firstPause, maxPause, attempt))
}

// jitter draws a delay from 0 to base doubled with each attempt, at most limit, so that those who failed together do
// not come back together.
func jitter(base, limit time.Duration, attempt int) time.Duration {
	ceiling := base << min(attempt, 16)
	return rand.N(min(ceiling, limit) + 1)
}

// sleep waits for d, or until ctx ends; then it returns ctx.Err().
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
