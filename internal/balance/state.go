package balance

import (
	"time"

	"google.golang.org/grpc/connectivity"
)

// Health is what people are told of an endpoint.
type Health uint8

const (
	// Connecting: it is not dialled yet, or is for the first time, or again after its connection was lost.
	Connecting Health = iota
	// Healthy: it is connected, and has answered whatever it was asked.
	Healthy
	// Suspect: it is connected, and a probe has gone unanswered for a while.
	Suspect
	// Down: it could not be connected to, or its connection was dropped because it did not answer.
	Down
	// Leaderless: it answers, and says that it has no leader, or has failed a trial.
	Leaderless
	// Learner: it answers, and says that it has no vote.
	Learner
)

// String returns the name of the state in lower case.
func (h Health) String() string {
	return [...]string{"connecting", "healthy", "suspect", "down", "leaderless", "learner"}[h]
}

// Status is what a Set knows of an endpoint at one moment.
type Status struct {
	Endpoint string             // as given to the client
	State    connectivity.State // of its connection; TransientFailure lasts until the next success
	Err      error              // why the last connection attempt failed, or nil
	InFlight int64              // calls and streams under way, without probes
	Health   Health
	Since    time.Time // when it became so
	Reason   string    // why
}

// Change is an endpoint's way from one state to the next.
type Change struct {
	From Health
	To   Status
}

// status returns what is known of the endpoint. The caller holds the Set's mu.
func (e *Endpoint) status() Status {
	open, _ := e.traffic.load()
	return Status{
		Endpoint: e.target.Raw, State: e.state, Err: e.err, InFlight: int64(open),
		Health: e.watch.health, Since: e.watch.since, Reason: e.watch.reason,
	}
}

// assess sees what the endpoint's state is by now and, if it has changed, notes since when and why. The caller holds mu
// and calls report afterwards.
func (s *Set) assess(e *Endpoint, reason string) {
	w := &e.watch
	health := Healthy
	switch {
	case e.state == connectivity.TransientFailure:
		health = Down
	case e.state != connectivity.Ready:
		health = Connecting
		if w.health == Down {
			health = Down // until it is connected
		}
	case w.suspected || w.unproven:
		health = Suspect
	case w.refusal != "":
		health = Leaderless
		if w.refusal == refusalLearner {
			health = Learner
		}
	}
	if health == w.health {
		return
	}
	from := w.health
	w.health, w.since, w.reason = health, time.Now(), reason
	if s.onChange != nil {
		s.changes = append(s.changes, Change{From: from, To: e.status()})
	}
}

// OnChange makes the set call f after each change of an endpoint's state, in order and one at a time. It is called
// before the set is dialled. F may ask the set for anything, but must not wait for an Update.
func (s *Set) OnChange(f func(Change)) { s.onChange = f }

// report unlocks mu and tells of the changes made under it, and of those that others make meanwhile: they leave theirs to
// whoever is telling, so that nobody waits for f with mu held.
func (s *Set) report() {
	if s.telling {
		s.mu.Unlock()
		return
	}
	s.telling = true
	for len(s.changes) > 0 {
		changes := s.changes
		s.changes = nil
		s.mu.Unlock()
		for _, change := range changes {
			s.onChange(change)
		}
		s.mu.Lock()
	}
	s.telling = false
	s.mu.Unlock()
}
