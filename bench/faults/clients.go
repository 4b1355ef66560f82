package main

import (
	"context"
	"errors"
	"fmt"

	official "go.etcd.io/etcd/client/v3"
	officialconcurrency "go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
)

// client is a client under test: what the load does with it, whatever its types are.
type client struct {
	get func(ctx context.Context, key string) error
	put func(ctx context.Context, key, value string) error
	// watch hands the keys of the events below the prefix from the revision on to each, until ctx ends. It returns why it
	// ended before that.
	watch func(ctx context.Context, prefix string, rev int64, each func(keys []string)) error
	// session opens a session with a TTL in seconds, which is kept alive until ctx ends.
	session func(ctx context.Context, ttl int) (session, error)
	close   func() error
}

// session is a session as a client sees it.
type session struct {
	lease int64
	done  <-chan struct{} // closed when the client takes it for lost
	// orphan ends its being kept alive.
	orphan func()
}

// contender is a kind of client.
type contender struct {
	name string
	dial func(endpoints []string) (*client, error)
}

// contenders are the clients with their default configuration, in the order in which they are run.
var contenders = []contender{
	{"official", dialOfficial},
	{"clientv3", dialOwn},
}

var errWatchClosed = errors.New("the watch's channel was closed")

func dialOwn(endpoints []string) (*client, error) {
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("clientv3: %w", err)
	}
	return &client{
		get: func(ctx context.Context, key string) error {
			_, err := cli.Get(ctx, key)
			return err
		},
		put: func(ctx context.Context, key, value string) error {
			_, err := cli.Put(ctx, key, value)
			return err
		},
		watch: func(ctx context.Context, prefix string, rev int64, each func([]string)) error {
			for resp := range cli.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(rev)) {
				if err := resp.Err(); err != nil {
					return err
				}
				keys := make([]string, len(resp.Events))
				for i, ev := range resp.Events {
					keys[i] = string(ev.Kv.Key)
				}
				each(keys)
			}
			return errWatchClosed
		},
		session: func(ctx context.Context, ttl int) (session, error) {
			s, err := concurrency.NewSession(cli, concurrency.WithTTL(ttl), concurrency.WithContext(ctx))
			if err != nil {
				return session{}, err
			}
			return session{lease: int64(s.Lease()), done: s.Done(), orphan: s.Orphan}, nil
		},
		close: cli.Close,
	}, nil
}

func dialOfficial(endpoints []string) (*client, error) {
	cli, err := official.New(official.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("official: %w", err)
	}
	return &client{
		get: func(ctx context.Context, key string) error {
			_, err := cli.Get(ctx, key)
			return err
		},
		put: func(ctx context.Context, key, value string) error {
			_, err := cli.Put(ctx, key, value)
			return err
		},
		watch: func(ctx context.Context, prefix string, rev int64, each func([]string)) error {
			for resp := range cli.Watch(ctx, prefix, official.WithPrefix(), official.WithRev(rev)) {
				if err := resp.Err(); err != nil {
					return err
				}
				keys := make([]string, len(resp.Events))
				for i, ev := range resp.Events {
					keys[i] = string(ev.Kv.Key)
				}
				each(keys)
			}
			return errWatchClosed
		},
		session: func(ctx context.Context, ttl int) (session, error) {
			s, err := officialconcurrency.NewSession(cli,
				officialconcurrency.WithTTL(ttl), officialconcurrency.WithContext(ctx))
			if err != nil {
				return session{}, err
			}
			return session{lease: int64(s.Lease()), done: s.Done(), orphan: s.Orphan}, nil
		},
		close: cli.Close,
	}, nil
}
