package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// clients is how many there are. Each has a reader, a writer, a session and a watch.
	clients     = 6
	callTimeout = 3 * time.Second
	// callPause is between a caller's calls, so that it is not the processor that bounds what gets done.
	callPause  = 5 * time.Millisecond
	sessionTTL = 8 // seconds
	// catchUp is how long a watch may take for what it has not delivered by the end, until that counts as lost.
	catchUp = 10 * time.Second
)

// load is what uses a cluster while something happens to it, and what it saw.
type load struct {
	beats    *metronome
	clients  []*client
	readers  [clients]caller
	writers  [clients]caller
	sessions [clients]holder
	watches  [clients]watcher
	truth    []string // the metronome's keys, in the order of their revisions

	working sync.WaitGroup // callers and metronome
	stop    context.CancelFunc
	hanging sync.WaitGroup // watches and sessions, which last longer
	release context.CancelFunc
}

// call is the end of one call.
type call struct {
	at  time.Time
	err error
}

// caller makes one call after the other. calls is read when it has ended; so are the fields of the others.
type caller struct{ calls []call }

// holder holds a session.
type holder struct {
	session session
	lost    bool
	at      time.Time // when the client took it for lost; zero: it did not
}

// watcher follows the metronome.
type watcher struct {
	seen     []string
	at       []time.Time // of each response with events
	err      error       // why it ended before its time
	complete chan struct{}
}

// startLoad opens the sessions and starts all the rest.
func startLoad(ctx context.Context, beats *metronome, dial func() (*client, error)) (_ *load, err error) {
	l := &load{beats: beats}
	// Neither is bounded by ctx, which is for the start only.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	hang, release := context.WithCancel(context.WithoutCancel(ctx))
	l.stop, l.release = stop, release
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	rev, err := beats.revision(ctx)
	if err != nil {
		return nil, err
	}
	for range clients {
		cli, err := dial()
		if err != nil {
			return nil, err
		}
		l.clients = append(l.clients, cli)
	}
	for i, cli := range l.clients {
		s, err := cli.session(hang, sessionTTL)
		if err != nil {
			return nil, fmt.Errorf("session: %w", err)
		}
		l.sessions[i].session = s
		l.hanging.Go(func() { l.sessions[i].hold(hang) })
		l.watches[i].complete = make(chan struct{})
		l.hanging.Go(func() { l.watches[i].follow(hang, cli, rev+1) })
		key := fmt.Sprint("load/", i)
		l.working.Go(func() {
			l.readers[i].run(work, func(ctx context.Context) error { return cli.get(ctx, key) })
		})
		l.working.Go(func() {
			l.writers[i].run(work, func(ctx context.Context) error { return cli.put(ctx, key, "value") })
		})
	}
	l.working.Go(func() { beats.run(work) })
	return l, nil
}

// finish ends the load, and asks the cluster what there should have been to see.
func (l *load) finish(ctx context.Context) error {
	l.stop()
	l.working.Wait()
	truth, err := l.beats.last(ctx)
	if err != nil {
		return fmt.Errorf("the last write: %w", err)
	}
	l.truth = truth
	waiting, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	for i := range l.watches {
		select {
		case <-l.watches[i].complete:
		case <-waiting.Done():
		}
	}
	alive := make([]bool, clients)
	for i := range alive {
		if alive[i], err = l.beats.alive(ctx, l.sessions[i].session.lease); err != nil {
			return fmt.Errorf("state of a lease: %w", err)
		}
	}
	l.close()
	for i := range l.sessions {
		l.sessions[i].lost = l.sessions[i].lost || !alive[i]
	}
	return nil
}

// close ends everything and waits for it. It may be called more than once.
func (l *load) close() {
	l.stop()
	l.release()
	l.working.Wait()
	l.hanging.Wait()
	for _, cli := range l.clients {
		_ = cli.close() // it has done its part
	}
	l.clients = nil
}

func (c *caller) run(ctx context.Context, do func(context.Context) error) {
	for {
		calling, cancel := context.WithTimeout(ctx, callTimeout)
		err := do(calling)
		cancel()
		if ctx.Err() != nil {
			return
		}
		c.calls = append(c.calls, call{at: time.Now(), err: err})
		if sleep(ctx, callPause) != nil {
			return
		}
	}
}

func (h *holder) hold(ctx context.Context) {
	select {
	case <-h.session.done:
		// The end of ctx ends the session too, and then both are ready.
		if ctx.Err() == nil {
			h.lost, h.at = true, time.Now()
		}
	case <-ctx.Done():
	}
	h.session.orphan()
}

func (w *watcher) follow(ctx context.Context, cli *client, rev int64) {
	err := cli.watch(ctx, beatPrefix, rev, func(keys []string) {
		if len(keys) == 0 {
			return
		}
		w.at = append(w.at, time.Now())
		w.seen = append(w.seen, keys...)
		if keys[len(keys)-1] == lastBeat {
			close(w.complete)
		}
	})
	if ctx.Err() == nil {
		w.err = err
	}
}
