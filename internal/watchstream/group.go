package watchstream

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"google.golang.org/grpc/metadata"

	"github.com/seed-d18e112a/clientv3/internal/retry"
)

// reopen paces the streams of a group: the first one after a break comes at once or nearly so.
var reopen = retry.Backoff{Base: 50 * time.Millisecond, Max: 3 * time.Second}

// tokenPatience is how long a watch is created again with other tokens when the server refuses one after the other. A
// new token may be refused too: it was fetched a while ago for somebody else and has expired meanwhile, or this member
// has not heard of it yet, being a little behind the one that gave it out.
const tokenPatience = 5 * time.Second

// group is the watchers that share a stream because their contexts carry the same metadata. It lives as long as it has
// watchers; then, or when an error ends them all, it is over, and the next Watch starts another.
type group[R any] struct {
	e             *Engine[R]
	key           string
	requireLeader bool
	ctx           context.Context // carries the metadata, and nothing else of the callers' contexts
	cancel        context.CancelFunc

	mu       sync.Mutex
	watchers map[*watcher[R]]struct{} // all that have not ended
	waiting  queue[R]                 // those to be created on the stream
	stream   *stream[R]               // nil while there is none
	progress bool                     // to be asked for on the stream, when all watchers are created
	ended    bool                     // takes no more watchers
	scratch  Response                 // what Convert is given; here, because a local one would escape each time

	// Of the recovery, used by run's goroutine only.
	attempt      int       // reopenings since a stream lasted
	refusals     int       // streams in a row that found no leader
	refusedSince time.Time // when the server began to refuse tokens; zero while it accepts them
}

func newGroup[R any](e *Engine[R], key string, md metadata.MD) *group[R] {
	g := &group[R]{e: e, key: key, requireLeader: requiresLeader(md), watchers: make(map[*watcher[R]]struct{})}
	//nolint:gosec // called when the group ends
	g.ctx, g.cancel = context.WithCancel(metadata.NewOutgoingContext(context.Background(), md))
	return g
}

// add takes the watcher in, to be created as soon as there is a stream. It returns false if the group is over.
func (g *group[R]) add(ctx context.Context, w *watcher[R]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return false
	}
	w.g = g
	g.watchers[w] = struct{}{}
	if ctx.Done() != nil {
		// Registered under the lock, so that the function, which takes it, finds w.stop set.
		w.stop = context.AfterFunc(ctx, w.abandon)
	}
	g.enqueue(w)
	return true
}

// enqueue has the watcher created on the present stream or the next.
func (g *group[R]) enqueue(w *watcher[R]) {
	w.state = waiting
	g.waiting.push(w)
	g.wakeSender()
}

func (g *group[R]) requestProgress() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.progress = true
	g.wakeSender()
}

func (g *group[R]) wakeSender() {
	if g.stream != nil {
		g.stream.wakeSender()
	}
}

// over marks the group as one that takes no more watchers, and ends its stream.
func (g *group[R]) over() {
	g.ended = true
	g.cancel()
}

// close ends every watcher for Engine.Close.
func (g *group[R]) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := range g.watchers {
		w.endNow()
	}
	g.over()
}

// halt ends every watcher with the error. Their consumers first get what they have yet to read.
func (g *group[R]) halt(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := range g.watchers {
		w.end(&Response{Canceled: true, Err: err})
	}
	g.over()
}

// run serves one stream after the other while there are watchers.
func (g *group[R]) run() {
	defer g.e.leave(g)
	for {
		opened := time.Now()
		err := g.serve()
		if time.Since(opened) >= reopen.Ceiling(g.attempt) {
			g.attempt = 0 // it lasted longer than the wait that it deserves
		}
		err = g.recover(err)
		if g.ctx.Err() != nil {
			return // closed, or without watchers
		}
		if err != nil {
			g.e.cfg.Logger.Warn("watch stream failed, its watchers end", zap.Error(err))
			g.halt(rpctypes.Error(err))
			return
		}
	}
}

// serve opens a stream and receives from it until it ends; all its watchers are waiting again when it returns.
func (g *group[R]) serve() error {
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	client, err := g.e.cfg.Client.Watch(ctx, g.e.cfg.CallOptions...)
	if err != nil {
		return err
	}
	s := newStream(ctx, cancel, g, client)
	g.mu.Lock()
	g.stream = s
	g.mu.Unlock()
	sent := make(chan error, 1)
	go func() { sent <- s.send() }()

	for err == nil {
		var resp *pb.WatchResponse
		if resp, err = client.Recv(); err == nil {
			g.refusals = 0
			err = s.receive(resp)
		}
	}
	cancel()
	if sendErr := <-sent; sendErr != nil {
		err = sendErr // it came first, and by cancelling the stream made the other
	}

	g.mu.Lock()
	defer g.mu.Unlock()
	g.stream = nil
	s.release()
	if g.ctx.Err() == nil {
		g.e.cfg.Logger.Info("watch stream lost", zap.Error(err), zap.Int("watchers", len(g.watchers)))
	}
	return err
}

// recover decides what follows the end of a stream, and does it: nil after the wait or the renewal of the token that a
// new stream needs, or else the error with which the watchers end.
func (g *group[R]) recover(err error) error {
	switch judge(err) {
	case fatal:
		return err
	case unauthenticated:
		return g.renewToken(err)
	case leaderless:
		if !g.requireLeader {
			break
		}
		g.refusals++
		if g.e.cfg.NoLeader(g.refusals) {
			return err
		}
	case transient:
	}
	return g.backOff()
}

// renewToken answers the refusal of the token with a new one, at once when the last one was good.
func (g *group[R]) renewToken(refusal error) error {
	if !g.mayRenewToken() {
		return refusal
	}
	if !g.refusedSince.IsZero() {
		if err := g.backOff(); err != nil {
			return err
		}
	} else {
		g.refusedSince = time.Now()
	}
	for {
		err := g.e.cfg.Reauthenticate(g.ctx)
		if err == nil {
			return nil
		}
		if v := judge(err); v == fatal || v == unauthenticated {
			return err
		}
		if err := g.backOff(); err != nil {
			return err
		}
	}
}

// mayRenewToken tells whether a refused token is replaced, or the refusal is final.
func (g *group[R]) mayRenewToken() bool {
	return g.e.cfg.Reauthenticate != nil && (g.refusedSince.IsZero() || time.Since(g.refusedSince) < tokenPatience)
}

func (g *group[R]) backOff() error {
	g.attempt++
	return reopen.Wait(g.ctx, g.attempt-1)
}
