package recipe

import (
	"context"
	"sync"

	v3 "github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
)

// RWMutex is a lock that one writer or any number of readers hold. Who asks for it waits for those who have asked
// before: a reader for writers, a writer for all. It is gone with its session. For writes that must not be made after
// it is lost, see package concurrency.
type RWMutex struct {
	session *concurrency.Session
	prefix  string

	mu   sync.Mutex // guards what follows
	read holds
	own  holds // of writers
}

// holds are the keys with which a lock is held, and the one with which it was held last.
type holds struct {
	keys []*EphemeralKV
	last *EphemeralKV
}

// NewRWMutex returns the lock with the prefix, for the session. It does nothing yet.
func NewRWMutex(s *concurrency.Session, prefix string) *RWMutex {
	return &RWMutex{session: s, prefix: prefix + "/"}
}

// RLock waits until no writer holds the lock that has asked for it before, and takes it as a reader. A session may be
// many readers. It returns concurrency.ErrSessionExpired if the session ends meanwhile.
func (m *RWMutex) RLock() error { return m.lock(&m.read, "read", "write/") }

// Lock waits until nobody holds the lock who has asked for it before, and takes it as the writer. It returns
// concurrency.ErrSessionExpired if the session ends meanwhile.
func (m *RWMutex) Lock() error { return m.lock(&m.own, "write", "") }

// RUnlock gives the lock back that was taken by RLock. If it fails it may be called again. It returns
// concurrency.ErrLockReleased if there never was one.
func (m *RWMutex) RUnlock() error { return m.unlock(&m.read) }

// Unlock gives the lock back that was taken by Lock. If it fails it may be called again. It returns
// concurrency.ErrLockReleased if there never was one.
func (m *RWMutex) Unlock() error { return m.unlock(&m.own) }

// lock puts a key under kind and waits until there is no older one with the prefix in the way.
func (m *RWMutex) lock(h *holds, kind, inTheWay string) error {
	ctx, cancel := bind(m.session)
	defer cancel()
	key, err := newEphemeralKV(ctx, m.session, m.prefix+kind)
	if err != nil {
		return err
	}
	if err := m.await(ctx, key, m.prefix+inTheWay); err != nil {
		key.giveUp(err)
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h.keys = append(h.keys, key)
	return nil
}

// await waits until no key with the prefix is older than the given one, which must stay there meanwhile.
func (m *RWMutex) await(ctx context.Context, key *EphemeralKV, prefix string) error {
	client := m.session.Client()
	older := append(v3.WithLastRev(), v3.WithMaxModRev(key.created-1), v3.WithKeysOnly())
	return until(ctx, client, func(ctx context.Context) (int64, []change, error) {
		resp, err := client.Txn(ctx).If(key.own()).Then(v3.OpGet(prefix, older...)).Commit()
		if err != nil {
			return 0, nil, err
		}
		if !resp.Succeeded {
			return 0, nil, concurrency.ErrSessionExpired
		}
		kvs := resp.Responses[0].GetResponseRange().Kvs
		if len(kvs) == 0 {
			return 0, nil, nil
		}
		return resp.Header.Revision, []change{deletionOf(string(kvs[0].Key)), deletionOf(key.key)}, nil
	})
}

// unlock deletes the key that was taken last. One that is deleted already is deleted again, as the official client
// does.
func (m *RWMutex) unlock(h *holds) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := h.last
	if n := len(h.keys); n > 0 {
		key = h.keys[n-1]
	}
	if key == nil {
		return concurrency.ErrLockReleased
	}
	if err := key.Delete(); err != nil {
		return err
	}
	h.last = key
	if n := len(h.keys); n > 0 {
		h.keys = h.keys[:n-1]
	}
	return nil
}
