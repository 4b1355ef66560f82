package bench

import (
	"context"
	"errors"
	"fmt"

	official "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3"
)

// contender is a client under measurement: the calls that the benchmarks make, whatever its types are.
type contender struct {
	get   func(ctx context.Context, key string) (keys int, err error)
	put   func(ctx context.Context, key, value string) error
	watch func(ctx context.Context, key string) watch
	grant func(ctx context.Context, ttl int64) (id int64, err error)
	// keepAlive keeps a lease alive, and returns what waits for the answer to the first renewal.
	keepAlive func(ctx context.Context, id int64) (renewed func() error)
	close     func() error
}

// watch is an open watch. It returns the number of events in the next response, and false when it has ended.
type watch func() (events int, open bool)

// contenders are the clients, by name, each made for the given endpoints.
var contenders = []struct {
	name string
	dial func(endpoints ...string) (*contender, error)
}{
	{"clientv3", dialOwn},
	{"official", dialOfficial},
}

func dialOwn(endpoints ...string) (*contender, error) {
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("clientv3: %w", err)
	}
	return &contender{
		get: func(ctx context.Context, key string) (int, error) {
			resp, err := cli.Get(ctx, key)
			if err != nil {
				return 0, err
			}
			return len(resp.Kvs), nil
		},
		put: func(ctx context.Context, key, value string) error {
			_, err := cli.Put(ctx, key, value)
			return err
		},
		watch: func(ctx context.Context, key string) watch {
			ch := cli.Watch(ctx, key)
			return func() (int, bool) {
				resp, open := <-ch
				return len(resp.Events), open
			}
		},
		grant: func(ctx context.Context, ttl int64) (int64, error) {
			resp, err := cli.Grant(ctx, ttl)
			if err != nil {
				return 0, err
			}
			return int64(resp.ID), nil
		},
		keepAlive: func(ctx context.Context, id int64) func() error {
			ch, err := cli.KeepAlive(ctx, clientv3.LeaseID(id))
			return func() error { return firstRenewal(ch, err) }
		},
		close: cli.Close,
	}, nil
}

func dialOfficial(endpoints ...string) (*contender, error) {
	cli, err := official.New(official.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("official: %w", err)
	}
	return &contender{
		get: func(ctx context.Context, key string) (int, error) {
			resp, err := cli.Get(ctx, key)
			if err != nil {
				return 0, err
			}
			return len(resp.Kvs), nil
		},
		put: func(ctx context.Context, key, value string) error {
			_, err := cli.Put(ctx, key, value)
			return err
		},
		watch: func(ctx context.Context, key string) watch {
			ch := cli.Watch(ctx, key)
			return func() (int, bool) {
				resp, open := <-ch
				return len(resp.Events), open
			}
		},
		grant: func(ctx context.Context, ttl int64) (int64, error) {
			resp, err := cli.Grant(ctx, ttl)
			if err != nil {
				return 0, err
			}
			return int64(resp.ID), nil
		},
		keepAlive: func(ctx context.Context, id int64) func() error {
			ch, err := cli.KeepAlive(ctx, official.LeaseID(id))
			return func() error { return firstRenewal(ch, err) }
		},
		close: cli.Close,
	}, nil
}

// firstRenewal waits for the first response of a KeepAlive.
func firstRenewal[R any](ch <-chan *R, err error) error {
	if err != nil {
		return err
	}
	if resp := <-ch; resp == nil {
		return errors.New("keep alive ended before the first renewal")
	}
	return nil
}
