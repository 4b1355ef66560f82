package main

import (
	"context"
	"errors"
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

// keepLeases keeps leases alive on a new client, and measures what that costs once each has been renewed for the first
// time, for a third of their TTL, in which either client renews each once.
func keepLeases(ctx context.Context, _ client, m *meter) error {
	dialled, err := m.dial()
	if err != nil {
		return err
	}
	defer dialled.Close()
	c, ok := dialled.(statefulClient)
	if !ok {
		return errors.New("cannot keep leases alive")
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
	window := m.scale.LeaseTTL / 3
	if err := m.measure(func() (int, error) {
		select {
		case <-time.After(window):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		return int(float64(len(leases)) * window.Seconds()), nil
	}); err != nil {
		return err
	}
	delete(m.sample, metricRate) // it is given
	return checkRenewals(leases)
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
