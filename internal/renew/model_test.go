package renew

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// cluster is a model of what servers do with leases, with faults. Its leases expire by themselves.
type cluster struct {
	mu        sync.Mutex
	leases    map[int64]*granted
	forbidden int64            // its renewal ends the stream
	thawed    chan struct{}    // closed unless members are frozen
	frozen    map[int]struct{} // members
	cut       chan struct{}    // closed when streams are cut
	down      bool             // no stream can be opened
	slow      time.Duration    // for each renewal, before and after it
	refuse    error            // what every renewal is answered with
	healed    time.Time        // when the last fault ended
}

type granted struct {
	ttl     int64
	expires time.Time // also if revoked: when it would have
	revoked bool
}

const (
	members      = 3
	longestTTL   = 20
	firstTimeout = 5 * time.Second
)

func newCluster() *cluster {
	c := &cluster{
		leases: make(map[int64]*granted),
		frozen: make(map[int]struct{}),
		thawed: make(chan struct{}),
		cut:    make(chan struct{}),
	}
	close(c.thawed)
	return c
}

func (c *cluster) open(_ context.Context, _ int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return errGone
	}
	return nil
}

func (c *cluster) serve(st *fakeStream) error {
	c.mu.Lock()
	cut := c.cut
	c.mu.Unlock()
	for {
		var id int64
		var delay time.Duration
		select {
		case id = <-st.requests:
		case <-cut:
			return errGone
		case <-st.ctx.Done():
			return st.ctx.Err()
		}
		for {
			c.mu.Lock()
			_, frozen := c.frozen[st.n%members]
			thawed, slow := c.thawed, c.slow
			c.mu.Unlock()
			if !frozen {
				delay = slow
				break
			}
			select {
			case <-thawed:
			case <-cut:
				return errGone
			case <-st.ctx.Done():
				return st.ctx.Err()
			}
		}
		if delay > 0 {
			st.pause(delay)
		}
		ttl, err := c.renew(id)
		if err != nil {
			return err
		}
		if delay > 0 {
			st.pause(delay)
		}
		st.answer(id, ttl)
	}
}

func (c *cluster) renew(id int64) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != nil {
		return 0, c.refuse
	}
	if id == c.forbidden {
		return 0, rpctypes.ErrGRPCPermissionDenied
	}
	l := c.leases[id]
	if l == nil || l.revoked || !time.Now().Before(l.expires) {
		return 0, nil
	}
	l.expires = time.Now().Add(time.Duration(l.ttl) * time.Second)
	return l.ttl, nil
}

// heal ends all faults but the forbidden lease.
func (c *cluster) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.frozen) > 0 {
		clear(c.frozen)
		close(c.thawed)
	}
	c.down, c.slow, c.refuse = false, 0, nil
	c.healed = time.Now()
}

// fault begins a fault, or ends all.
func (c *cluster) fault(rng *rand.Rand) {
	refusals := []error{
		rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCTimeout, rpctypes.ErrGRPCInvalidAuthToken,
		rpctypes.ErrGRPCAuthOldRevision, status.Error(codes.Unknown, "not a primary lessor"),
	}
	kind := rng.IntN(8)
	if kind >= 5 {
		c.heal()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch kind {
	case 0, 1:
		if len(c.frozen) == 0 {
			c.thawed = make(chan struct{})
		}
		c.frozen[rng.IntN(members)] = struct{}{}
	case 2:
		close(c.cut)
		c.cut = make(chan struct{})
		c.down = rng.IntN(2) == 0
	case 3:
		c.slow = time.Duration(rng.IntN(400)) * time.Millisecond
	case 4:
		c.refuse = refusals[rng.IntN(len(refusals))]
	}
}

func (c *cluster) faulty() bool {
	return len(c.frozen) > 0 || c.down || c.slow > 0 || c.refuse != nil
}

// user is one KeepAlive call of the model.
type user struct {
	*recorder
	id       int64
	cancel   context.CancelFunc
	canceled bool
}

// TestModel lets callers, leases and faults come and go at random and checks after each step what must always hold:
// no sink is open when the server may have given the lease away, and none is closed without a reason.
func TestModel(t *testing.T) {
	seeds := []uint64{rand.Uint64()}
	for seed := range uint64(30) {
		seeds = append(seeds, seed)
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(seed, seed))) })
		})
	}
}

// closed tells whether the user's sink is closed, and fails the test if that is wrong.
func (c *cluster) closed(t *testing.T, u *user, now time.Time) bool {
	t.Helper()
	l := c.leases[u.id]
	closed, after, reason := u.state()
	at := u.start.Add(after)
	switch {
	case !closed:
		if u.canceled {
			t.Fatalf("lease %d: open, but its context has ended", u.id)
		}
		expired := l == nil || !now.Before(l.expires)
		if expired && (now.Sub(u.start) >= firstTimeout || u.count() > 0) {
			t.Fatalf("lease %d: open at %v, expired on the server", u.id, now.Sub(u.start))
		}
	case reason == nil:
		if !u.canceled {
			t.Fatalf("lease %d: closed as if its context had ended", u.id)
		}
	case errors.Is(reason, rpctypes.ErrLeaseNotFound):
		if l != nil && !l.revoked && at.Before(l.expires) {
			t.Fatalf("lease %d: closed as gone, but it is not", u.id)
		}
	case errors.Is(reason, ErrExpired):
		if u.id != c.forbidden && at.Sub(c.healed) > longestTTL*time.Second {
			t.Fatalf("lease %d: closed as expired, last fault %v ago", u.id, at.Sub(c.healed))
		}
	default:
		t.Fatalf("lease %d: closed: %v", u.id, reason)
	}
	return closed
}

func runModel(t *testing.T, rng *rand.Rand) {
	c := newCluster()
	e := start(t, Config{
		Client:         &fakeClient{open: c.open, serve: c.serve},
		FirstTimeout:   firstTimeout,
		Reauthenticate: func(context.Context) error { return nil },
	})
	var users []*user
	check := func() {
		t.Helper()
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.faulty() {
			c.healed = time.Now()
		}
		now := time.Now()
		// What is closed is not going to change, except for the server's state.
		users = slices.DeleteFunc(users, func(u *user) bool { return c.closed(t, u, now) })
	}
	for step := range 600 {
		switch rng.IntN(10) {
		case 0, 1:
			id := int64(1 + rng.IntN(1000))
			ttl := int64(1 + rng.IntN(longestTTL))
			c.mu.Lock()
			if c.leases[id] == nil {
				c.leases[id] = &granted{ttl: ttl, expires: time.Now().Add(time.Duration(ttl) * time.Second)}
			}
			if step == 100 {
				c.forbidden = id
			}
			c.mu.Unlock()
			fallthrough
		case 2, 3:
			id := int64(1 + rng.IntN(1000))
			c.mu.Lock()
			for known := range c.leases {
				if rng.IntN(10) > 0 { // else, most likely, an unknown lease
					id = known
				}
				break
			}
			c.mu.Unlock()
			ctx, cancel := context.WithCancel(t.Context())
			users = append(users, &user{recorder: keep(t, e, ctx, id), id: id, cancel: cancel})
		case 4:
			if len(users) > 0 {
				u := users[rng.IntN(len(users))]
				u.cancel()
				u.canceled = true
			}
		case 5:
			if len(users) > 0 && rng.IntN(2) == 0 {
				c.mu.Lock()
				if l := c.leases[users[rng.IntN(len(users))].id]; l != nil {
					l.revoked = true
				}
				c.mu.Unlock()
			}
		case 6:
			c.fault(rng)
		default:
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
		}
		check()
	}
	c.heal()
	for range 60 {
		time.Sleep(time.Second)
		check()
	}
	for _, u := range users {
		if u.id != c.forbidden && time.Since(u.start.Add(u.last())) > longestTTL*time.Second/3 {
			t.Errorf("lease %d: not renewed in time after the last fault", u.id)
		}
	}
	for _, u := range users {
		u.cancel()
		u.canceled = true
	}
	check()
	wantRest(t, e)
}
