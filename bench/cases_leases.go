package main

import (
	"context"
	"fmt"
	"time"
)

// leaseCases are many leases that are kept alive.
func leaseCases(s scale) []benchCase {
	return onBoth(benchCase{
		name: fmt.Sprintf("%d leases kept alive, TTL %v", s.Idle, s.LeaseTTL), topic: topicStateful,
		operation: "lease and second", rounds: 2, contenders: realClients, run: keepLeases,
	})
}

// keepLeases keeps leases alive on a new client, and measures what that costs for a third of their TTL: the time from one
// renewal of a lease to the next. It begins half of that time after the first renewals, so that the second ones are in the
// midst of it.
func keepLeases(ctx context.Context, m *meter) error {
	dialled, err := m.dial()
	if err != nil {
		return err
	}
	defer dialled.Close()
	c, err := asStateful(dialled)
	if err != nil {
		return err
	}
	ids := make([]int64, m.scale.Idle)
	if err := many(len(ids), func(i int) (err error) {
		ids[i], err = c.Grant(ctx, int64(m.scale.LeaseTTL/time.Second))
		return err
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before := measureFootprint()
	leases := make([]renewals, len(ids))
	if err := many(len(ids), func(i int) (err error) {
		if leases[i], err = c.KeepAlive(ctx, ids[i]); err != nil {
			return err
		}
		return leases[i].first()
	}); err != nil {
		return err
	}
	m.held(before, len(leases))
	period := m.scale.LeaseTTL / 3
	if err := wait(ctx, period/2); err != nil {
		return err
	}
	if err := m.measure(func() (int, error) {
		return int(float64(len(leases)) * period.Seconds()), wait(ctx, period)
	}); err != nil {
		return err
	}
	delete(m.sample, metricRate) // it is given
	return checkRenewals(leases)
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// checkRenewals returns an error if a lease was lost, or fewer than nine in ten were renewed.
func checkRenewals(leases []renewals) error {
	renewed := 0
	for _, l := range leases {
		n, alive := l.more()
		if !alive {
			return errLeaseLost
		}
		renewed += min(1, n)
	}
	if renewed*10 < len(leases)*9 {
		return fmt.Errorf("only %d of %d leases were renewed", renewed, len(leases))
	}
	return nil
}
