package concurrency

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	v3 "github.com/seed-d18e112a/clientv3"
)

var (
	// ErrElectionNotLeader is what calls return that only the leader can make, and the cause of the end of a
	// leadership's context when the leader resigned, or its key was deleted.
	ErrElectionNotLeader = errors.New("election: not leader")
	// ErrElectionNoLeader is what Leader returns when nobody leads.
	ErrElectionNoLeader = errors.New("election: no leader")
)

var electionErrors = &claimErrors{
	lost:     fmt.Errorf("%w: the leader's key was deleted", ErrElectionNotLeader),
	released: ErrElectionNotLeader,
}

// Election elects one session at a time to be the leader: see the package documentation for what that is good for. Make
// one with NewElection. Its methods are safe for concurrent use.
type Election struct {
	session *Session
	prefix  string
	tenure  tenure
}

// NewElection returns the election with the given prefix, for the session. It does nothing yet.
func NewElection(s *Session, pfx string) *Election {
	return &Election{session: s, prefix: pfx + "/"}
}

// ResumeElection returns the election with the given prefix for a session that leads already, as a program does that
// was restarted and has taken up its lease again: leaderKey and leaderRev are what Key and Rev were.
func ResumeElection(s *Session, pfx string, leaderKey string, leaderRev int64) *Election {
	e := NewElection(s, pfx)
	e.tenure.claim, e.tenure.held = s.resume(e.prefix, leaderKey, leaderRev, electionErrors), true
	return e
}

// Campaign waits until the session is the leader, with val as what it has to say. Candidates are elected in the order
// in which they came. If the session is a candidate or the leader already, val replaces what it said before.
//
// Errors, and what happens to the candidacy when it fails, are as with Mutex.Lock. If Resign ends it, Campaign returns
// ErrElectionNotLeader.
func (e *Election) Campaign(ctx context.Context, val string) error {
	c, err := e.session.claim(ctx, e.prefix, electionErrors)
	if err != nil {
		return err
	}
	header, err := c.acquire(ctx, val, func() { e.tenure.pend(c) })
	return e.tenure.settle(c, header, err)
}

// Proclaim changes what the leader, or a candidate who is waiting in Campaign, has to say. It returns
// ErrElectionNotLeader if the session is neither.
func (e *Election) Proclaim(ctx context.Context, val string) error {
	c, _ := e.tenure.get()
	if c == nil {
		return ErrElectionNotLeader
	}
	resp, err := e.session.client.Txn(ctx).If(c.owned()).Then(c.put(val)).Commit()
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		c.keyGone()
		c.session.leave(c)
		e.tenure.drop(c)
		return ErrElectionNotLeader
	}
	e.tenure.setHeader(resp.Header)
	return nil
}

// Resign gives up the leadership, or the candidacy of a Campaign that waits. It is no error if there is none, or if it
// was lost meanwhile. If Resign fails it may be called again.
func (e *Election) Resign(ctx context.Context) (err error) {
	c, _ := e.tenure.get()
	if c == nil {
		return nil
	}
	header, err := c.release(ctx)
	if err != nil {
		return err
	}
	e.tenure.drop(c)
	e.tenure.setHeader(header)
	return nil
}

// Leader returns who leads: a response with one key, whose value is what the leader has to say. It returns
// ErrElectionNoLeader if nobody does.
func (e *Election) Leader(ctx context.Context) (*v3.GetResponse, error) {
	resp, err := e.session.client.Get(ctx, e.prefix, v3.WithFirstCreate()...)
	if err != nil {
		return nil, err
	}
	if len(resp.Kvs) == 0 {
		return nil, ErrElectionNoLeader
	}
	return resp, nil
}

// Key returns the key with which the session leads, or is a candidate, or "" while it does neither.
func (e *Election) Key() string {
	c, _ := e.tenure.get()
	if c == nil {
		return ""
	}
	return c.key
}

// Rev returns the create revision of the leader's key, or the candidate's, or of the last one that the session had: 0
// if there never was one. Like Mutex.Rev it can be used as a fencing token.
func (e *Election) Rev() int64 {
	c, _ := e.tenure.get()
	if c == nil {
		return e.tenure.lastRev()
	}
	return c.revision()
}

// Header returns the header of the response of the last Campaign, Proclaim or Resign that had a success, or nil.
func (e *Election) Header() *pb.ResponseHeader { return e.tenure.lastHeader() }

// IsLeader returns a comparison that holds as long as this Election leads: a transaction with it is carried out
// only then. While it does not lead it never holds. See also Txn.
func (e *Election) IsLeader() v3.Cmp { return e.tenure.owned() }

// Context returns a context that ends when the leadership is lost or resigned. context.Cause tells which, as with
// Mutex.Context: ErrElectionNotLeader if the leader resigned or its key was deleted, by somebody else or by the server
// with the session's lease; ErrSessionExpired if the session was the first to know that its lease is gone. It carries
// no values. While the session does not lead it has ended already.
//
// The first call for a leadership starts a watch, which lasts as long as the context.
func (e *Election) Context() context.Context { return e.tenure.context(electionErrors) }

// Txn begins a transaction that is carried out only if the session leads at that very moment: If, Then, Else and the
// response are as always, and Commit returns ErrElectionNotLeader if it does not, or what else the cause of Context's
// end is.
func (e *Election) Txn(ctx context.Context) v3.Txn {
	return e.tenure.txn(ctx, e.session.client, electionErrors)
}
