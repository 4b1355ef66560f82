package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// job is what a contender's process is told when it starts, as JSON.
type job struct {
	Case      string
	Contender string
	Endpoint  string
	Time      time.Duration
	Scale     scale
	Profile   string // what names of files with profiles begin with; empty for no profiles
}

// answer is what a contender's process says after each measurement.
type answer struct {
	Sample sample `json:",omitempty"`
	Error  string `json:",omitempty"`
}

// measurementTimeout bounds one measurement: one that takes longer hangs.
const measurementTimeout = 3 * time.Minute

// worker is a contender's process, as seen from the one that started it.
type worker struct{ *process }

func startWorker(ctx context.Context, j job) (*worker, error) {
	b, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	p, err := startProcess(ctx, contenderRole, string(b))
	if err != nil {
		return nil, err
	}
	return &worker{p}, nil
}

// measure lets the process make one measurement.
func (w *worker) measure() (sample, error) {
	if _, err := fmt.Fprintln(w.in, "measure"); err != nil {
		return nil, err
	}
	line, err := w.readLine()
	if err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	var a answer
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, errors.New(a.Error)
	}
	return a.Sample, nil
}

// contend is what a contender's process does: a measurement for each line of in, until it ends.
func contend(args []string, in io.Reader, out io.Writer) (err error) {
	var j job
	if len(args) != 1 {
		return fmt.Errorf("%d arguments instead of one", len(args))
	}
	if err := json.Unmarshal([]byte(args[0]), &j); err != nil {
		return err
	}
	all := cases(j.Scale)
	i := slices.IndexFunc(all, func(c benchCase) bool { return c.name == j.Case })
	who, known := contenderNamed(j.Contender)
	if i < 0 || !known {
		return fmt.Errorf("no case %q or no contender %q", j.Case, j.Contender)
	}
	m := &meter{scale: j.Scale, time: j.Time, dial: func() (client, error) { return who.dial(j.Endpoint) }}
	defer func() { err = errors.Join(err, m.close()) }()
	if j.Profile != "" {
		m.profiler = &profiler{prefix: j.Profile}
		defer func() { err = errors.Join(err, m.profiler.writeAllocs()) }()
	}
	enc := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if err := enc.Encode(measureOnce(&all[i], m)); err != nil {
			return err
		}
	}
	return nil
}

func measureOnce(c *benchCase, m *meter) answer {
	ctx, cancel := context.WithTimeout(context.Background(), measurementTimeout)
	defer cancel()
	m.sample = make(sample)
	if err := c.run(ctx, m); err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Sample: m.sample}
}
