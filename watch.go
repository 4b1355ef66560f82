package clientv3

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3/internal/watchstream"
)

const (
	// EventTypeDelete is the type of the event of a deleted key.
	EventTypeDelete = mvccpb.Event_DELETE
	// EventTypePut is the type of the event of a written key.
	EventTypePut = mvccpb.Event_PUT

	// AutoWatchID is the watch id with which the server is left to choose one.
	AutoWatchID = 0
	// InvalidWatchID is the watch id of responses that are about no single watch.
	InvalidWatchID = -1
)

// Event is a change of a key.
type Event = mvccpb.Event

// WatchChan is the channel of a watch.
type WatchChan <-chan WatchResponse

// WatchResponse is what a watch delivers: events, its progress, its creation, or its end.
type WatchResponse struct {
	// Header says as of when the response is. For progress notifications all events up to Header.Revision have been
	// delivered.
	Header *pb.ResponseHeader
	// Events are the changes, in the order of their revisions; those of one revision are never spread over responses.
	Events []*Event

	// CompactRevision is set if the watch ended because the revision it had come to, or was to start at, is compacted:
	// the history begins with this revision.
	CompactRevision int64

	// Canceled is set in the last response: the watch has ended, as Err says.
	Canceled bool

	// Created is set in the first response of a watch with WithCreatedNotify.
	Created bool

	// CancelReason is the reason of the end as the server gave it, if it did.
	CancelReason string

	closeErr error
}

// Err returns why the watch has ended, or nil while it has not: rpctypes.ErrCompacted if its revision is compacted
// (CompactRevision), another error of package rpctypes if the server gave that reason, or what made the client end it.
func (wr *WatchResponse) Err() error {
	switch {
	case wr.closeErr != nil:
		return rpctypes.Error(wr.closeErr)
	case wr.CompactRevision != 0:
		return rpctypes.ErrCompacted
	case wr.Canceled && wr.CancelReason != "":
		return rpctypes.Error(status.Error(codes.FailedPrecondition, wr.CancelReason))
	case wr.Canceled:
		return rpctypes.ErrFutureRev // the one refusal that servers before 3.4 give no reason for
	}
	return nil
}

// IsProgressNotify reports whether the response tells of progress only.
func (wr *WatchResponse) IsProgressNotify() bool {
	return len(wr.Events) == 0 && !wr.Canceled && !wr.Created && wr.CompactRevision == 0 && wr.Header.GetRevision() != 0
}

// WithRequireLeader returns a context in which calls and watches need a leader: they end with rpctypes.ErrNoLeader as
// soon as no member that can be reached has one, instead of waiting for it. Members without leader are left for others
// with and without it.
func WithRequireLeader(ctx context.Context) context.Context {
	md, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		md = metadata.MD{}
	}
	md.Set(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	return metadata.NewOutgoingContext(ctx, md)
}

// Watcher watches keys. Its methods are safe for concurrent use.
type Watcher interface {
	// Watch watches a key, or with WithPrefix, WithRange or WithFromKey a range of keys. Without WithRev it begins with
	// the next change and returns when the server has the watch, or ctx has ended: a write that is made afterwards, by
	// whomever, is seen. With a revision nothing can be missed, and it returns at once.
	//
	// Every event comes exactly once, in the order of revisions, whatever happens to connections and members; a watch
	// goes on elsewhere where it was. The watch ends, and its channel is closed, when ctx ends; when Close is called;
	// when its revision is compacted; and when the server refuses it. Except when ctx ended, the last response has
	// Canceled set and its Err tells why. End ctx to free a watch that is no longer read.
	//
	// A reader may be slow. What it has not read is kept for it up to a bound; past that the watch is given up on the
	// server and opened again, where it was, when the reader has caught up. Nothing is lost unless the revision is
	// compacted meanwhile.
	//
	// Watches with the same outgoing metadata in their contexts share a stream. With WithRequireLeader a watch ends
	// with rpctypes.ErrNoLeader when no member that can be reached has a leader.
	Watch(ctx context.Context, key string, opts ...OpOption) WatchChan

	// RequestProgress asks the server to send a progress notification to all watches with the same outgoing metadata
	// as ctx, once they have all events up to now.
	RequestProgress(ctx context.Context) error

	// Close ends all watches and returns when their goroutines have ended.
	Close() error
}

type watcher struct {
	engine   *watchstream.Engine[WatchResponse]
	unfollow func() bool // ends following the client's context; nil without client
}

// NewWatcher returns the Watcher of a client, as the one in its field Watcher at first. It must be closed unless it
// replaces that one.
func NewWatcher(c *Client) Watcher {
	return newWatcher(watchstream.Config[WatchResponse]{
		Client:         pb.NewWatchClient(c.conn),
		Reauthenticate: c.reauthenticator(),
		NoLeader:       func(refusals int) bool { return refusals >= c.endpoints.Size() },
	}, c)
}

// NewWatchFromWatchClient returns a Watcher on the given stub. It must be closed; it ends with the client too. The
// client's limits on message sizes are passed to the stub; c may be nil.
func NewWatchFromWatchClient(wc pb.WatchClient, c *Client) Watcher {
	return newWatcher(watchstream.Config[WatchResponse]{Client: wc, CallOptions: c.callOptions()}, c)
}

func newWatcher(cfg watchstream.Config[WatchResponse], owner *Client) Watcher {
	cfg.Convert = toWatchResponse
	if owner != nil {
		cfg.Logger = owner.GetLogger()
	}
	w := &watcher{engine: watchstream.New(cfg)}
	if owner != nil {
		w.unfollow = context.AfterFunc(owner.ctx, func() { _ = w.engine.Close() })
	}
	return w
}

func toWatchResponse(r *watchstream.Response) WatchResponse {
	return WatchResponse{
		Header:          r.Header,
		Events:          r.Events,
		CompactRevision: r.CompactRevision,
		Canceled:        r.Canceled,
		Created:         r.Created,
		CancelReason:    r.CancelReason,
		closeErr:        r.Err,
	}
}

func (w *watcher) Watch(ctx context.Context, key string, opts ...OpOption) WatchChan {
	op := OpWatch(key, opts...)
	var filters []pb.WatchCreateRequest_FilterType
	if op.filterPut {
		filters = append(filters, pb.WatchCreateRequest_NOPUT)
	}
	if op.filterDelete {
		filters = append(filters, pb.WatchCreateRequest_NODELETE)
	}
	return w.engine.Watch(ctx, watchstream.Request{
		Key:            op.key,
		RangeEnd:       op.end,
		StartRevision:  op.rev,
		Filters:        filters,
		ProgressNotify: op.progressNotify,
		CreatedNotify:  op.createdNotify,
		PrevKV:         op.prevKV,
		Fragment:       op.fragment,
		LogBacklog:     op.bufLog,
	})
}

func (w *watcher) RequestProgress(ctx context.Context) error {
	return w.engine.RequestProgress(ctx)
}

func (w *watcher) Close() error {
	if w.unfollow != nil {
		w.unfollow()
	}
	return w.engine.Close()
}
