// Package token keeps the authentication token of a client: fetched once for all callers that lack it, and replaced
// once a server has refused it.
package token

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is returned by Refresh on a closed Source.
var ErrClosed = errors.New("token source closed")

// Source is one token that changes over time. Make one with NewSource and end it with Close. All methods are safe for
// concurrent use.
//
// A fetch runs in a goroutine of its own, and there is at most one at a time. It belongs to the Source rather than to
// the caller that set it off: it goes on when that caller gives up, since others may be waiting for it and the next
// call needs the token too, and it ends with Close at the latest.
type Source struct {
	start   func(*fetch)          // runs a fetch to its end
	end     context.CancelFunc    // ends the context of fetches
	current atomic.Pointer[fetch] // the last one that succeeded; nil before the first
	running sync.WaitGroup        // the goroutine of the fetch under way

	mu      sync.Mutex
	pending *fetch // the fetch under way, or nil
	closed  bool
}

// fetch is one fetch and its outcome.
type fetch struct {
	done  chan struct{} // closed when the others are set
	token string
	err   error
	ended time.Time
}

// NewSource returns a source without a token. It gets each token from get, whose context ends with Close and with
// nothing else; get must return soon after that.
func NewSource(get func(context.Context) (string, error)) *Source {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Source{end: cancel}
	s.start = func(f *fetch) {
		f.token, f.err = get(ctx)
		if f.err != nil && ctx.Err() != nil {
			f.err = ErrClosed // those who wait did not cancel anything
		}
		s.finish(f)
	}
	return s
}

// Current returns the token as it is now, or "" if none has been fetched. It costs one atomic load.
func (s *Source) Current() string {
	if f := s.current.Load(); f != nil {
		return f.token
	}
	return ""
}

// freshness is how long a token may be news to some members: far longer than they usually lag behind each other.
const freshness = time.Second

// Fresh reports whether the token is the current one and was fetched within the last second. A member that refuses it
// then may not have heard of it yet: simple tokens, and that authentication is on, get around by raft.
func (s *Source) Fresh(token string) bool {
	f := s.current.Load()
	return f != nil && f.token == token && time.Since(f.ended) < freshness
}

// Refresh replaces the token that a server has refused, and returns the new one. The refused token is the one that the
// call carried, "" if it carried none: if another has taken its place since, that one is returned and nothing fetched,
// so that many calls refused at once cause one fetch.
//
// Where a fetch is under way Refresh waits for it, whichever token was refused. All who wait share its outcome. A
// failure is not remembered: the current token stays, and the next Refresh fetches again. Refresh returns the bare
// error of ctx when that ends first, and ErrClosed once the source is closed.
func (s *Source) Refresh(ctx context.Context, refused string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return "", ErrClosed
	}
	f := s.pending
	if f == nil {
		if token := s.Current(); token != refused {
			s.mu.Unlock()
			return token, nil
		}
		f = &fetch{done: make(chan struct{})}
		s.pending = f
		// Under mu and before closed is set, so that Close waits for it.
		s.running.Go(func() { s.start(f) })
	}
	s.mu.Unlock()

	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// finish publishes the outcome of a fetch. The token is stored before the fetch stops being the one under way: a caller
// that comes between would find neither, and fetch once more.
func (s *Source) finish(f *fetch) {
	s.mu.Lock()
	f.ended = time.Now()
	if f.err == nil {
		s.current.Store(f)
	}
	s.pending = nil
	s.mu.Unlock()
	close(f.done)
}

// Close ends the fetch that is under way and waits for it. Those who wait for it get ErrClosed. The current token stays
// readable. Closing again does nothing but wait.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.running.Wait()
}
