package endpoints

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3"
)

func (m *manager) NewWatchChannel(ctx context.Context) (WatchChannel, error) {
	resp, err := m.list(ctx)
	if err != nil {
		return nil, err
	}
	w := &watch{manager: m, ctx: ctx, out: make(chan []*Update, 1), known: make(map[string]int64)}
	if initial := w.difference(resp); len(initial) > 0 {
		w.out <- initial
	}
	go w.run()
	return w.out, nil
}

// watch is what is behind a WatchChannel. One goroutine uses it.
type watch struct {
	*manager
	ctx context.Context //nolint:containedctx // the channel's lifetime
	out chan []*Update

	known map[string]int64 // keys delivered and not deleted since, with their mod revisions
	rev   int64            // all changes up to this revision are delivered
}

// Watches that end are begun anew, at once the first time and then after a wait that grows up to maxWait.
const (
	minWait = 50 * time.Millisecond
	maxWait = 5 * time.Second
)

// run delivers changes until the channel is to be closed.
func (w *watch) run() {
	defer close(w.out)
	for wait := time.Duration(0); !w.ended(); {
		rev := w.rev
		err := w.follow()
		if w.ended() {
			return
		}
		if !errors.Is(err, rpctypes.ErrCompacted) {
			w.client.GetLogger().Warn("watch of endpoints ended", zap.String("prefix", w.prefix), zap.Error(err))
		}
		if w.rev > rev {
			wait = 0
		}
		for {
			if !w.sleep(wait) {
				return
			}
			wait = min(max(2*wait, minWait), maxWait)
			if err = w.resume(); err == nil {
				break
			}
			if !w.ended() {
				w.client.GetLogger().Warn("endpoints cannot be listed", zap.String("prefix", w.prefix), zap.Error(err))
			}
		}
	}
}

// ended reports whether the channel is to be closed.
func (w *watch) ended() bool {
	return w.ctx.Err() != nil || w.client.Ctx().Err() != nil
}

// sleep waits. It reports false if the channel is to be closed.
func (w *watch) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return !w.ended()
	case <-w.ctx.Done():
	case <-w.client.Ctx().Done():
	}
	return false
}

// follow delivers the changes from the known revision on until the watch ends, and returns why it did.
func (w *watch) follow() error {
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	for resp := range w.client.Watch(ctx, w.prefix, clientv3.WithPrefix(), clientv3.WithRev(w.rev+1)) {
		if err := resp.Err(); err != nil {
			return err
		}
		updates := make([]*Update, 0, len(resp.Events))
		for _, ev := range resp.Events {
			key := string(ev.Kv.Key)
			if ev.Type == clientv3.EventTypeDelete {
				delete(w.known, key)
				updates = append(updates, &Update{Op: Delete, Key: key})
				continue
			}
			w.known[key] = ev.Kv.ModRevision
			if endpoint, ok := w.endpoint(ev.Kv); ok {
				updates = append(updates, &Update{Op: Add, Key: key, Endpoint: endpoint})
			}
		}
		if !w.deliver(updates) {
			break
		}
		w.rev = max(w.rev, resp.Header.GetRevision())
	}
	return context.Cause(w.ctx)
}

// deliver hands over updates. It reports false if the channel is to be closed.
func (w *watch) deliver(updates []*Update) bool {
	if len(updates) == 0 {
		return true
	}
	select {
	case w.out <- updates:
		return true
	case <-w.ctx.Done():
	case <-w.client.Ctx().Done():
	}
	return false
}

var errBehind = errors.New("the member that answered is behind what was delivered")

// resume delivers the difference between what was delivered and what is there, for which no watch is needed.
func (w *watch) resume() error {
	resp, err := w.list(w.ctx)
	if err != nil {
		return err
	}
	if resp.Header.GetRevision() < w.rev {
		return errBehind
	}
	w.deliver(w.difference(resp))
	return nil
}

// difference returns the updates that lead from what is known to what is listed, which is known from then on.
func (w *watch) difference(list *clientv3.GetResponse) []*Update {
	var updates []*Update
	gone := maps.Clone(w.known)
	for _, kv := range list.Kvs {
		key := string(kv.Key)
		delete(gone, key)
		if rev, ok := w.known[key]; ok && rev == kv.ModRevision {
			continue
		}
		w.known[key] = kv.ModRevision
		if endpoint, ok := w.endpoint(kv); ok {
			updates = append(updates, &Update{Op: Add, Key: key, Endpoint: endpoint})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(gone)) {
		delete(w.known, key)
		updates = append(updates, &Update{Op: Delete, Key: key})
	}
	w.rev = list.Header.GetRevision()
	return updates
}
