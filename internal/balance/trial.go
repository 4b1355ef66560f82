package balance

import (
	"context"

	"google.golang.org/grpc/connectivity"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A member may answer every probe, say that it has a leader, and yet not serve what takes the agreement of the members:
// its raft stands still, or what it tells the others gets lost. (Seen with etcd 3.7: a leader that was frozen and thawed
// follows the new one, but for seconds, up to half a minute, gets nothing of what it proposes committed, nor what others
// do; its callers do not learn that before their deadlines.) So where calls give reason for doubt the member is put on
// trial: it has to answer a linearizable read within the time that a probe has, if another endpoint does. One that fails
// is passed over by calls that need a leader, and tried again until it passes. One that is merely slow passes.
type trial struct {
	cancel        context.CancelFunc
	control       *Endpoint
	ticks         int // since it began
	own, controls verdict
}

// verdict is what has come of one of the two reads of a trial.
type verdict uint8

const (
	pending verdict = iota // no answer yet
	served                 // see Agree
	unclear                // failed
)

const (
	// doubtLimit is how many reads have to be overtaken, with at most doubtTicks between them, for a trial.
	doubtLimit = 3
	doubtTicks = 8
)

// Overtaken is told of a read that another endpoint has answered while the call's own has not.
func (s *Set) Overtaken(call *Call) { s.doubt(call, 1) }

// TimedOut is told of a call that has found no answer in the time that its caller, or the server, had for it.
func (s *Set) TimedOut(call *Call) { s.doubt(call, doubtLimit) }

func (s *Set) doubt(call *Call, weight int) {
	e := call.endpoint.Load()
	if s.monitor == nil || e == nil || call.serializable {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w, tick := &e.watch, s.monitor.tick
	if w.doubts > 0 && tick > w.doubtedAt+doubtTicks {
		w.doubts = 0
	}
	w.doubts, w.doubtedAt = w.doubts+weight, tick
	// One that owes an answer has a probe to answer first.
	if w.doubts >= doubtLimit && w.refusal == "" && e.standing.Load()&demoted == 0 && tick >= w.nextTrial {
		s.monitor.try(e)
	}
}

// try puts an endpoint on trial, unless it is already. With nobody to compare it with it passes. The caller holds the
// Set's mu.
func (m *monitor) try(e *Endpoint) {
	if m.closed || e.watch.trial != nil || e.state != connectivity.Ready {
		return
	}
	control := m.control(e)
	if control == nil {
		if e.watch.refusal == refusalStuck {
			m.set.accept(e)
		}
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	t := &trial{cancel: cancel, control: control}
	e.watch.trial, e.watch.doubts = t, 0
	m.wake()
	m.tasks.Go(func() { m.read(ctx, e, t, &t.own) })
	m.tasks.Go(func() { m.read(ctx, control, t, &t.controls) })
}

// control returns another endpoint that should be able to answer, or nil.
func (m *monitor) control(e *Endpoint) *Endpoint {
	for _, other := range m.set.endpoints {
		if other != e && other.state == connectivity.Ready && other.standing.Load() == 0 {
			return other
		}
	}
	return nil
}

// read makes one of the reads of a trial.
func (m *monitor) read(ctx context.Context, e *Endpoint, t *trial, result *verdict) {
	call := &Call{Context: ctx, fallback: m.metadata, target: e}
	err := Agree(call, pb.NewKVClient(m.conn))
	m.set.mu.Lock()
	defer m.set.report()
	*result = served
	if err != nil {
		*result = unclear
	}
	if e.watch.trial == t && t.own == served {
		m.conclude(e)
	}
}

// judge sees whether the endpoint's trial is decided, and begins the next one of an endpoint that has not passed. It is
// called at every tick. The caller holds the Set's mu.
func (m *monitor) judge(e *Endpoint) {
	w := &e.watch
	t := w.trial
	if t != nil {
		t.ticks++
		m.conclude(e)
	} else if w.refusal == refusalStuck && (m.tick >= w.nextTrial || m.set.awaiting > 0) {
		m.try(e)
	}
}

// conclude ends the endpoint's trial if it is decided. The caller holds the Set's mu.
func (m *monitor) conclude(e *Endpoint) {
	w := &e.watch
	t := w.trial
	switch {
	case t.own == served:
		if w.refusal == refusalStuck {
			m.set.accept(e)
		}
	case t.own == unclear || t.controls == unclear:
	case t.ticks < m.timeoutTicks:
		return
	case t.controls == served && (w.refusal == refusalStuck || w.refusal == ""):
		if w.refusal == refusalStuck {
			w.refusals++
		}
		m.set.refuse(e, refusalStuck)
		t.control.watch.leading = m.tick + 1
	}
	w.endTrial()
	w.nextTrial = m.tick + recheckTicks
}

// endTrial ends the endpoint's trial without a result, if there is one. The caller holds the Set's mu.
func (w *watch) endTrial() {
	if w.trial != nil {
		w.trial.cancel()
		w.trial = nil
	}
}
