package concurrency

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"

	v3 "github.com/seed-d18e112a/clientv3"
)

// Observe reports the leader, and each change of it: the one there is when Observe is called, every new one, and every
// value that one proclaims, in order, each once, as responses with one key. The leader is who has the key with the
// lowest create revision; while there is none nothing is reported.
//
// The channel is closed when ctx has ended, the client is closed, or the keys cannot be read for want of permission. A
// change is only ever left out if the reader, or the connection, was so far behind that its revision is compacted; then
// the present leader comes next.
func (e *Election) Observe(ctx context.Context) <-chan *v3.GetResponse {
	o := &observer{client: e.session.client, prefix: e.prefix, out: make(chan *v3.GetResponse)}
	go o.run(ctx)
	return o.out
}

// observer reports the leaders of an election.
type observer struct {
	client *v3.Client
	prefix string
	out    chan *v3.GetResponse

	// rev is how far it has come: everything up to this revision is reported, if the leader as of it is. 0 stands for
	// the present.
	rev  int64
	last version // what was reported last
}

// version tells one report from another.
type version struct {
	key               string
	created, modified int64
}

// run reports until ctx ends.
func (o *observer) run(ctx context.Context) {
	defer close(o.out)
	for attempt := 0; ; attempt++ {
		err := o.step(ctx)
		if ctx.Err() != nil || o.client.Ctx().Err() != nil {
			return
		}
		switch {
		case err == nil:
			attempt = -1
			continue
		case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrFutureRev):
			o.rev = 0 // what has happened meanwhile cannot be known
		case !recoverable(err):
			o.client.GetLogger().Warn("election cannot be observed any more",
				zap.String("prefix", o.prefix), zap.Error(err))
			return
		}
		if pause(ctx, attempt) != nil {
			return
		}
	}
}

// step finds the leader as of the revision it has come to, reports it, and follows it to the revision in which its key
// is deleted. If there is none it waits for the revision in which there is one.
func (o *observer) step(ctx context.Context) error {
	resp, err := o.client.Get(ctx, o.prefix, append(v3.WithFirstCreate(), v3.WithRev(o.rev))...)
	if err != nil {
		return err
	}
	if o.rev == 0 {
		o.rev = resp.Header.Revision
	}
	if len(resp.Kvs) == 0 {
		return o.awaitCandidate(ctx)
	}
	if err := o.report(ctx, resp); err != nil {
		return err
	}
	return o.followLeader(ctx, string(resp.Kvs[0].Key))
}

// awaitCandidate waits until a key is written. Who leads then is for the next step to see, since several may have been
// written in that revision.
func (o *observer) awaitCandidate(ctx context.Context) error {
	opts := []v3.OpOption{v3.WithPrefix(), v3.WithFilterDelete()}
	return o.watch(ctx, o.prefix, opts, func(*v3.WatchResponse, *v3.Event) (bool, error) { return true, nil })
}

// followLeader reports what the leader proclaims until its key is deleted.
func (o *observer) followLeader(ctx context.Context, key string) error {
	return o.watch(ctx, key, nil, func(resp *v3.WatchResponse, ev *v3.Event) (bool, error) {
		if ev.Type == v3.EventTypeDelete {
			return true, nil
		}
		return false, o.report(ctx, &v3.GetResponse{Header: resp.Header, Kvs: []*mvccpb.KeyValue{ev.Kv}, Count: 1})
	})
}

// watch calls each for every event after the revision it has come to, until it returns true or an error, or the watch
// ends.
func (o *observer) watch(ctx context.Context, key string, opts []v3.OpOption,
	each func(*v3.WatchResponse, *v3.Event) (bool, error),
) error {
	ctx, cancel := context.WithCancel(v3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range o.client.Watch(ctx, key, append(opts, v3.WithRev(o.rev+1))...) {
		if err := resp.Err(); err != nil {
			return err
		}
		for _, ev := range resp.Events {
			done, err := each(&resp, ev)
			if err != nil {
				return err
			}
			o.rev = ev.Kv.ModRevision
			if done {
				return nil
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errWatchEnded
}

// report hands over a leader, unless it was reported already: a step that failed is made again.
func (o *observer) report(ctx context.Context, resp *v3.GetResponse) error {
	kv := resp.Kvs[0]
	v := version{key: string(kv.Key), created: kv.CreateRevision, modified: kv.ModRevision}
	if v == o.last {
		return nil
	}
	select {
	case o.out <- resp:
		o.last = v
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
