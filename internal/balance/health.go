package balance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// HealthConfig says how patient a Set is.
type HealthConfig struct {
	// Interval is how long an endpoint with calls or streams open may be silent before it is probed.
	Interval time.Duration
	// Timeout is how long a probe may go unanswered before the connection is dropped.
	Timeout time.Duration
	// Prove returns nil when the cluster has proved that it has a leader. See Set.AwaitProof. Nil: it is not asked to.
	Prove func(context.Context) error
}

// How time is kept. It is counted in ticks, not read from a clock: a program that was stopped, or starved, for a while
// finds one tick at most waiting for it, together with the answers that have come meanwhile, and suspects nobody.
const (
	ticksPerInterval = 4
	suspectTicks     = 2 // an unanswered probe makes its endpoint suspect
	restTicks        = 4 // without anything to watch the monitor ends
	recheckTicks     = 4 // between probes of an endpoint that refuses calls, unless somebody waits for a leader
)

// Why an endpoint refuses calls that need a leader, for people. The empty string: it does not.
const (
	refusalNoLeader = "it says that it has no leader"
	refusalLearner  = "it says that it is a learner"
	refusalStuck    = "it does not answer what needs a leader, and another does"
)

// watch is what the monitor keeps of an endpoint. The Set's mu guards it.
type watch struct {
	health Health
	since  time.Time
	reason string

	answers uint32 // at the last tick
	open    bool   // calls were open at the last tick
	quiet   int    // ticks in which calls were open and nothing was answered
	alive   uint64 // the last tick that found an answer
	probe   *probe // the one under way, or nil

	suspected bool // a probe has been unanswered for suspectTicks
	unproven  bool // its connection was dropped, and it has not answered since

	refusal   string // why it refuses, or empty
	refusals  int    // probes that said so, one after the other
	refusedAt uint64 // the tick of the first time
	leading   uint64 // the last tick in which a probe found that it has a leader
	recheck   int    // ticks until it is asked again whether it still refuses

	trial     *trial // the one under way, or nil
	nextTrial uint64 // the tick from which there may be another
	doubts    int    // reasons for one
	doubtedAt uint64 // the tick of the last of them
}

// probe is a question to an endpoint, under way.
type probe struct {
	cancel context.CancelFunc
	begun  uint64 // the tick after which it was sent
	ticks  int    // since then
	owed   bool   // it was sent because the endpoint was silent, which is passed over until it answers
	others int    // ticks at which another endpoint answered while this one was suspected
}

// monitor watches the endpoints of a Set. It has one goroutine while calls or streams are open, or somebody waits for a
// leader, and one for each probe under way, all of which close waits for.
//
// The state it works on is the endpoints' and is guarded by the Set's mu.
type monitor struct {
	set          *Set
	conn         grpc.ClientConnInterface
	interval     time.Duration // of ticks
	timeoutTicks int
	prove        func(context.Context) error
	metadata     context.Context //nolint:containedctx // the metadata of probes, made once
	ctx          context.Context //nolint:containedctx // of probes
	cancel       context.CancelFunc
	tasks        sync.WaitGroup
	awake        atomic.Bool // the goroutine runs; written under mu

	// Guarded by the Set's mu.
	tick   uint64
	idle   int // ticks with nothing to watch
	closed bool
}

// Watch makes the set look after the health of its endpoints, by probes made on conn, until that is closed. It is
// called once, before conn connects.
func (s *Set) Watch(conn grpc.ClientConnInterface, cfg HealthConfig) {
	interval := cfg.Interval / ticksPerInterval
	m := &monitor{
		set: s, conn: conn, interval: interval,
		timeoutTicks: int((cfg.Timeout + interval - 1) / interval),
		prove:        cfg.Prove,
		// A member without leader says so, and any other is not kept from answering: one probe asks for both.
		metadata: metadata.NewOutgoingContext(context.Background(),
			metadata.Pairs(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	s.monitor = m
}

// wake starts the goroutine, if it does not run. The caller holds mu.
func (m *monitor) wake() {
	if m == nil || m.closed || m.awake.Load() {
		return
	}
	m.idle = 0
	m.awake.Store(true)
	m.tasks.Go(m.run)
}

// begun is called for each call that begins.
func (m *monitor) begun() {
	if m == nil || m.awake.Load() {
		return
	}
	m.set.mu.Lock()
	defer m.set.mu.Unlock()
	m.wake()
}

// close ends the goroutine and all probes, and waits for them.
func (m *monitor) close() {
	if m == nil {
		return
	}
	m.set.mu.Lock()
	m.closed = true
	m.set.mu.Unlock()
	m.cancel()
	m.tasks.Wait()
}

func (m *monitor) run() {
	ticker := time.NewTicker(m.interval)
	defer ticker.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-ticker.C:
		}
		if m.look() {
			return
		}
	}
}

// look does what is due at a tick. It returns true if the goroutine is to end, which it may then not do anything in.
func (m *monitor) look() (rest bool) {
	s := m.set
	s.mu.Lock()
	m.tick++
	busy := s.awaiting > 0
	for _, e := range s.endpoints {
		busy = m.listen(e) || busy
	}
	var silent []*Endpoint
	for _, e := range s.endpoints {
		m.judge(e)
		if e.state == connectivity.Ready && m.examine(e) {
			silent = append(silent, e)
		}
	}
	s.seekLeader()
	moving := s.relocate()
	if busy {
		m.idle = 0
	} else if m.idle++; m.idle >= restTicks {
		rest = m.rest()
	}
	s.report()

	for _, e := range silent {
		e.lines.cut(reasonSilent)
	}
	moving.make()
	return rest
}

const reasonSilent = "connection dropped: the endpoint does not answer"

var errSilent = errors.New(reasonSilent)

// rest ends the watch when there is nothing to watch. A call that begins after awake was cleared starts it anew; one
// that began before is seen here.
func (m *monitor) rest() bool {
	m.awake.Store(false)
	for _, e := range m.set.endpoints {
		if open, _ := e.traffic.load(); open > 0 || e.watch.probe != nil || e.watch.trial != nil {
			m.awake.Store(true)
			return false
		}
	}
	for _, e := range m.set.endpoints {
		// Nobody asks any more whether it still refuses, so it is not passed over any more. What is shown stays, and is
		// asked about when there are calls again, as if it had just been said.
		e.setStanding(refusing, false)
		e.watch.refusals, e.watch.refusedAt, e.watch.recheck, e.watch.nextTrial = 0, m.tick+1, 0, 0
	}
	return true
}

// listen sees whether the endpoint has given signs of life since the last tick, and reports whether there is anything to
// watch about it.
func (m *monitor) listen(e *Endpoint) (busy bool) {
	w := &e.watch
	open, answers := e.traffic.load()
	if answers != w.answers {
		busy = true // though every call may have ended before the tick
		w.answers, w.alive = answers, m.tick
		m.lives(e)
	} else if open > 0 && w.open {
		w.quiet++
	} else {
		w.quiet = 0 // only now, or no longer, is there something to wait for
	}
	w.open = open > 0
	return busy || open > 0 || w.probe != nil || w.trial != nil || w.unproven && e.state == connectivity.Ready
}

// lives notes a sign of life.
func (m *monitor) lives(e *Endpoint) {
	w := &e.watch
	w.quiet = 0
	if p := w.probe; p != nil && p.owed {
		p.cancel() // it is answered by deed
		w.probe = nil
	}
	if e.standing.Load()&demoted != 0 {
		e.setStanding(demoted, false)
		m.set.tellLed()
	}
	w.suspected, w.unproven = false, false
	m.set.assess(e, "it answers")
}

// examine sends the probes that are due to a connected endpoint, and judges by the one under way. It returns true if the
// connection is to be cut.
func (m *monitor) examine(e *Endpoint) (cut bool) {
	w := &e.watch
	if w.recheck > 0 {
		w.recheck--
	}
	switch {
	case w.probe == nil && (w.quiet >= ticksPerInterval || w.unproven):
		m.ask(e, true)
	case w.probe == nil && w.refusal != "" && w.refusal != refusalStuck && (w.recheck == 0 || m.set.awaiting > 0):
		w.recheck = recheckTicks
		m.ask(e, false)
	case w.probe != nil && w.quiet >= ticksPerInterval && !w.probe.owed:
		w.probe.owed = true
		e.setStanding(demoted, true)
	}
	p := w.probe
	if p == nil || !p.owed {
		return false
	}
	if p.begun < m.tick {
		p.ticks++
	}
	if p.ticks < suspectTicks {
		return false
	}
	w.suspected = true
	m.set.assess(e, fmt.Sprintf("it owes an answer to a probe for %v", time.Duration(p.ticks)*m.interval))
	if m.othersLive(e) {
		p.others++
	}
	// Once is not enough: when all come back at the same time one is the first.
	if p.ticks < m.timeoutTicks || p.others < 2 || !e.lines.cuttable() {
		return false
	}
	p.cancel()
	w.probe = nil
	m.drop(e)
	return true
}

// drop notes that the endpoint's connection is dropped. It is Down until it has been connected to again, and passed over
// until it has answered.
func (m *monitor) drop(e *Endpoint) {
	w := &e.watch
	w.suspected, w.unproven, w.quiet = false, true, 0
	e.setStanding(demoted, true)
	e.state = connectivity.TransientFailure // what gRPC will say, as soon as it notices
	m.set.doubtLeader()
	e.err = errSilent
	m.set.assess(e, reasonSilent)
}

// Doubt is told of a call that waits for its answer longer than calls usually do. If its endpoint has answered nothing at
// all since the call began it is probed at once, without waiting for the interval to pass.
func (s *Set) Doubt(call *Call) {
	e := call.endpoint.Load()
	if s.monitor == nil || e == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, answers := e.traffic.load(); answers != call.answers.Load() || e.state != connectivity.Ready {
		return
	}
	s.monitor.wake()
	if p := e.watch.probe; p == nil {
		if s.monitor.ask(e, true) {
			e.watch.probe.begun++ // it counts from the next tick, which is nearer than a tick
		}
	} else if !p.owed {
		p.owed = true
		e.setStanding(demoted, true)
	}
}

// othersLive reports whether another endpoint has answered just now, at the last two ticks, and asks those that have not.
// Where nobody answers it is this side, or the network, that is to blame, or there is nobody to go to: to drop
// connections would help nobody, and end calls that may yet be answered.
func (m *monitor) othersLive(e *Endpoint) bool {
	live := false
	for _, other := range m.set.endpoints {
		if other == e || other.state != connectivity.Ready {
			continue
		}
		if other.watch.alive+1 >= m.tick {
			live = true
		} else if other.watch.probe == nil {
			m.ask(other, false)
		}
	}
	return live
}

// ask sends a probe to a connected endpoint that has none under way, unless the set is closed.
func (m *monitor) ask(e *Endpoint, owed bool) bool {
	if m.closed {
		return false
	}
	ctx, cancel := context.WithCancel(m.ctx)
	p := &probe{cancel: cancel, begun: m.tick, owed: owed}
	e.watch.probe = p
	if owed {
		e.setStanding(demoted, true)
	}
	m.tasks.Go(func() { m.send(ctx, e, p) })
	return true
}

// send makes the call of a probe, and notes what has come of it.
func (m *monitor) send(ctx context.Context, e *Endpoint, p *probe) {
	defer p.cancel()
	call := &Call{Context: ctx, fallback: m.metadata, target: e}
	_, err := healthpb.NewHealthClient(m.conn).Check(call, &healthpb.HealthCheckRequest{})
	s := m.set
	s.mu.Lock()
	if e.watch.probe == p {
		e.watch.probe = nil
		if call.Answered() {
			e.watch.alive = m.tick + 1 // as the next tick would find it; probes do not count as traffic
			m.lives(e)
			m.answered(e, err)
		} else {
			// The connection is gone, or going.
			e.setStanding(demoted, e.watch.unproven)
		}
	}
	moving := s.relocate()
	s.report()
	moving.make()
}

// answered notes what the answer to a probe says about the endpoint's leader: a learner, and a member without leader,
// refuse. Another error is the answer of somebody who does not know the question.
func (m *monitor) answered(e *Endpoint, err error) {
	switch refusal := refusalOf(err); {
	case refusal != "":
		m.set.refuse(e, refusal)
		e.watch.refusals++
	case e.watch.refusal == refusalStuck:
		// It says that it has a leader, as it did before. See judge.
	default:
		m.set.accept(e)
		e.watch.leading = m.tick + 1
	}
}

// refusalOf returns the reason if err is the refusal of a call that needs a leader, and else an empty string.
func refusalOf(err error) string {
	switch rpctypes.ErrorDesc(err) {
	case rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader):
		return refusalNoLeader
	case rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner):
		return refusalLearner
	}
	return ""
}
