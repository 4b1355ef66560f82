package renew

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestStallMovesToAnotherStreamWithTheMostUrgentFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		type opening struct {
			attempt  int
			previous error
		}
		var openings []opening
		j := newJournal()
		begin := time.Now()
		frozenAt := 3 * time.Second
		ttls := map[int64]int64{1: 600, 2: 5, 3: 60, 4: 30, 5: 9}
		c := &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				j.add(st, id)
				if st.n == 1 && time.Since(begin) > frozenAt {
					return st.hang()
				}
				st.answer(id, ttls[id])
			}
		}}
		e := start(t, Config{
			Client: c,
			StreamContext: func(ctx context.Context, attempt int, previous error) context.Context {
				openings = append(openings, opening{attempt, previous})
				return ctx
			},
		})
		var all []*recorder
		for id := range ttls {
			all = append(all, keep(t, e, t.Context(), id))
		}
		pass(10 * time.Minute)
		for _, r := range all {
			r.wantOpen()
		}
		if len(openings) != 2 || openings[0] != (opening{0, nil}) || openings[1] != (opening{1, ErrStalled}) {
			t.Fatalf("streams opened: %v", openings)
		}
		var lost, order []int64
		var lostAt, movedAt time.Duration
		for _, r := range j.all() {
			if r.stream == 1 && r.at > frozenAt && lost == nil {
				lost, lostAt = append(lost, r.id), r.at
			}
			if r.stream == 2 && !slices.Contains(order, r.id) {
				order = append(order, r.id)
				if movedAt == 0 {
					movedAt = r.at
				}
			}
		}
		if d := movedAt - lostAt; d < time.Second || d > time.Second+streamBackoff.Base {
			t.Errorf("moved %v after the renewal that hung", d)
		}
		if !slices.Equal(order, []int64{2, 5, 4, 3, 1}) {
			t.Errorf("renewed on the new stream in the order %v", order)
		}
	})
}

func TestWhatIsDueTogetherAfterABreakGoesOutByExpiry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal()
		e := start(t, Config{Client: &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				if st.n == 1 && time.Since(j.start) > 15*time.Second {
					return st.hang()
				}
				if st.n == 2 {
					j.add(st, id)
				}
				st.answer(id, 60)
			}
		}}})
		var ids []int64
		var all []*recorder
		for id := range int64(10) {
			ids = append(ids, id)
			all = append(all, keep(t, e, t.Context(), id))
			pass(1 * time.Second)
		}
		locked(e, func(now time.Duration) {
			for _, l := range e.leases {
				e.makeReady(l) // as if the stream had been gone for long
			}
			e.drop(now, errGone)
		})
		pass(5 * time.Second)
		var order []int64
		for _, r := range j.all() {
			order = append(order, r.id)
		}
		if !slices.Equal(order, ids) {
			t.Errorf("renewed in the order %v", order)
		}
		for _, r := range all {
			r.wantOpen()
		}
	})
}

func TestSlowButProgressingStreamIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				st.pause(900 * time.Millisecond)
				st.answer(id, 60)
			}
		}}
		e := start(t, Config{Client: c, FirstTimeout: 20 * time.Second})
		var all []*recorder
		for id := range int64(12) {
			all = append(all, keep(t, e, t.Context(), id))
		}
		pass(10 * time.Minute)
		for _, r := range all {
			r.wantOpen()
		}
		if n := c.opened(); n != 1 {
			t.Errorf("%d streams", n)
		}
	})
}

func TestOutstandingRenewalsAreLimitedAndFewerWithASlowServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		most, lateMost := 0, 0
		begin := time.Now()
		c := &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				mu.Lock()
				most = max(most, len(st.requests))
				if time.Since(begin) > 10*time.Second {
					lateMost = max(lateMost, len(st.requests))
				}
				mu.Unlock()
				st.pause(20 * time.Millisecond)
				st.answer(id, 60_000)
			}
		}}
		e := start(t, Config{Client: c, FirstTimeout: time.Hour})
		var all []*recorder
		for id := range int64(3000) {
			all = append(all, keep(t, e, t.Context(), id))
		}
		pass(time.Minute + time.Second)
		mu.Lock()
		defer mu.Unlock()
		if most > startWindow*5/4 {
			t.Errorf("%d outstanding", most)
		}
		if lateMost > startWindow/2 {
			t.Errorf("%d outstanding after a while, with answers after %v", lateMost, 20*time.Millisecond)
		}
		for i, r := range all {
			if r.wantOpen(); r.count() == 0 {
				t.Fatalf("lease %d of 3000 not renewed in a minute by a server that makes 50 a second", i)
			}
		}
		if c.opened() != 1 {
			t.Errorf("%d streams", c.opened())
		}
	})
}

func TestStreamThatDoesNotOpenIsTriedAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := &fakeClient{
			open: func(ctx context.Context, n int) error {
				if n == 1 {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			},
			serve: answering(newJournal(), always(9)),
		}
		e := start(t, Config{Client: c})
		r := keep(t, e, t.Context(), 7)
		pass(openTimeout + streamBackoff.Base)
		r.wantOpen()
		if r.count() != 1 || c.opened() != 2 {
			t.Errorf("%d answers, %d streams", r.count(), c.opened())
		}
	})
}

func TestBlockedSendHoldsUpNeitherStallNorExpiry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		begin := time.Now()
		c := &fakeClient{room: 1}
		c.serve = func(st *fakeStream) error {
			if st.n != 2 || time.Since(begin) > 20*time.Second {
				return st.hang()
			}
			return answering(newJournal(), always(5))(st)
		}
		e := start(t, Config{Client: c})
		var all []*recorder
		for id := range int64(50) {
			all = append(all, keep(t, e, t.Context(), id))
		}
		pass(1500 * time.Millisecond)
		for _, r := range all {
			r.wantOpen()
			if r.count() != 1 {
				t.Fatal("the stream whose Send hung was not replaced")
			}
		}
		locked(e, func(now time.Duration) { e.drop(now, errGone) }) // from here on nothing is sent
		pass(10 * time.Second)
		for _, r := range all {
			if at := r.wantClosed(ErrExpired); at > 1500*time.Millisecond+5*time.Second {
				t.Fatalf("closed after %v", at)
			}
		}
	})
}

// brokenSender is a client whose first stream fails to send, and does not return from Recv by itself.
type brokenSender struct {
	*fakeClient
	err error
}

type brokenStream struct {
	pb.Lease_LeaseKeepAliveClient
	err error
}

func (c brokenSender) LeaseKeepAlive(
	ctx context.Context, opts ...grpc.CallOption,
) (pb.Lease_LeaseKeepAliveClient, error) {
	st, err := c.fakeClient.LeaseKeepAlive(ctx, opts...)
	if c.opened() == 1 {
		return brokenStream{st, c.err}, err
	}
	return st, err
}

func (st brokenStream) Send(*pb.LeaseKeepAliveRequest) error { return st.err }

func TestErrorOfSendEndsTheStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var previous error
		scripted := errors.New("scripted")
		e := start(t, Config{
			Client: brokenSender{&fakeClient{serve: answering(newJournal(), always(9))}, scripted},
			StreamContext: func(ctx context.Context, _ int, cause error) context.Context {
				previous = cause
				return ctx
			},
		})
		r := keep(t, e, t.Context(), 7)
		pass(streamBackoff.Base + holdBackoff.Base)
		if r.count() != 1 || !errors.Is(previous, scripted) {
			t.Errorf("%d answers, previous stream ended with %v", r.count(), previous)
		}
	})
}

func TestNewStreamStartsWithTheUsualWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				st.pause(2 * lateAnswer)
				st.answer(id, 60)
			}
		}}
		e := start(t, Config{Client: c, FirstTimeout: time.Minute})
		keep(t, e, t.Context(), 7)
		pass(3 * lateAnswer)
		locked(e, func(now time.Duration) {
			if e.window != startWindow/2 {
				t.Errorf("window %d after a late answer", e.window)
			}
			for _, window := range []int{minWindow, maxWindow} {
				e.window = window
				e.drop(now, errGone)
				e.openStream(now)
				if e.window != startWindow {
					t.Errorf("window %d on a new stream", e.window)
				}
			}
		})
	})
}

func TestReconnectsBackOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := &fakeClient{
			open:  func(context.Context, int) error { return errGone },
			serve: (*fakeStream).hang,
		}
		e := start(t, Config{Client: c, FirstTimeout: 100 * time.Second})
		r := keep(t, e, t.Context(), 7)
		pass(100 * time.Second)
		r.wantClosed(ErrExpired)
		r.wantClosed(errGone)
		c.mu.Lock()
		defer c.mu.Unlock()
		for i := 1; i < len(c.opens); i++ {
			if gap := c.opens[i].Sub(c.opens[i-1]); gap > streamBackoff.Ceiling(i-1) {
				t.Errorf("stream %d after %v", i, gap)
			}
		}
		if c.opens[0].Sub(r.start) != 0 {
			t.Error("backed off before the first stream")
		}
		if n := len(c.opens); n < 300 || n > 600 {
			t.Errorf("%d streams in 100 s", n)
		}
	})
}

// No error of a stream ends a lease whose TTL has not passed; each is followed by another attempt.
func TestNoStreamErrorHalts(t *testing.T) {
	causes := []error{
		io.EOF, io.ErrUnexpectedEOF, errors.New("plain"), context.Canceled, context.DeadlineExceeded,
		rpctypes.ErrGRPCLeaseNotFound, rpctypes.ErrGRPCPermissionDenied, rpctypes.ErrGRPCUserEmpty,
		rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCNotSupportedForLearner,
		rpctypes.ErrNoLeader,
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		causes = append(causes, status.Error(code, "scripted"))
	}
	for _, inOpen := range []bool{true, false} {
		for _, cause := range causes {
			bubble(t, func(t *testing.T) {
				c := &fakeClient{}
				broken := func() bool { return c.opened() > 1 && c.opened() <= 4 }
				c.open = func(context.Context, int) error {
					if inOpen && broken() {
						return cause
					}
					return nil
				}
				c.serve = func(st *fakeStream) error {
					for {
						id, err := st.next()
						if err != nil {
							return err
						}
						if st.n == 1 {
							st.answer(id, 9)
							return errGone
						}
						if broken() {
							return cause
						}
						st.answer(id, 9)
					}
				}
				e := start(t, Config{Client: c})
				r := keep(t, e, t.Context(), 7)
				pass(time.Minute)
				r.wantOpen()
				if r.count() < 15 {
					t.Errorf("%v: %d answers in a minute, TTL 9 s", cause, r.count())
				}
				if c.opened() != 5 {
					t.Errorf("%v: %d streams", cause, c.opened())
				}
				if err := e.Halted(); err != nil {
					t.Errorf("%v: halted: %v", cause, err)
				}
			})
		}
	}
}

func TestRefusedTokenIsReplacedBeforeTheNextStream(t *testing.T) {
	for _, cause := range []error{
		rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCAuthOldRevision, rpctypes.ErrGRPCUserEmpty,
		status.Error(codes.Unauthenticated, "scripted"), rpctypes.ErrInvalidAuthToken,
	} {
		for _, inOpen := range []bool{true, false} {
			bubble(t, func(t *testing.T) {
				var mu sync.Mutex
				token, valid := 0, 1
				good := func() bool {
					mu.Lock()
					defer mu.Unlock()
					return token == valid
				}
				c := &fakeClient{}
				c.open = func(context.Context, int) error {
					if inOpen && !good() {
						return cause
					}
					return nil
				}
				c.serve = func(st *fakeStream) error {
					for {
						id, err := st.next()
						if err != nil {
							return err
						}
						if !good() {
							return cause
						}
						st.answer(id, 9)
					}
				}
				calls, refuse := 0, 2
				e := start(t, Config{Client: c, Reauthenticate: func(context.Context) error {
					mu.Lock()
					defer mu.Unlock()
					calls++
					if calls <= refuse {
						return errors.New("scripted")
					}
					token++
					return nil
				}})
				r := keep(t, e, t.Context(), 7)
				pass(2 * time.Second)
				if r.count() == 0 || calls != refuse+1 {
					t.Fatalf("%v: %d answers, %d tokens fetched", cause, r.count(), calls)
				}
				mu.Lock()
				valid++ // the token has expired; an open stream notices at its next renewal
				mu.Unlock()
				pass(time.Minute)
				r.wantOpen()
				if !inOpen && calls != refuse+2 {
					t.Errorf("%v: %d tokens fetched", cause, calls)
				}
				before := calls
				locked(e, func(now time.Duration) { e.drop(now, errGone) })
				pass(10 * time.Second)
				r.wantOpen()
				if !inOpen && calls != before {
					t.Errorf("%v: token fetched though the last one was good", cause)
				}
			})
		}
	}
}

func TestCallersWhoNeedALeaderAreToldThatThereIsNone(t *testing.T) {
	for limit := range 4 {
		bubble(t, func(t *testing.T) {
			c := &fakeClient{serve: func(st *fakeStream) error {
				for {
					id, err := st.next()
					if err != nil {
						return err
					}
					if st.n > 1 && st.n <= 4 {
						return rpctypes.ErrGRPCNoLeader
					}
					st.answer(id, 9)
					if st.n == 1 {
						return errGone
					}
				}
			}}
			cfg := Config{Client: c}
			if limit > 0 {
				cfg.NoLeaderLimit = func() int { return limit }
			}
			e := start(t, cfg)
			need := metadata.AppendToOutgoingContext(t.Context(),
				rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
			r7, r8, r9 := keep(t, e, need, 7), keep(t, e, t.Context(), 7), keep(t, e, need, 9)
			var closedOn int
			for closedOn == 0 && c.opened() < 6 {
				pass(10 * time.Millisecond)
				if closed, _, _ := r7.state(); closed {
					closedOn = c.opened()
				}
				if time.Since(r7.start) > time.Minute {
					break
				}
			}
			want := max(limit, 1) + 1
			if closedOn != want {
				t.Errorf("limit %d: closed on stream %d, want %d", limit, closedOn, want)
			}
			r7.wantClosed(rpctypes.ErrNoLeader)
			r9.wantClosed(rpctypes.ErrNoLeader)
			pass(time.Minute)
			r8.wantOpen()
		})
	}
}

func TestNoLeaderRefusalsAreCountedBetweenAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := &fakeClient{serve: func(st *fakeStream) error {
			id, err := st.next()
			if err != nil {
				return err
			}
			if st.n%2 == 0 {
				return rpctypes.ErrGRPCNoLeader
			}
			st.answer(id, 9)
			_, err = st.next()
			return errors.Join(err, errGone)
		}}
		e := start(t, Config{Client: c, NoLeaderLimit: func() int { return 2 }})
		need := metadata.AppendToOutgoingContext(t.Context(),
			rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
		r := keep(t, e, need, 7)
		pass(time.Minute)
		synctest.Wait()
		r.wantOpen()
	})
}
