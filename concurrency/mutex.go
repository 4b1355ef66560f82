package concurrency

import (
	"context"
	"errors"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	v3 "github.com/seed-d18e112a/clientv3"
)

var (
	// ErrLocked is what TryLock returns when another session holds the lock.
	ErrLocked = errors.New("mutex: Locked by another session")
	// ErrSessionExpired is what Lock, TryLock and Campaign return when the session has ended, or their key is gone.
	ErrSessionExpired = errors.New("mutex: session is expired")
	// ErrLockReleased is what Unlock returns when there is nothing to unlock, and the cause of the end of a lock's
	// context after Unlock.
	ErrLockReleased = errors.New("mutex: lock has already been released")
	// ErrLockLost is the cause of the end of a lock's context when the lock's key was deleted by somebody else, and what
	// a transaction of a lock that is not held any more returns.
	ErrLockLost = errors.New("mutex: lock is lost")
)

var mutexErrors = &claimErrors{lost: ErrLockLost, released: ErrLockReleased}

// Mutex is a lock that one session at a time holds: see the package documentation for what that is good for. Make one
// with NewMutex. Its methods are safe for concurrent use.
type Mutex struct {
	session *Session
	prefix  string
	tenure  tenure
}

// NewMutex returns the lock with the given prefix, for the session. It does nothing yet.
func NewMutex(s *Session, pfx string) *Mutex {
	return &Mutex{session: s, prefix: pfx + "/"}
}

// Lock waits until the session holds the lock. Sessions get it in the order in which they asked; that the session has
// it already is a success. While the cluster cannot be reached Lock keeps trying, until ctx or the session ends.
//
// It returns nil only if the session held the lock a moment ago, ErrSessionExpired as soon as the session has ended or
// the key of this Lock in the queue is gone, wrapped if there is more to say, and ctx.Err() when ctx has ended. When it
// fails it gives up its place in the queue before it returns, for which it has the client's context and two seconds; if
// those do not suffice the session goes on trying, and at the latest the place goes with the session.
func (m *Mutex) Lock(ctx context.Context) error {
	c, err := m.session.claim(ctx, m.prefix, mutexErrors)
	if err != nil {
		return err
	}
	header, err := c.acquire(ctx, "", func() { m.tenure.pend(c) })
	return m.tenure.settle(c, header, err)
}

// TryLock takes the lock if nobody holds it or waits for it, or if the session has it already, and returns ErrLocked
// otherwise. It does not wait for others, and one that fails was never in their way; for the rest it is as Lock.
func (m *Mutex) TryLock(ctx context.Context) error {
	c, err := m.session.claim(ctx, m.prefix, mutexErrors)
	if err != nil {
		return err
	}
	header, err := c.tryAcquire(ctx)
	return m.tenure.settle(c, header, err)
}

// Unlock gives up the lock, or a Lock that waits. A lock that was lost meanwhile is no error, and one that the session
// has taken since by another Mutex is left alone. If Unlock fails it may be called again. It returns ErrLockReleased if
// there is nothing to unlock.
func (m *Mutex) Unlock(ctx context.Context) error {
	c, _ := m.tenure.get()
	if c == nil {
		return ErrLockReleased
	}
	if _, err := c.release(ctx); err != nil {
		return err
	}
	m.tenure.drop(c)
	return nil
}

// IsOwner returns a comparison that holds as long as this Mutex holds the lock: a transaction with it is carried out
// only then. While the lock is not held it never holds. See also Txn.
func (m *Mutex) IsOwner() v3.Cmp { return m.tenure.owned() }

// Key returns the key with which the session holds the lock, or waits for it. It returns "" before the first Lock, and
// "\x00" after Unlock or a Lock that failed: a key that is never there, so that no comparison made of it holds.
func (m *Mutex) Key() string {
	c, _ := m.tenure.get()
	switch {
	case c != nil:
		return c.key
	case m.tenure.isOver():
		return noKey
	}
	return ""
}

// Header returns the header of the response that brought the lock, or nil if it was never held.
func (m *Mutex) Header() *pb.ResponseHeader { return m.tenure.lastHeader() }

// Rev returns the create revision of the lock's key while the lock is held, or 0. It is larger for each later holder of
// the lock, and can so be used as a fencing token: a store that remembers the largest one it has seen, and refuses
// writes that come with a smaller one, is safe from holders who do not know yet that they have lost the lock.
func (m *Mutex) Rev() int64 { return m.tenure.rev() }

// Context returns a context that ends when the lock is lost or unlocked. context.Cause tells which: ErrLockLost if the
// lock's key was deleted by somebody else, or by the server with the session's lease; ErrSessionExpired if the session
// was the first to know that its lease is gone, by the clock too when the cluster cannot be reached; ErrLockReleased
// after Unlock. It carries no values. While the lock is not held the context has ended already, with ErrLockReleased.
//
// The first call for a lock starts a watch, which lasts as long as the context.
func (m *Mutex) Context() context.Context { return m.tenure.context(mutexErrors) }

// Txn begins a transaction that is carried out only if the lock is held at that very moment: If, Then, Else and the
// response are as always. Commit returns the cause of Context's end if the lock is lost, such as ErrLockLost, and
// ErrLockReleased if it is not held to begin with.
func (m *Mutex) Txn(ctx context.Context) v3.Txn {
	return m.tenure.txn(ctx, m.session.client, mutexErrors)
}

type locker struct{ m *Mutex }

// NewLocker returns a Mutex as a sync.Locker, which panics with the error where a Mutex returns one. Its calls are made
// under the client's context. As with every Mutex it is the session that holds the lock: goroutines that share a Locker
// do not exclude each other.
func NewLocker(s *Session, pfx string) sync.Locker {
	return &locker{NewMutex(s, pfx)}
}

func (l *locker) Lock() {
	if err := l.m.Lock(l.m.session.client.Ctx()); err != nil {
		panic(err)
	}
}

func (l *locker) Unlock() {
	if err := l.m.Unlock(l.m.session.client.Ctx()); err != nil {
		panic(err)
	}
}
