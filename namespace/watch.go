package namespace

import (
	"context"
	"sync"

	"github.com/seed-d18e112a/clientv3"
)

// NewWatcher returns a Watcher of the keys that begin with the prefix, under their names without it. Each of its
// watches costs a goroutine. Closing it closes w.
func NewWatcher(w clientv3.Watcher, prefix string) clientv3.Watcher {
	return &watcherSpace{Watcher: w, space: newSpace(prefix), closing: make(chan struct{})}
}

type watcherSpace struct {
	clientv3.Watcher
	space space

	mu      sync.Mutex
	closed  bool
	closing chan struct{}  // closed by the first Close
	watches sync.WaitGroup // the goroutines of Watch; none is added once closed
}

func (w *watcherSpace) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpWatch(key, opts...)
	begin, end := w.space.begin(op.KeyBytes()), w.space.rangeEnd(op.RangeBytes())
	op.WithKeyBytes(begin)
	op.WithRangeBytes(end)
	in := w.Watcher.Watch(ctx, string(begin), placed(opts, op)...)

	out := make(chan clientv3.WatchResponse, 1)
	forward := func() {
		defer close(out)
		w.forward(ctx, in, out)
	}
	w.mu.Lock()
	closed := w.closed
	if !closed {
		w.watches.Go(forward)
	}
	w.mu.Unlock()
	if closed {
		forward() // the inner watch ends at once, so this does
	}
	return out
}

// forward translates what a watch delivers until it ends. One whose reader has walked away is not waited for once its
// context has ended or the Watcher is closed.
func (w *watcherSpace) forward(ctx context.Context, in clientv3.WatchChan, out chan clientv3.WatchResponse) {
	for resp := range in {
		resp.Events = w.space.events(resp.Events)
		select {
		case out <- resp:
			continue
		case <-ctx.Done():
			return
		case <-w.closing:
		}
		// Closed before the reader has taken everything. It is told why the watch ends, in place of the response that
		// it has yet to take: what is missing it can watch again from the revision after the last it has seen.
		for resp = range in {
		}
		resp.Events = w.space.events(resp.Events)
		select {
		case <-out:
		default:
		}
		out <- resp // there is room: nobody else sends
		return
	}
}

func (w *watcherSpace) Close() error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.closing)
	}
	w.mu.Unlock()
	err := w.Watcher.Close()
	w.watches.Wait()
	return err
}
