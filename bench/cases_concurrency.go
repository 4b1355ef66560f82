package main

import (
	"context"
	"errors"
	"sync/atomic"
)

// lockSessions pass the lock on, stmCallers write the same key.
const (
	lockSessions = 4
	stmCallers   = 8
	stmTTL       = 60
)

// concurrencyCases are those that need a server that remembers.
func concurrencyCases() []benchCase {
	return []benchCase{
		{
			name: "Lock, handed over among 4 sessions, etcd", topic: topicStateful, server: etcdKind, operation: "hand-over",
			contenders: realClients, run: passLock,
		},
		{
			name: "STM, 8 callers increment a key, etcd", topic: topicStateful, server: etcdKind, operation: "transaction",
			contenders: realClients, run: contendInSTM,
		},
	}
}

func passLock(ctx context.Context, c client, m *meter) (err error) {
	cli, ok := c.(statefulClient)
	if !ok {
		return errors.New("has no locks")
	}
	sessions := make([]session, lockSessions)
	for i := range sessions {
		if sessions[i], err = cli.Session(ctx, stmTTL); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sessions[i].Close()) }()
	}
	var holders atomic.Int32
	return m.calls(ctx, lockSessions, func(ctx context.Context, caller int) error {
		if err := sessions[caller].Lock(ctx); err != nil {
			return err
		}
		if holders.Add(1) != 1 {
			return errors.New("two hold the lock")
		}
		holders.Add(-1)
		return sessions[caller].Unlock(ctx)
	})
}

func contendInSTM(ctx context.Context, c client, m *meter) error {
	cli, ok := c.(statefulClient)
	if !ok {
		return errors.New("has no software transactions")
	}
	return m.calls(ctx, stmCallers, func(ctx context.Context, _ int) error { return cli.Increment(ctx, "counter") })
}
