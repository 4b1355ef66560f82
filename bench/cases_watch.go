package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// floodPrefix is the prefix of what is watched for events. The null server floods such watches with responses of
// eventsPerResponse events each; in etcd it has as many keys, put that many in a transaction.
const (
	floodPrefix       = "events/"
	eventsPerResponse = 100
)

// openers is the number of callers that open watches, or renewals of leases, at the same time.
const openers = 1000

// watchCases are a watch of many events, and many watches of none.
func watchCases(s scale) []benchCase {
	events := onBoth(benchCase{
		name: fmt.Sprintf("Watch events of %d bytes", valueSize), topic: topicStateful, operation: "event",
		contenders: everyClient,
		fill: func(ctx context.Context, kv pb.KVClient) error {
			return fillKeys(ctx, kv, numbered(floodPrefix, s.EventKeys), strings.Repeat("v", valueSize))
		},
	})
	for i, perWatch := range []int{math.MaxInt, s.EventKeys} {
		events[i].run = func(ctx context.Context, m *meter) error { return takeEvents(ctx, m, perWatch) }
	}
	return append(events,
		onBoth(benchCase{
			name: fmt.Sprintf("%d idle watches", s.Idle), topic: topicStateful, operation: "watch opened", rounds: 3,
			contenders: realClients, run: openWatches,
		})...)
}

// takeEvents takes in events as fast as they come. A watch that has delivered that many is followed by another: on etcd
// they are history, of which there is so much. On the null server there is no end of them.
func takeEvents(ctx context.Context, m *meter, perWatch int) error {
	c, err := m.client()
	if err != nil {
		return err
	}
	if _, err := c.Get(ctx, "connected"); err != nil {
		return err
	}
	return m.measure(func() (int, error) {
		events := 0
		for end := time.Now().Add(m.time); time.Now().Before(end); {
			n, err := takeEventsUntil(ctx, c, end, perWatch)
			if err != nil {
				return events, err
			}
			events += n
		}
		return events, nil
	})
}

// takeEventsUntil takes in the events of one watch until there are as many, or the time has come.
func takeEventsUntil(ctx context.Context, c client, end time.Time, most int) (events int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next, err := c.Watch(ctx, floodPrefix, 1)
	if err != nil {
		return 0, err
	}
	for events < most && time.Now().Before(end) {
		n, err := next()
		if err != nil {
			return events, err
		}
		events += n
	}
	return events, nil
}

// openWatches opens watches of a new client and notes what they hold while nothing happens.
func openWatches(ctx context.Context, m *meter) error {
	c, err := m.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Get(ctx, "connected"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before := measureFootprint()
	watches := make([]watch, m.scale.Idle)
	if err := m.measure(func() (int, error) {
		return len(watches), many(len(watches), func(i int) error {
			next, err := c.Watch(ctx, fmt.Sprintf("watched/%d", i), 0)
			if err != nil {
				return err
			}
			watches[i] = next
			_, err = next() // it is there
			return err
		})
	}); err != nil {
		return err
	}
	m.held(before, len(watches))
	clear(watches) // not before the heap has been looked at
	return nil
}

// many does something n times, from many callers, and returns the first error.
func many(n int, do func(i int) error) error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	callers := min(n, openers)
	for caller := range callers {
		wg.Go(func() {
			for i := caller; i < n; i += callers {
				if err := do(i); err != nil {
					once.Do(func() { first = err })
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}
