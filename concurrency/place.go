package concurrency

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	v3 "github.com/seed-d18e112a/clientv3"
)

// place is what a session knows of one of its keys: which claims share it, and what is being done to get rid of it.
//
// The rule is that a key which a claim has made, or may have made, does not outlive the session's interest in it. When
// a claim fails, another one that shares the key inherits the duty to delete it; without one it is swept. A claim that
// comes while a sweep is under way waits for its end, since it would find the key and join it just before it goes.
type place struct {
	claims map[*claim]struct{}
	sweep  chan struct{} // closed when the sweep under way is over; nil without one

	// straggling is set from when a request that creates the key was given up without knowing whether it ever will be
	// carried out: a frozen member may do so much later. The key is watched from then on until the session ends.
	straggling bool
}

// sweepPatience is how long a Lock or Campaign that fails waits for its key to be deleted. Its caller wants to go on;
// the sweep goes on too.
const sweepPatience = 2 * time.Second

// claim returns a new claim under the prefix.
func (s *Session) claim(ctx context.Context, prefix string, errs *claimErrors) (*claim, error) {
	c := &claim{session: s, prefix: prefix, key: fmt.Sprintf("%s%x", prefix, s.id), errs: errs}
	for {
		if err := s.failure(); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		swept := s.enter(c)
		if swept == nil {
			return c, nil
		}
		select {
		case <-swept:
		case <-ctx.Done():
		case <-s.lost.Done():
		}
	}
}

// enter takes a claim up in its place, unless a sweep is under way there: then it returns the channel that tells when
// that is over.
func (s *Session) enter(c *claim) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.place(c.key)
	if p.sweep != nil {
		return p.sweep
	}
	c.made = p.straggling // what it finds there may be the straggler
	c.ctx, c.end = context.WithCancelCause(s.lost)
	p.claims[c] = struct{}{}
	return nil
}

// place returns the place of a key. The session's mutex is held.
func (s *Session) place(key string) *place {
	p := s.places[key]
	if p == nil {
		p = &place{claims: map[*claim]struct{}{}}
		s.places[key] = p
	}
	return p
}

// resume returns a claim to a key that is there already.
func (s *Session) resume(prefix, key string, rev int64, errs *claimErrors) *claim {
	c := &claim{session: s, prefix: prefix, key: key, errs: errs, rev: rev, made: true}
	c.ctx, c.end = context.WithCancelCause(s.lost)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.place(key).claims[c] = struct{}{}
	return c
}

// leave takes a claim out of its place when its key is gone.
func (s *Session) leave(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.part(c); p != nil {
		s.tidy(c.key, p)
	}
}

// handOver ends a claim whose key an older claim has too, which answers for it from now on.
func (s *Session) handOver(c, older *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	older.made = older.made || c.made
	if p := s.part(c); p != nil {
		s.tidy(c.key, p)
	}
	c.end(c.errs.released)
}

// part takes a claim out of its place and returns that, or nil if it was not in there any more. The session's mutex is
// held.
func (s *Session) part(c *claim) *place {
	p := s.places[c.key]
	if p == nil {
		return nil
	}
	if _, ok := p.claims[c]; !ok {
		return nil
	}
	delete(p.claims, c)
	if c.unsure {
		s.watchForStragglers(c.key, p)
	}
	return p
}

// abandon ends a claim that has failed, and deletes its key unless somebody else has a right to it. It returns when the
// key is gone, or after sweepPatience.
func (s *Session) abandon(c *claim) {
	swept := s.withdraw(c)
	c.end(c.errs.released)
	if swept == nil {
		return
	}
	timer := time.NewTimer(sweepPatience)
	defer timer.Stop()
	select {
	case <-swept:
	case <-timer.C:
	case <-s.lost.Done():
	}
}

// withdraw takes a claim out of its place and starts a sweep if that is called for. It returns the channel that tells
// when the sweep is over, or nil.
func (s *Session) withdraw(c *claim) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.part(c)
	if p == nil {
		return nil
	}
	defer s.tidy(c.key, p)
	if s.closed || s.lost.Err() != nil {
		return nil // the key goes with the lease
	}
	if !c.made && !c.unsure {
		return nil
	}
	for other := range p.claims {
		// One without a revision is under way, and will find the key.
		if other.rev == 0 || other.rev == c.rev {
			other.made = true
			return nil
		}
	}
	p.sweep = make(chan struct{})
	s.background.Go(func() { s.runSweep(c.key, p, c.rev) })
	return p.sweep
}

// tidy forgets a place that there is nothing to know of any more. The session's mutex is held.
func (s *Session) tidy(key string, p *place) {
	if len(p.claims) == 0 && p.sweep == nil && !p.straggling {
		delete(s.places, key)
	}
}

// runSweep deletes the key that was created in the revision, or, where that is 0, whatever key is there.
func (s *Session) runSweep(key string, p *place, rev int64) {
	for attempt := 0; s.sweeping.Err() == nil && s.client.Ctx().Err() == nil; attempt++ {
		err := s.remove(key, rev)
		if err == nil {
			break
		}
		// A request that was given up after sweepTimeout may have met a frozen member.
		if !transient(err) && !errors.Is(err, context.DeadlineExceeded) && s.sweeping.Err() == nil {
			s.client.GetLogger().Warn("key of a failed lock or campaign not deleted, it stays as long as its lease",
				zap.String("key", key), zap.Error(err))
			break
		}
		_ = pause(s.sweeping, attempt)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(p.sweep)
	p.sweep = nil
	s.tidy(key, p)
}

// sweepTimeout bounds one attempt to delete a key, so that one which got lost does not hold up the next.
const sweepTimeout = 5 * time.Second

// remove deletes the key as it was created in the revision, or, where that is 0, as it is found, unless a claim has it.
func (s *Session) remove(key string, rev int64) error {
	ctx, cancel := context.WithTimeout(s.sweeping, sweepTimeout)
	defer cancel()
	if rev == 0 {
		resp, err := s.client.Get(ctx, key, v3.WithKeysOnly())
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		if rev = resp.Kvs[0].CreateRevision; s.claimed(key, rev) {
			return nil
		}
	}
	created := v3.Compare(v3.CreateRevision(key), "=", rev)
	_, err := s.client.Txn(ctx).If(created).Then(v3.OpDelete(key)).Commit()
	return err
}

// claimed reports whether a claim has the key as it was created in the revision, or may be about to.
func (s *Session) claimed(key string, rev int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[key]
	if p == nil {
		return false
	}
	for c := range p.claims {
		if c.rev == 0 || c.rev == rev {
			return true
		}
	}
	return false
}

// watchForStragglers sees to it that a key which comes up late is deleted. The session's mutex is held.
func (s *Session) watchForStragglers(key string, p *place) {
	if p.straggling || s.closed || s.lost.Err() != nil {
		return
	}
	p.straggling = true
	s.background.Go(func() { s.sweepStragglers(key) })
}

// sweepStragglers deletes the key whenever it comes up without a claim to it, until the session ends. A claim that is
// under way meanwhile finds the key and takes it over.
func (s *Session) sweepStragglers(key string) {
	ctx := v3.WithRequireLeader(s.sweeping)
	for attempt := 0; s.sweeping.Err() == nil && s.client.Ctx().Err() == nil; attempt++ {
		s.sweepStragglersOnce(ctx, key)
		_ = pause(ctx, attempt)
	}
}

// sweepStragglersOnce does so until the watch ends.
func (s *Session) sweepStragglersOnce(ctx context.Context, key string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := s.client.Watch(ctx, key, v3.WithFilterDelete())
	// The watch begins now; what came before it is seen by looking.
	for err := s.remove(key, 0); err == nil; err = s.remove(key, 0) {
		if resp, ok := <-watch; !ok || resp.Err() != nil {
			return
		}
	}
}
