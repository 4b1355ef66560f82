package watchstream

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

const (
	// DefaultMaxPendingBytes is how much a watcher keeps for a consumer that lags, if Config.MaxPendingBytes is 0.
	DefaultMaxPendingBytes = 16 << 20
	// DefaultMaxPendingEvents is how many events a watcher keeps for a consumer that lags, if Config.MaxPendingEvents
	// is 0.
	DefaultMaxPendingEvents = 100_000
	// DefaultNoLeaderRefusals is how many refusals in a row, if Config.NoLeader is nil, are taken to mean that no
	// reachable member has a leader.
	DefaultNoLeaderRefusals = 5
)

// Config is what an Engine works with. Client and Convert must be set.
type Config[R any] struct {
	// Client opens the streams.
	Client pb.WatchClient
	// CallOptions are passed with every stream that is opened.
	CallOptions []grpc.CallOption
	// Convert makes what a consumer's channel carries. It is called under a lock, must be quick, and must not keep the
	// Response, which is used again; what the Response points to is the consumer's.
	Convert func(*Response) R
	// Logger is told when streams are lost and when consumers lag. Nil: nothing is logged.
	Logger *zap.Logger

	// MaxPendingBytes and MaxPendingEvents bound what a watcher keeps for a consumer that lags. At either, the watcher
	// is cancelled on the server; it is opened again, where it was, when half has been read. The size of an event
	// counts its key, its value and the structs they are in.
	// 0: DefaultMaxPendingBytes, DefaultMaxPendingEvents.
	MaxPendingBytes, MaxPendingEvents int

	// Reauthenticate gets a new token, for the streams opened afterwards, when the server has refused the one in use.
	// It is called by one goroutine per stream, again and again with pauses when new tokens are refused too, and when
	// that has gone on for 5 seconds the refusal is the watcher's end. Nil: the first refusal is.
	Reauthenticate func(ctx context.Context) error

	// NoLeader decides for streams that require a leader. It is told how many times in a row one was refused or ended
	// because the member has no leader, and returns true when no reachable member has one: then the watchers end with
	// rpctypes.ErrNoLeader. Otherwise another stream is tried. Nil: true from DefaultNoLeaderRefusals on.
	NoLeader func(refusals int) bool
}

// Request is one watch. Its meaning is that of pb.WatchCreateRequest, to which it is passed on as it is: an empty key
// is the first key, a range end of "\x00" is the end of all keys. The slices must not change while the watch is open.
type Request struct {
	Key, RangeEnd []byte
	// StartRevision is the first revision to watch; 0 is the one after the server's present one.
	StartRevision int64
	Filters       []pb.WatchCreateRequest_FilterType
	// ProgressNotify asks the server to tell its progress from time to time while there are no events.
	ProgressNotify bool
	// CreatedNotify has a response with Created set delivered when the server has accepted the watch for the first
	// time.
	CreatedNotify bool
	// PrevKV asks for the key-value pair before each event.
	PrevKV bool
	// Fragment allows the server to split what does not fit into one message of its request size limit. The parts of
	// one revision are put together again: a response never has less than a whole revision.
	Fragment bool
	// LogBacklog logs, at info, that the consumer has not read anything for 10 seconds while there were events.
	LogBacklog bool
}

// Response is what is delivered: events, or the progress of a watch without any, or its creation, or its end.
type Response struct {
	Header *pb.ResponseHeader
	Events []*mvccpb.Event
	// CompactRevision is not 0 if the watch has ended because its next revision is compacted.
	CompactRevision int64
	// Created: the server has accepted the watch.
	Created bool
	// Canceled: the watch has ended; it is the last response.
	Canceled bool
	// CancelReason is the server's reason for the end, where it gave one.
	CancelReason string
	// Err is the reason of an end that the server did not give as a response to this watch (the stream failed, the
	// engine was closed), or the known etcd error that CancelReason names.
	Err error
}

// Engine runs watches. It is safe for concurrent use.
type Engine[R any] struct {
	cfg      Config[R]
	closing  chan struct{}  // closed by Close
	wg       sync.WaitGroup // the groups' goroutines, and the pumps, which only these start
	backlogs sync.Pool      // of *backlog[R]: a consumer that lags for a moment costs nothing

	mu     sync.Mutex
	groups map[string]*group[R] // by outgoing metadata; nil once closed
}

// New returns an engine with no stream and no goroutine. Close ends what Watch starts.
func New[R any](cfg Config[R]) *Engine[R] {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.MaxPendingBytes == 0 {
		cfg.MaxPendingBytes = DefaultMaxPendingBytes
	}
	if cfg.MaxPendingEvents == 0 {
		cfg.MaxPendingEvents = DefaultMaxPendingEvents
	}
	if cfg.NoLeader == nil {
		cfg.NoLeader = func(refusals int) bool { return refusals >= DefaultNoLeaderRefusals }
	}
	return &Engine[R]{cfg: cfg, closing: make(chan struct{}), groups: make(map[string]*group[R])}
}

// Watch opens a watch, which ends with ctx. Watches whose contexts carry the same outgoing metadata share a stream.
//
// A watch without start revision is open when Watch returns: what is written afterwards, by whomever, is seen. Such a
// call waits for the server, ctx or Close. With a start revision there is nothing to miss and Watch returns at once.
//
// The channel is closed when the watch ends. If ctx ended it, that is all; otherwise the last response has Canceled set
// and says why. A consumer may read as slowly as it likes: nothing is lost while the revisions exist on the server.
func (e *Engine[R]) Watch(ctx context.Context, req Request) <-chan R {
	w := &watcher[R]{req: req, ch: make(chan R, 1), next: req.StartRevision}
	if ctx.Err() != nil {
		close(w.ch)
		return w.ch
	}
	var ready chan struct{}
	if req.StartRevision == 0 {
		ready = make(chan struct{})
		w.ready = ready
	}
	if !e.join(ctx, w) {
		w.ch <- e.cfg.Convert(closedResponse())
		close(w.ch)
		return w.ch
	}
	if ready != nil {
		<-ready // closed when the watcher is created or has ended, which the end of ctx makes it do
	}
	return w.ch
}

// RequestProgress asks the server for the progress of the watches whose contexts carry the same metadata as ctx, and
// does not wait for it. Each of them gets a response without events, once all of them have caught up with the server.
// It returns ErrClosed after Close, and the error of a ctx that has ended.
func (e *Engine[R]) RequestProgress(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	key := streamKey(md)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.groups == nil {
		return ErrClosed
	}
	if g := e.groups[key]; g != nil {
		g.requestProgress()
	}
	return nil
}

// Close ends every watch, each with a last response whose Err is ErrClosed, in place of what its consumer had yet to
// read, and waits until all goroutines have ended. It returns nil.
func (e *Engine[R]) Close() error {
	e.mu.Lock()
	groups := e.groups
	if groups != nil {
		e.groups = nil
		close(e.closing)
	}
	e.mu.Unlock()
	for _, g := range groups {
		g.close()
	}
	e.wg.Wait()
	return nil
}

// join puts the watcher into the group of ctx's metadata, and starts the group if there is none. It returns false if
// the engine is closed.
func (e *Engine[R]) join(ctx context.Context, w *watcher[R]) bool {
	md, _ := metadata.FromOutgoingContext(ctx)
	key := streamKey(md)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.groups == nil {
		return false
	}
	if g := e.groups[key]; g != nil && g.add(ctx, w) {
		return true
	}
	// There is none, or the one there is has ended and not yet left the map.
	g := newGroup(e, key, md)
	g.add(ctx, w)
	e.groups[key] = g
	e.wg.Go(g.run)
	return true
}

// leave takes a group that has ended out of the map, if a successor has not already.
func (e *Engine[R]) leave(g *group[R]) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.groups[g.key] == g {
		delete(e.groups, g.key)
	}
}

// streamKey returns a string that is equal for equal metadata only: names in order, every string with its length.
func streamKey(md metadata.MD) string {
	if len(md) == 0 {
		return ""
	}
	var key []byte
	add := func(s string) {
		key = binary.AppendUvarint(key, uint64(len(s)))
		key = append(key, s...)
	}
	for _, name := range slices.Sorted(maps.Keys(md)) {
		add(name)
		key = binary.AppendUvarint(key, uint64(len(md[name])))
		for _, value := range md[name] {
			add(value)
		}
	}
	return string(key)
}

func requiresLeader(md metadata.MD) bool {
	return slices.Contains(md.Get(rpctypes.MetadataRequireLeaderKey), rpctypes.MetadataHasLeader)
}

func closedResponse() *Response { return &Response{Canceled: true, Err: ErrClosed} }
