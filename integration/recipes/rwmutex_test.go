package recipes

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	recipe "github.com/seed-d18e112a/clientv3/experimental/recipes"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

func TestRWMutex(t *testing.T) {
	e := newEnv(t)
	var m []*recipe.RWMutex
	for range 4 {
		m = append(m, recipe.NewRWMutex(shared.Session(t, e.Client), e.prefix))
	}
	if err := m[0].RUnlock(); !errors.Is(err, concurrency.ErrLockReleased) {
		t.Errorf("RUnlock before RLock: %v", err)
	}
	shared.Must(t, m[0].RLock())
	shared.Must(t, m[1].RLock())
	writing := shared.Background(m[2].Lock)
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 3)
	reading := shared.Background(m[3].RLock) // behind the writer
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 4)
	pattern := regexp.MustCompile(`^/(read|write)/[0-9]{19}$`)
	for _, key := range e.keys(t) {
		if !pattern.MatchString(key) {
			t.Errorf("key %q", key)
		}
	}
	shared.Must(t, m[1].RUnlock())
	waits(t, writing, reading)
	shared.Must(t, m[0].RUnlock())
	shared.Must(t, shared.Result(e.ctx, t, writing))
	waits(t, reading)
	shared.Must(t, m[2].Unlock())
	shared.Must(t, shared.Result(e.ctx, t, reading))
	shared.Must(t, m[2].Unlock()) // as the official client
	shared.Must(t, m[3].RUnlock())

	shared.Must(t, m[0].Lock())
	writing = shared.Background(m[1].Lock)
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	waits(t, writing)
	shared.Must(t, m[0].Unlock())
	shared.Must(t, shared.Result(e.ctx, t, writing))
	shared.Must(t, m[1].Unlock())

	// One session may be many readers, each of which counts.
	shared.Must(t, m[0].RLock())
	shared.Must(t, m[0].RLock())
	writing = shared.Background(m[1].Lock)
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 3)
	shared.Must(t, m[0].RUnlock())
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 2)
	waits(t, writing)
	shared.Must(t, m[0].RUnlock())
	shared.Must(t, shared.Result(e.ctx, t, writing))
	shared.Must(t, m[1].Unlock())
	if got := e.keys(t); len(got) != 0 {
		t.Errorf("keys in the end %q", got)
	}
}

func TestRWMutexUnderConcurrency(t *testing.T) {
	e := newEnv(t)
	var (
		wg               sync.WaitGroup
		readers, writers atomic.Int64
		together         atomic.Bool // readers were
	)
	for range 6 {
		m := recipe.NewRWMutex(shared.Session(t, shared.ClientFor(t, e.cluster)), e.prefix)
		wg.Go(func() {
			for range 15 {
				if rand.N(3) == 0 {
					if err := m.Lock(); err != nil {
						t.Error(err)
						return
					}
					if w, r := writers.Add(1), readers.Load(); w != 1 || r != 0 {
						t.Errorf("%d writers with %d readers", w, r)
					}
					writers.Add(-1)
					if err := m.Unlock(); err != nil {
						t.Error(err)
					}
					continue
				}
				if err := m.RLock(); err != nil {
					t.Error(err)
					return
				}
				if readers.Add(1) > 1 {
					together.Store(true)
				}
				if w := writers.Load(); w != 0 {
					t.Errorf("a reader with %d writers", w)
				}
				readers.Add(-1)
				if err := m.RUnlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("readers were together: %v", together.Load())
}

func TestRWMutexFailsWithItsSession(t *testing.T) {
	for name, end := range map[string]func(*env, *concurrency.Session) error{
		"closed": func(_ *env, s *concurrency.Session) error { return s.Close() },
		"revoked": func(e *env, s *concurrency.Session) error {
			_, err := e.Revoke(e.ctx, s.Lease())
			return err
		},
		"orphaned": func(_ *env, s *concurrency.Session) error { s.Orphan(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			holder := recipe.NewRWMutex(shared.Session(t, e.Client), e.prefix)
			shared.Must(t, holder.Lock())
			s := shared.Session(t, e.Client, concurrency.WithTTL(1))
			m := recipe.NewRWMutex(s, e.prefix)
			reading, writing := shared.Background(m.RLock), shared.Background(m.Lock)
			shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 3)
			shared.Must(t, end(e, s))
			for _, done := range []<-chan error{reading, writing} {
				if err := shared.Result(e.ctx, t, done); !errors.Is(err, concurrency.ErrSessionExpired) {
					t.Errorf("waiting for the lock: %v", err)
				}
			}
			if err := m.Lock(); !errors.Is(err, concurrency.ErrSessionExpired) {
				t.Errorf("Lock after the session: %v", err)
			}
			if got := e.keys(t); len(got) != 1 {
				t.Errorf("keys %q", got)
			}
			shared.Must(t, holder.Unlock())
		})
	}
}

// A waiter that is cut off from the cluster knows by the clock when its session is over.
func TestRWMutexFailsWithoutTheCluster(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithProxies())
	e := &env{Client: shared.ClientFor(t, cluster), ctx: shared.Context(t), prefix: "lock"}
	holder := recipe.NewRWMutex(shared.Session(t, e.Client, concurrency.WithTTL(1)), e.prefix)
	shared.Must(t, holder.Lock())
	cli := shared.ClientFor(t, cluster)
	m := recipe.NewRWMutex(shared.Session(t, cli, concurrency.WithTTL(1)), e.prefix)
	reading, writing := shared.Background(m.RLock), shared.Background(m.Lock)
	shared.AwaitKeys(e.ctx, t, e.Client, e.prefix, 3)
	cluster.Member(0).Proxy().Freeze()
	for _, done := range []<-chan error{reading, writing} {
		if err := shared.Result(e.ctx, t, done); !errors.Is(err, concurrency.ErrSessionExpired) {
			t.Errorf("waiting for the lock: %v", err)
		}
	}
}
