package balance

import (
	"context"

	"google.golang.org/grpc/connectivity"
)

// Refused notes that the endpoint of the call's last attempt has refused it with err, if that says that it has no
// leader or is a learner: calls that need a leader pass it over until it says otherwise.
func (s *Set) Refused(call *Call, err error) {
	refusal, e := refusalOf(err), call.endpoint.Load()
	if refusal == "" || e == nil || s.monitor == nil {
		return
	}
	s.mu.Lock()
	defer s.report()
	first := e.watch.refusal == ""
	s.refuse(e, refusal)
	s.monitor.wake()
	if first {
		s.seekLeader()
	}
}

// seekLeader asks, where an endpoint has no leader, those of which it is not known that they have had one since. It is
// called at every tick and at the first refusal, not at the answers: they would lead to the next question at once. The
// caller holds mu.
func (s *Set) seekLeader() {
	for _, e := range s.endpoints {
		if e.watch.refusal != refusalNoLeader {
			continue
		}
		for _, other := range s.endpoints {
			w := &other.watch
			if other.state == connectivity.Ready && w.probe == nil && w.refusal == "" && w.leading <= e.watch.refusedAt {
				s.monitor.ask(other, false)
			}
		}
	}
}

// refuse notes that the endpoint refuses calls that need a leader. The caller holds mu.
func (s *Set) refuse(e *Endpoint, refusal string) {
	w := &e.watch
	if w.refusal == "" {
		w.refusedAt, w.refusals, w.recheck = s.monitor.tick+1, 0, 1
	}
	w.refusal = refusal
	e.setStanding(refusing, true)
	s.assess(e, refusal)
	s.reviewProof()
}

// accept notes that the endpoint takes calls that need a leader. The caller holds mu.
func (s *Set) accept(e *Endpoint) {
	e.watch.refusal = ""
	e.setStanding(refusing, false)
	s.assess(e, "it has a leader")
	s.tellLed()
}

// moves are the endpoints whose streams are to move, and why.
type moves map[*Endpoint]string

// relocate returns the endpoints whose streams are to move: those that have said, or shown, twice that they have no
// leader, while another one has said since that it has one. Once is not enough: in an election members lose their leader
// one after the other, for a moment. The caller holds mu.
func (s *Set) relocate() (moving moves) {
	for _, e := range s.endpoints {
		if (e.watch.refusal != refusalNoLeader && e.watch.refusal != refusalStuck) || e.watch.refusals == 0 {
			continue
		}
		for _, other := range s.endpoints {
			if other.state == connectivity.Ready && other.watch.refusal == "" && !other.watch.suspected &&
				other.watch.leading > e.watch.refusedAt {
				if moving == nil {
					moving = make(moves)
				}
				moving[e] = e.watch.refusal
				break
			}
		}
	}
	return moving
}

// make ends the streams.
func (m moves) make() {
	for e, reason := range m {
		e.lines.move(reason)
	}
}

// leading reports whether a call that needs a leader may be served by an endpoint, as far as is known: one that is
// connected, does not refuse and owes no answer, or any if none is connected. The caller holds mu.
func (s *Set) leading() bool {
	connected := false
	for _, e := range s.endpoints {
		if e.state != connectivity.Ready {
			continue
		}
		connected = true
		if e.standing.Load() == 0 {
			return true
		}
	}
	return !connected
}

// HasLeader reports whether a connected endpoint answers and has not, lately, refused calls that need a leader. It is
// true if none is connected.
func (s *Set) HasLeader() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leading()
}

// WaitLeader waits until HasLeader, or the connection is closed, or ctx has ended; only the last is an error. The
// members are asked at every tick while anyone waits, however many do.
func (s *Set) WaitLeader(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.leading() || s.Closed() {
			s.mu.Unlock()
			return ctx.Err()
		}
		if s.led == nil {
			s.led = make(chan struct{})
		}
		led := s.led
		s.awaiting++
		s.monitor.wake()
		s.mu.Unlock()

		var err error
		select {
		case <-led:
		case <-s.closed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
		s.awaiting--
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// tellLed wakes those who wait for a leader. They look for themselves. The caller holds mu.
func (s *Set) tellLed() {
	if s.led != nil {
		close(s.led)
		s.led = nil
	}
}
