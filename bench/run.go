package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// result is what the contenders did in a case.
type result struct {
	Case      string     `json:"case"`
	Topic     topic      `json:"topic"`
	Server    serverKind `json:"server"`
	Operation string     `json:"operation"`
	Clients   []figures  `json:"clients"`
}

// figures are those of one contender. Medians are over the rounds; ratios are medians of the rounds' ratios to the
// official client.
type figures struct {
	Client string   `json:"client"`
	Median sample   `json:"median"`
	Ratio  sample   `json:"ratio,omitempty"`
	Rounds []sample `json:"rounds"`
}

// run runs a case on a new server.
func run(ctx context.Context, c benchCase, o *options) (_ *result, err error) {
	endpoint, stop, err := c.server.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if c.fill != nil {
		if err := fillServer(ctx, endpoint, c.fill); err != nil {
			return nil, err
		}
	}
	res := &result{Case: c.name, Topic: c.topic, Server: c.server, Operation: c.operation}
	workers, err := startWorkers(ctx, c, endpoint, o)
	defer func() {
		for _, w := range workers {
			err = errors.Join(err, w.stop())
		}
	}()
	if err != nil {
		return nil, err
	}
	for _, name := range c.contenders {
		res.Clients = append(res.Clients, figures{Client: name})
	}
	rounds := o.rounds
	if c.rounds > 0 {
		rounds = min(rounds, c.rounds)
	}
	for round := range rounds {
		for turn := range workers {
			i := (round + turn) % len(workers)
			s, err := workers[i].measure()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.contenders[i], err)
			}
			res.Clients[i].Rounds = append(res.Clients[i].Rounds, s)
		}
	}
	res.evaluate()
	return res, nil
}

// startWorkers starts a process for each contender. After an error it returns those that were started before.
func startWorkers(ctx context.Context, c benchCase, endpoint string, o *options) ([]*worker, error) {
	var workers []*worker
	for _, name := range c.contenders {
		j := job{Case: c.name, Contender: name, Endpoint: endpoint, Time: o.time, Scale: o.scale}
		if o.profile != "" {
			if err := os.MkdirAll(o.profile, 0o750); err != nil { //nolint:gosec // the user says where
				return workers, err
			}
			j.Profile = filepath.Join(o.profile, fileName(c.name+" "+name))
		}
		w, err := startWorker(ctx, j)
		if err != nil {
			return workers, fmt.Errorf("%s: %w", name, err)
		}
		workers = append(workers, w)
	}
	return workers, nil
}

var notInFileNames = regexp.MustCompile(`[^a-z0-9]+`)

func fileName(name string) string {
	return notInFileNames.ReplaceAllString(strings.ToLower(name), "-")
}
