package watchstream

import (
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/zap"
)

const (
	// What the memory of a response counts in a backlog besides its keys and values: the structs of an event with one
	// key-value pair, those of another pair, and what is delivered.
	eventSize    = 232
	keyValueSize = 144
	responseSize = 256

	// maxKept is the largest queue, in responses, that is kept for reuse.
	maxKept = 64

	// logInterval is how long a consumer has not read before LogBacklog logs it, again and again.
	logInterval = 10 * time.Second
)

// backlog is what was received for a consumer that did not take it at once, and the pump that hands it over. It exists
// while there is such a thing. Guarded by group.mu, except for stop.
type backlog[R any] struct {
	items  []item[R] // those before head are handed over
	head   int
	bytes  int
	events int
	last   bool // the watch has ended: the channel is closed when all is handed over

	stop      chan struct{} // closed by abandon
	abandoned bool

	moved  time.Time // when the consumer last took something; for LogBacklog
	logged time.Time
}

type item[R any] struct {
	r        R
	bytes    int
	events   int
	progress bool
}

// deliver hands a response to the consumer if it can take it now, or puts it into the backlog.
func (w *watcher[R]) deliver(resp Response) {
	g := w.g
	g.scratch = resp
	r := g.e.cfg.Convert(&g.scratch)
	g.scratch = Response{}
	if w.backlog == nil {
		select {
		case w.ch <- r:
			return
		default:
		}
		w.backlog = g.e.newBacklog()
		g.e.wg.Go(w.pump)
	}
	b := w.backlog
	b.push(item[R]{
		r:        r,
		bytes:    responseSize + size(resp.Events),
		events:   len(resp.Events),
		progress: len(resp.Events) == 0 && !resp.Created && !resp.Canceled,
	})
	if w.req.LogBacklog {
		w.logBacklog(b)
	}
}

// pump hands over the backlog, and ends with it. It reopens the watcher, if that is paused, when half is handed over.
func (w *watcher[R]) pump() {
	g := w.g
	b := w.backlog // set before the pump was started, and until it ends
	for sent := false; ; sent = true {
		g.mu.Lock()
		if sent {
			b.drop(w.req.LogBacklog)
		}
		if w.state == paused && b.low(&g.e.cfg) {
			g.enqueue(w)
		}
		// Engine.Close leaves watchers with a backlog to their pumps.
		if b.abandoned || b.empty() || w.state == ended && !b.last {
			w.unpump()
			g.mu.Unlock()
			return
		}
		r := b.items[b.head].r
		g.mu.Unlock()

		select {
		case w.ch <- r:
			continue
		case <-b.stop:
		case <-g.e.closing:
		}
		g.mu.Lock()
		w.unpump()
		g.mu.Unlock()
		return
	}
}

// unpump takes the backlog away: all of it is handed over, or the context has ended, or the engine is closed.
func (w *watcher[R]) unpump() {
	b := w.backlog
	w.backlog = nil
	switch {
	case b.abandoned || b.empty() && b.last:
		w.shut()
	case b.empty() && w.state != ended:
		w.g.e.keepBacklog(b)
	default:
		// Closed. A watch that had ended before has its own reason, the last item. One that Close has not come to yet
		// leaves its group now.
		last := w.g.e.cfg.Convert(closedResponse())
		if b.last {
			last = b.items[len(b.items)-1].r
		}
		if w.state != ended {
			w.leave()
		}
		if !w.contextEnded() {
			w.replace(last)
		}
		w.shut()
	}
}

// replace puts the last response into the channel, in place of one that the consumer has not taken. Nobody else sends,
// so there is room after at most one.
func (w *watcher[R]) replace(last R) {
	select {
	case w.ch <- last:
		return
	default:
	}
	select {
	case <-w.ch:
	default: // taken by the consumer in between
	}
	w.ch <- last
}

// shut closes the channel and stops following the context.
func (w *watcher[R]) shut() {
	close(w.ch)
	if w.stop != nil {
		w.stop()
	}
}

func (w *watcher[R]) logBacklog(b *backlog[R]) {
	now := time.Now()
	if b.moved.IsZero() {
		b.moved = now
	}
	if now.Sub(b.moved) < logInterval || now.Sub(b.logged) < logInterval {
		return
	}
	b.logged = now
	w.g.e.cfg.Logger.Info("watch consumer does not read its events",
		zap.ByteString("key", w.req.Key),
		zap.ByteString("range-end", w.req.RangeEnd),
		zap.Int64("next-revision", w.next),
		zap.Int("pending-responses", len(b.items)-b.head),
		zap.Int("pending-events", b.events),
		zap.Int("pending-bytes", b.bytes),
		zap.Duration("blocked", now.Sub(b.moved)),
	)
}

func (e *Engine[R]) newBacklog() *backlog[R] {
	if b, ok := e.backlogs.Get().(*backlog[R]); ok {
		return b
	}
	return &backlog[R]{stop: make(chan struct{})}
}

// keepBacklog keeps an empty backlog for reuse.
func (e *Engine[R]) keepBacklog(b *backlog[R]) {
	if cap(b.items) > maxKept {
		return
	}
	b.moved, b.logged = time.Time{}, time.Time{}
	e.backlogs.Put(b)
}

// push appends an item. Progress takes the place of progress, as the later one says it all, but not of what the pump
// may be sending.
func (b *backlog[R]) push(it item[R]) {
	if end := len(b.items) - 1; it.progress && end > b.head && b.items[end].progress {
		b.items[end] = it
		return
	}
	b.items = append(b.items, it)
	b.bytes += it.bytes
	b.events += it.events
}

func (b *backlog[R]) empty() bool { return b.head == len(b.items) }

// drop removes the first item, which was handed over.
func (b *backlog[R]) drop(timed bool) {
	it := &b.items[b.head]
	b.bytes -= it.bytes
	b.events -= it.events
	*it = item[R]{}
	b.head++
	// Move the rest to the front when it is the smaller part, which makes that cheap on average.
	if rest := len(b.items) - b.head; rest <= b.head {
		copy(b.items, b.items[b.head:])
		clear(b.items[rest:])
		b.items = b.items[:rest]
		b.head = 0
	}
	if timed {
		b.moved = time.Now()
	}
}

func (b *backlog[R]) abandon() {
	if !b.abandoned {
		b.abandoned = true
		close(b.stop)
	}
}

// full returns whether the backlog has reached its limit.
func (b *backlog[R]) full(c *Config[R]) bool {
	return b.bytes >= c.MaxPendingBytes || b.events >= c.MaxPendingEvents
}

// low returns whether no more than half of the limit is left in the backlog.
func (b *backlog[R]) low(c *Config[R]) bool {
	return b.bytes <= c.MaxPendingBytes/2 && b.events <= c.MaxPendingEvents/2
}

// size returns about how much memory the events take.
func size(events []*mvccpb.Event) int {
	n := len(events) * eventSize
	for _, e := range events {
		n += len(e.GetKv().GetKey()) + len(e.GetKv().GetValue())
		if prev := e.GetPrevKv(); prev != nil {
			n += keyValueSize + len(prev.GetKey()) + len(prev.GetValue())
		}
	}
	return n
}
