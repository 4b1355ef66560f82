// Package token keeps the token that a client authenticates its calls with.
package token

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// ErrClosed is what a Source returns once it is closed.
var ErrClosed = errors.New("token: source closed")

// Source fetches the token, once for all who need it at the same time.
type Source struct {
	fetch   func(ctx context.Context) (string, error)
	current atomic.Pointer[string]
	ctx     context.Context
	cancel  context.CancelFunc
	tasks   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	running *flight
}

type flight struct {
	done  chan struct{}
	token string
	err   error
}

// NewSource returns a source without a token.
func NewSource(fetch func(ctx context.Context) (string, error)) *Source {
	s := &Source{fetch: fetch}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Current returns the token fetched last, or an empty string.
func (s *Source) Current() string {
	if t := s.current.Load(); t != nil {
		return *t
	}
	return ""
}

// Refresh returns a token other than the refused one: the current one if it has changed meanwhile, else a new one.
func (s *Source) Refresh(ctx context.Context, refused string) (string, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return "", ErrClosed
	}
	if t := s.current.Load(); t != nil && *t != refused {
		s.mu.Unlock()
		return *t, nil
	}
	f := s.running
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.running = f
		s.tasks.Go(func() { s.run(f) })
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (s *Source) run(f *flight) {
	f.token, f.err = s.fetch(s.ctx)
	s.mu.Lock()
	if f.err == nil {
		s.current.Store(&f.token)
	}
	s.running = nil
	s.mu.Unlock()
	close(f.done)
}

// Close ends a fetch under way and waits for it.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.tasks.Wait()
}
