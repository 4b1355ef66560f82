package main

import (
	"context"
	"strconv"

	"go.uber.org/zap"

	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

type officialClient struct{ *clientv3.Client }

func newOfficial(endpoint string) (officialClient, error) {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	return officialClient{cli}, err
}

func (c officialClient) Get(ctx context.Context, key string) (int, error) {
	resp, err := c.Client.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	return len(resp.Kvs), nil
}

func (c officialClient) Put(ctx context.Context, key, value string) error {
	_, err := c.Client.Put(ctx, key, value)
	return err
}

func (c officialClient) Range(ctx context.Context, prefix string) (int, error) {
	resp, err := c.Client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	return len(resp.Kvs), nil
}

func (c officialClient) Txn(ctx context.Context, keys [3]string, value string) error {
	resp, err := c.Client.Txn(ctx).If(
		clientv3.Compare(clientv3.Version(keys[0]), ">", -1),
		clientv3.Compare(clientv3.Value(keys[1]), "!=", "other"),
		clientv3.Compare(clientv3.CreateRevision(keys[2]), "<", int64(1<<60)),
	).Then(
		clientv3.OpPut(keys[0], value),
		clientv3.OpPut(keys[1], value),
		clientv3.OpGet(keys[2]),
	).Commit()
	if err != nil {
		return err
	}
	return checkTxn(resp.Succeeded, len(resp.Responses))
}

func (c officialClient) Stream(ctx context.Context, prefix string) (int64, error) {
	chunks, err := c.GetStream(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	var size int64
	for chunk := range chunks {
		if err := chunk.Err(); err != nil {
			return size, err
		}
		for _, kv := range chunk.Kvs {
			size += int64(len(kv.Key) + len(kv.Value))
		}
	}
	return size, nil
}

func (c officialClient) Watch(ctx context.Context, prefix string, rev int64) (watch, error) {
	ch := c.Client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(rev), clientv3.WithCreatedNotify())
	return func() (int, error) {
		resp, open := <-ch
		if !open {
			return 0, errWatchClosed
		}
		return len(resp.Events), resp.Err()
	}, nil
}

func (c officialClient) Grant(ctx context.Context, ttl int64) (int64, error) {
	resp, err := c.Client.Grant(ctx, ttl)
	if err != nil {
		return 0, err
	}
	return int64(resp.ID), nil
}

type officialRenewals <-chan *clientv3.LeaseKeepAliveResponse

func (c officialClient) KeepAlive(ctx context.Context, id int64) (renewals, error) {
	ch, err := c.Client.KeepAlive(ctx, clientv3.LeaseID(id))
	return officialRenewals(ch), err
}

func (r officialRenewals) first() error {
	if <-r == nil {
		return errLeaseLost
	}
	return nil
}

func (r officialRenewals) more() (n int, alive bool) {
	for ; ; n++ {
		select {
		case resp := <-r:
			if resp == nil {
				return n, false
			}
		default:
			return n, true
		}
	}
}

type officialSession struct {
	*concurrency.Session
	*concurrency.Mutex
}

func (c officialClient) Session(ctx context.Context, ttl int) (session, error) {
	s, err := concurrency.NewSession(c.Client, concurrency.WithTTL(ttl), concurrency.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	return officialSession{s, concurrency.NewMutex(s, "lock")}, nil
}

func (c officialClient) Increment(ctx context.Context, key string) error {
	_, err := concurrency.NewSTM(c.Client, func(stm concurrency.STM) error {
		n := 0
		if value := stm.Get(key); value != "" {
			var err error
			if n, err = strconv.Atoi(value); err != nil {
				return err
			}
		}
		stm.Put(key, strconv.Itoa(n+1))
		return nil
	}, concurrency.WithAbortContext(ctx))
	return err
}
