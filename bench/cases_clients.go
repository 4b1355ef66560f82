package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// clientCases make and close clients, one after the other, unused or used once. All are open at once before the first is
// closed.
func clientCases(s scale) []benchCase {
	var all []benchCase
	for _, used := range []bool{false, true} {
		name := fmt.Sprintf("New and Close of %d clients", s.Clients)
		if used {
			name = fmt.Sprintf("New, Get and Close of %d clients", s.Clients)
		}
		all = append(all, onBoth(benchCase{
			name: name, topic: topicStateful, operation: "client", rounds: 3, contenders: everyClient,
			run: func(ctx context.Context, m *meter) error { return makeClients(ctx, m, used) },
		})...)
	}
	return all
}

func makeClients(ctx context.Context, m *meter, used bool) error {
	clients := make([]client, 0, m.scale.Clients)
	goroutines := runtime.NumGoroutine()
	before := measureFootprint()
	opening, err := m.interval(func() error {
		for range m.scale.Clients {
			c, err := m.dial()
			if err != nil {
				return err
			}
			clients = append(clients, c)
			if !used {
				continue
			}
			if _, err := c.Get(ctx, "key"); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		m.held(before, len(clients))
	}
	closing, closeErr := m.interval(func() error {
		var err error
		for _, c := range clients {
			err = errors.Join(err, c.Close())
		}
		return err
	})
	if err := errors.Join(err, closeErr); err != nil {
		return err
	}
	m.note(opening.plus(closing), len(clients))
	return awaitGoroutines(ctx, goroutines)
}

// awaitGoroutines waits until there are no more goroutines than that.
func awaitGoroutines(ctx context.Context, most int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for runtime.NumGoroutine() > most {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("clients leaked goroutines: %d instead of %d", runtime.NumGoroutine(), most)
		}
	}
	return nil
}
