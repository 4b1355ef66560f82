package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// lockSessions pass the lock on, stmCallers write the same key.
const (
	lockSessions = 4
	lockTTL      = 60 // seconds
	lockHeld     = 3 * time.Millisecond
	stmCallers   = 8
)

// concurrencyCases are those that need a server that remembers.
func concurrencyCases() []benchCase {
	return []benchCase{
		{
			name:  fmt.Sprintf("Lock handed over among %d sessions, etcd", lockSessions),
			topic: topicStateful, server: etcdKind, operation: "hand-over", contenders: realClients, run: passLock,
		},
		{
			name:  fmt.Sprintf("STM, %d callers increment a key, etcd", stmCallers),
			topic: topicStateful, server: etcdKind, operation: "transaction", contenders: realClients, run: contendInSTM,
		},
	}
}

// passLock measures how long it takes from when a session begins to give up the lock until another has it. The lock is
// held for a while each time, in which those that wait come to rest: it is etcd that makes a watch wait for up to 100 ms
// which begins just after what it waits for has happened.
func passLock(ctx context.Context, m *meter) (err error) {
	cli, err := m.stateful()
	if err != nil {
		return err
	}
	sessions := make([]session, lockSessions)
	for i := range sessions {
		if sessions[i], err = cli.Session(ctx, lockTTL); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sessions[i].Close()) }()
	}
	var (
		holders   atomic.Int32
		mu        sync.Mutex // the lock itself guards them, if it is one
		released  time.Time
		handOvers histogram
	)
	callers := crowd{latencies: make([]histogram, lockSessions), call: func(ctx context.Context, caller int) error {
		if err := sessions[caller].Lock(ctx); err != nil {
			return err
		}
		if holders.Add(1) != 1 {
			return errors.New("two hold the lock")
		}
		mu.Lock()
		if !released.IsZero() {
			handOvers.add(time.Since(released))
		}
		mu.Unlock()
		select {
		case <-time.After(lockHeld):
		case <-ctx.Done():
		}
		holders.Add(-1)
		mu.Lock()
		released = time.Now()
		mu.Unlock()
		return sessions[caller].Unlock(ctx)
	}}
	if err := m.measure(func() (int, error) {
		err := callers.run(ctx, m.time)
		return int(handOvers.n), err
	}); err != nil {
		return err
	}
	delete(m.sample, metricRate) // the lock is held most of the time
	m.noteLatencies(&handOvers)
	return nil
}

func contendInSTM(ctx context.Context, m *meter) error {
	cli, err := m.stateful()
	if err != nil {
		return err
	}
	return m.calls(ctx, stmCallers, func(ctx context.Context, _ int) error { return cli.Increment(ctx, "counter") })
}
