package concurrency

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
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

// observer reports the leaders of an election. It follows all candidates, by one watch, and so knows who leads in each
// revision without having to ask: to ask takes time, in which there may have been another leader.
type observer struct {
	client *v3.Client
	prefix string
	out    chan *v3.GetResponse

	rev        int64 // what the candidates are as of; 0 if they are not known
	candidates candidates
	last       version // what was reported last
}

// run reports until ctx ends.
func (o *observer) run(ctx context.Context) {
	defer close(o.out)
	for attempt := 0; ; attempt++ {
		before := o.rev
		err := o.follow(ctx)
		if ctx.Err() != nil || o.client.Ctx().Err() != nil {
			return
		}
		if !recoverable(err) {
			o.client.GetLogger().Warn("election cannot be observed any more",
				zap.String("prefix", o.prefix), zap.Error(err))
			return
		}
		if o.rev != before {
			attempt = 0
		}
		if errors.Is(err, rpctypes.ErrCompacted) {
			o.rev = 0 // what has happened meanwhile cannot be known
		}
		if pause(ctx, attempt) != nil {
			return
		}
	}
}

// follow reports from the revision on that it has come to, until there is an error.
func (o *observer) follow(ctx context.Context) error {
	if o.rev == 0 {
		resp, err := o.client.Get(ctx, o.prefix, v3.WithPrefix())
		if err != nil {
			return err
		}
		o.rev, o.candidates = resp.Header.Revision, candidates{}
		for _, kv := range resp.Kvs {
			o.candidates[string(kv.Key)] = kv
		}
		if err := o.report(ctx, resp.Header); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(v3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range o.client.Watch(ctx, o.prefix, v3.WithPrefix(), v3.WithRev(o.rev+1)) {
		if err := resp.Err(); err != nil {
			return err
		}
		for i, ev := range resp.Events {
			o.rev = ev.Kv.ModRevision
			o.candidates.apply(ev)
			if i+1 < len(resp.Events) && resp.Events[i+1].Kv.ModRevision == o.rev {
				continue // what was written at once takes effect at once
			}
			if err := o.report(ctx, resp.Header); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errWatchEnded
}

// report hands over the leader, unless it was reported already.
func (o *observer) report(ctx context.Context, header *pb.ResponseHeader) error {
	leader := o.candidates.leader()
	if leader == nil || versionOf(leader) == o.last {
		return nil
	}
	select {
	case o.out <- &v3.GetResponse{Header: header, Kvs: []*mvccpb.KeyValue{leader}, Count: 1}:
		o.last = versionOf(leader)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-o.client.Ctx().Done():
		return o.client.Ctx().Err()
	}
}

// version tells one report from another.
type version struct {
	key               string
	created, modified int64
}

func versionOf(kv *mvccpb.KeyValue) version {
	return version{key: string(kv.Key), created: kv.CreateRevision, modified: kv.ModRevision}
}

// candidates are the keys of an election.
type candidates map[string]*mvccpb.KeyValue

func (c candidates) apply(ev *v3.Event) {
	if ev.Type == v3.EventTypeDelete {
		delete(c, string(ev.Kv.Key))
		return
	}
	c[string(ev.Kv.Key)] = ev.Kv
}

// leader returns the candidate who leads, or nil if there is none. Of those who came in one revision it is the one
// whose key comes first: so does the server sort them.
func (c candidates) leader() *mvccpb.KeyValue {
	var leader *mvccpb.KeyValue
	for key, kv := range c {
		if leader == nil || kv.CreateRevision < leader.CreateRevision ||
			(kv.CreateRevision == leader.CreateRevision && key < string(leader.Key)) {
			leader = kv
		}
	}
	return leader
}
