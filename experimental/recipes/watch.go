package recipe

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v3 "github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
)

// WaitEvents waits until the key has had events of the given types, in their order, from the revision on, and returns
// the last one; others may come between. Without types it returns nil at once. It fails with rpctypes.ErrCompacted if
// the revision is compacted before it has seen it, and when the client is closed.
func WaitEvents(c *v3.Client, key string, rev int64, evs []mvccpb.Event_EventType) (*v3.Event, error) {
	return waitEvents(c, key, rev, evs)
}

// WaitPrefixEvents is WaitEvents for the keys with a prefix: the events may be of several ones.
func WaitPrefixEvents(c *v3.Client, prefix string, rev int64, evs []mvccpb.Event_EventType) (*v3.Event, error) {
	return waitEvents(c, prefix, rev, evs, v3.WithPrefix())
}

func waitEvents(c *v3.Client, key string, rev int64, evs []mvccpb.Event_EventType, opts ...v3.OpOption) (
	last *v3.Event, err error,
) {
	if len(evs) == 0 {
		return nil, nil
	}
	for attempt := 0; ; attempt++ {
		err := func() error {
			if rev == 0 { // from now on; but if the watch ends it is to go on from where it was
				resp, err := c.Get(c.Ctx(), key, v3.WithLimit(1), v3.WithKeysOnly())
				if err != nil {
					return err
				}
				rev = resp.Header.Revision + 1
			}
			return watch(c.Ctx(), c, key, append(opts, v3.WithRev(rev)), func(ev *v3.Event) bool {
				rev = ev.Kv.ModRevision + 1 // events of one revision come together
				if ev.Type == evs[0] {
					last, evs = ev, evs[1:]
				}
				return len(evs) == 0
			})
		}()
		if err == nil {
			return last, nil
		}
		if err := again(c.Ctx(), err, attempt); err != nil {
			return nil, err
		}
	}
}

// watch calls each for every event of a watch until it returns true. A member without a leader, which might not hear of
// changes, is not relied on.
func watch(ctx context.Context, c *v3.Client, key string, opts []v3.OpOption, each func(*v3.Event) bool) error {
	ctx, cancel := context.WithCancel(v3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range c.Watch(ctx, key, opts...) {
		if err := resp.Err(); err != nil {
			return err
		}
		if slices.ContainsFunc(resp.Events, each) {
			return nil
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return ErrNoWatcher
}

// change is a change that is waited for.
type change struct {
	key  string
	opts []v3.OpOption
}

func deletionOf(key string) change { return change{key, []v3.OpOption{v3.WithFilterPut()}} }

func putOf(key string) change { return change{key, []v3.OpOption{v3.WithFilterDelete()}} }

func putUnder(prefix string) change {
	return change{prefix, []v3.OpOption{v3.WithFilterDelete(), v3.WithPrefix()}}
}

// aLook looks at keys. It returns the revision that this is of, and what has to change before there is a point in
// looking again: nothing, if there is nothing left to wait for.
type aLook func(context.Context) (rev int64, changes []change, err error)

// until looks again and again, each time that one of the changes has happened which the last look has asked for, until
// one asks for none.
func until(ctx context.Context, c *v3.Client, look aLook) error {
	for attempt := 0; ; attempt++ {
		rev, changes, err := look(ctx)
		if err == nil && len(changes) == 0 {
			return nil
		}
		if err == nil {
			err = awaitAny(ctx, c, rev+1, changes)
		}
		switch {
		case err == nil, errors.Is(err, rpctypes.ErrCompacted):
			attempt = -1 // look again
		default:
			if err := again(ctx, err, attempt); err != nil {
				return err
			}
		}
	}
}

// awaitAny waits for one of the changes, from the revision on.
func awaitAny(ctx context.Context, c *v3.Client, rev int64, changes []change) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, len(changes))
	for _, ch := range changes {
		go func() {
			ends <- watch(ctx, c, ch.key, append(ch.opts, v3.WithRev(rev)), func(*v3.Event) bool { return true })
		}()
	}
	err := <-ends
	cancel()
	for range len(changes) - 1 {
		<-ends //nolint:errcheck // cancelled, all of them
	}
	return err
}

// again waits before the attempt that follows the given number of failed ones, the last of them with err. It returns an
// error if there is to be none: why ctx has ended, or err if it would not be better the next time.
func again(ctx context.Context, err error, attempt int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !transient(err) && !errors.Is(err, ErrNoWatcher) {
		return err
	}
	return pause(ctx, 50*time.Millisecond, attempt)
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

// maxPause bounds the wait between two attempts.
const maxPause = 2 * time.Second

// pause waits for a random time, up to base doubled with each attempt. It returns why ctx has ended if it has.
func pause(ctx context.Context, base time.Duration, attempt int) error {
	timer := time.NewTimer(rand.N(min(base<<min(attempt, 16), maxPause) + 1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// bind returns a context for what is done for a session: it ends with the client, and, with ErrSessionExpired, when the
// session's lease is gone. That an orphaned session's is, is seen by its keys only.
func bind(s *concurrency.Session) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(s.Client().Ctx())
	stop := context.AfterFunc(s.Ctx(), func() {
		if errors.Is(context.Cause(s.Ctx()), concurrency.ErrSessionExpired) {
			cancel(concurrency.ErrSessionExpired)
		}
	})
	return ctx, func() {
		stop()
		cancel(nil)
	}
}
