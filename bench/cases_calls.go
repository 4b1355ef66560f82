package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// callCases are Get, Put and Txn. Each caller has keys of its own.
func callCases(s scale) []benchCase {
	value := strings.Repeat("v", valueSize)
	most := 0
	for _, callers := range s.Callers {
		most = max(most, callers)
	}
	keys := callerKeys(most)
	fill := func(ctx context.Context, kv pb.KVClient) error {
		var all []string
		for _, k := range keys {
			all = append(all, k[:]...)
		}
		return fillKeys(ctx, kv, all, value)
	}
	get := func(ctx context.Context, c client, caller int) error {
		n, err := c.Get(ctx, keys[caller][0])
		return wantKeys(1, n, err)
	}
	put := func(ctx context.Context, c client, caller int) error { return c.Put(ctx, keys[caller][0], value) }
	txn := func(ctx context.Context, c client, caller int) error { return c.Txn(ctx, keys[caller], value) }

	var all []benchCase
	add := func(name string, callers int, call func(ctx context.Context, c client, caller int) error, onEtcd ...string) {
		added := onBoth(benchCase{
			name: fmt.Sprintf("%s, %s", name, plural(callers, "caller")), topic: topicCalls, operation: "call",
			contenders: everyClient, fill: fill,
			run: func(ctx context.Context, m *meter) error {
				c, err := m.client()
				if err != nil {
					return err
				}
				return m.calls(ctx, callers, func(ctx context.Context, caller int) error { return call(ctx, c, caller) })
			},
		})
		added[1].contenders = slices.Concat(everyClient, onEtcd)
		all = append(all, added...)
	}
	for _, callers := range s.Callers {
		add("Get", callers, get, ownCoalesced)
	}
	for _, callers := range s.Callers {
		add("Put", callers, put, ownCoalesced)
	}
	add("Txn of 3 compares and 3 operations", min(64, most), txn)
	return all
}

// callerKeys are three keys for each caller.
func callerKeys(callers int) [][3]string {
	keys := make([][3]string, callers)
	for i := range keys {
		for j := range keys[i] {
			keys[i][j] = fmt.Sprintf("key/%d/%d", i, j)
		}
	}
	return keys
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// wantKeys is the error of a read that should have returned so many keys.
func wantKeys(want, got int, err error) error {
	if err == nil && got != want {
		return fmt.Errorf("%d keys instead of %d", got, want)
	}
	return err
}
