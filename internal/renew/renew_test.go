package renew

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"
)

func TestRenewsAtOnceAndThenEveryThirdOfTheTTL(t *testing.T) {
	for _, ttl := range []int64{1, 2, 5, 9, 60, 600} {
		bubble(t, func(t *testing.T) {
			j := newJournal()
			e := start(t, Config{Client: &fakeClient{serve: answering(j, always(ttl))}})
			r := keep(t, e, t.Context(), 7)
			third := time.Duration(ttl) * time.Second / 3
			pass(30 * third)
			at := j.of(7)
			if len(at) < 30 || len(at) > 34 {
				t.Errorf("TTL %d: %d renewals in 30 thirds of it", ttl, len(at))
			}
			if at[0] != 0 {
				t.Errorf("TTL %d: first renewal after %v", ttl, at[0])
			}
			for i := 1; i < len(at); i++ {
				if gap := at[i] - at[i-1]; gap > third || gap < third*7/8 {
					t.Errorf("TTL %d: renewals %v apart, want about %v", ttl, gap, third)
				}
			}
			if r.count() != len(at) {
				t.Errorf("TTL %d: %d renewals, %d offered", ttl, len(at), r.count())
			}
			r.wantOpen()
		})
	}
}

func TestCallersOfOneLeaseShareItsRenewals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal()
		c := &fakeClient{serve: answering(j, always(9))}
		e := start(t, Config{Client: c})
		ctx1, cancel1 := context.WithCancel(t.Context())
		ctx2, cancel2 := context.WithCancel(t.Context())
		r1 := keep(t, e, ctx1, 7)
		r2 := keep(t, e, ctx2, 7)
		r3 := keep(t, e, ctx1, 7)
		pass(10 * time.Second)
		n := len(j.of(7))
		if n < 4 || n > 5 {
			t.Fatalf("%d renewals in 10 s, TTL 9 s", n)
		}
		if r1.count() != n || r2.count() != n || r3.count() != n {
			t.Fatalf("%d renewals, offered %d, %d, %d", n, r1.count(), r2.count(), r3.count())
		}
		late := keep(t, e, ctx2, 7)
		pass(time.Second / 8)
		if len(j.of(7)) != n {
			t.Error("a further caller caused a renewal of its own")
		}
		cancel1()
		synctest.Wait()
		r1.wantClosed(nil)
		r3.wantClosed(nil)
		r2.wantOpen()
		pass(10 * time.Second)
		if r2.count() <= n || late.count() != r2.count()-n {
			t.Errorf("offered %d and, later, %d", r2.count(), late.count())
		}
		cancel2()
		synctest.Wait()
		r2.wantClosed(nil)
		late.wantClosed(nil)
		n = len(j.of(7))
		pass(time.Minute)
		if len(j.of(7)) != n {
			t.Error("renewed without callers")
		}
		wantRest(t, e)
		again := keep(t, e, t.Context(), 7)
		synctest.Wait()
		if again.count() != 1 || c.opened() != 2 {
			t.Errorf("after a rest: %d answers, stream number %d", again.count(), c.opened())
		}
	})
}

func TestEndedContextClosesAtOnceAndSendsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := &fakeClient{serve: answering(newJournal(), always(9))}
		e := start(t, Config{Client: c})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := keep(t, e, ctx, 7)
		r.wantClosed(nil)
		pass(time.Second)
		if c.opened() != 0 {
			t.Error("opened a stream")
		}
	})
}

func TestUnansweredFirstRenewalIsGivenUpAfterFirstTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := &fakeClient{serve: (*fakeStream).hang}
		e := start(t, Config{Client: c, FirstTimeout: 4 * time.Second})
		r := keep(t, e, t.Context(), 7)
		pass(4*time.Second - 1)
		r.wantOpen()
		pass(1)
		if at := r.wantClosed(ErrExpired); at != 4*time.Second {
			t.Errorf("closed after %v", at)
		}
		r.wantClosed(ErrStalled) // why it was not renewed
		if n := c.opened(); n < 3 || n > 4 {
			t.Errorf("tried %d streams in 4 s", n)
		}
		wantRest(t, e)
	})
}

// The server's TTL starts no earlier than the renewal was sent, and possibly right then.
func TestLeaseExpiresOneTTLAfterItsLastAnsweredRenewalWasSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var sent time.Duration
		begin := time.Now()
		c := &fakeClient{}
		c.serve = func(st *fakeStream) error {
			for st.n == 1 {
				id, err := st.next()
				if err != nil {
					return err
				}
				at := time.Since(begin)
				if at > 10*time.Second {
					break // from now on, nothing is answered
				}
				sent = at
				st.pause(700 * time.Millisecond)
				st.answer(id, 6)
			}
			return st.hang()
		}
		e := start(t, Config{Client: c})
		r := keep(t, e, t.Context(), 7)
		pass(time.Minute)
		if at := r.wantClosed(ErrExpired); at != sent+6*time.Second {
			t.Errorf("closed after %v, last answered renewal sent after %v", at, sent)
		}
	})
}

func TestExpiryOfALeaseInFlightIsNotPutOffByAStreamThatAnswersOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal()
		c := &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				j.add(st, id)
				if id == 1 && len(j.of(1)) > 1 {
					continue
				}
				st.answer(id, 3)
			}
		}}
		e := start(t, Config{Client: c})
		r := keep(t, e, t.Context(), 1)
		for id := range int64(10) {
			keep(t, e, t.Context(), 100+id)
			pass(time.Second / 10)
		}
		pass(10 * time.Second)
		if at := r.wantClosed(ErrExpired); at != 3*time.Second {
			t.Errorf("closed after %v", at)
		}
		locked(e, func(time.Duration) {
			if _, kept := e.leases[1]; kept {
				t.Error("expired lease is still kept")
			}
		})
	})
}

func TestGoneLeaseIsClosedAndNotOffered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal()
		var gone atomic.Bool
		e := start(t, Config{Client: &fakeClient{serve: answering(j, func(id int64) int64 {
			if gone.Load() || id == 8 {
				return 0
			}
			return 6
		})}})
		r7, r8 := keep(t, e, t.Context(), 7), keep(t, e, t.Context(), 8)
		synctest.Wait()
		r8.wantClosed(rpctypes.ErrLeaseNotFound)
		if r7.count() != 1 || r8.count() != 0 {
			t.Errorf("offered %d and %d responses", r7.count(), r8.count())
		}
		gone.Store(true)
		pass(2 * time.Second)
		r7.wantClosed(rpctypes.ErrLeaseNotFound)
		wantRest(t, e)
	})
}

func TestRevokedLeaseIsClosedAtOnceAtEveryStage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal()
		e := start(t, Config{Client: &fakeClient{serve: answering(j, func(int64) int64 { return 6 })}})
		e.Gone(7) // not kept alive
		fresh := keep(t, e, t.Context(), 7)
		e.Gone(7)
		fresh.wantClosed(rpctypes.ErrLeaseNotFound)
		again, shared := keep(t, e, t.Context(), 7), keep(t, e, t.Context(), 7)
		synctest.Wait()
		e.Gone(7)
		again.wantClosed(rpctypes.ErrLeaseNotFound)
		shared.wantClosed(rpctypes.ErrLeaseNotFound)
		synctest.Wait()
		wantRest(t, e)
	})
}

func TestResponsesNobodyAskedForAreIgnored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal()
		e := start(t, Config{Client: &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				j.add(st, id)
				st.answer(999, 5)
				st.answer(id, 6)
				st.answer(id, 600)
				st.answer(id, 0)
				st.answer(0, 0)
			}
		}}})
		r := keep(t, e, t.Context(), 7)
		pass(20 * time.Second)
		r.wantOpen()
		if n := len(j.of(7)); n < 10 || r.count() != n {
			t.Errorf("%d renewals, %d offered", n, r.count())
		}
	})
}

func TestOddTTLs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const huge = 1<<63 - 1
		j := newJournal()
		e := start(t, Config{Client: &fakeClient{serve: answering(j, func(id int64) int64 { return id })}})
		never, most, negative := keep(t, e, t.Context(), huge), keep(t, e, t.Context(), 9e9), keep(t, e, t.Context(), -5)
		pass(365 * 24 * time.Hour)
		never.wantOpen()
		most.wantOpen()
		negative.wantClosed(rpctypes.ErrLeaseNotFound)
		if n := len(j.all()); n != 3 {
			t.Errorf("%d renewals", n)
		}
	})
}

// An answer is taken for the renewal that was sent first, also if the lease was given up and kept alive again
// meanwhile, so that its TTL is not counted from the second one.
func TestKeepAliveDuringARenewalInFlightSharesIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal()
		e := start(t, Config{Client: &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				j.add(st, id)
				if id == 7 && len(j.of(7)) > 1 {
					continue
				}
				st.pause(500 * time.Millisecond)
				st.answer(id, 6)
			}
		}}})
		keep(t, e, t.Context(), 1)
		ctx, cancel := context.WithCancel(t.Context())
		first := keep(t, e, ctx, 7)
		pass(700 * time.Millisecond)
		cancel()
		synctest.Wait()
		first.wantClosed(nil)
		pass(100 * time.Millisecond)
		again := keep(t, e, t.Context(), 7)
		pass(300 * time.Millisecond)
		if again.count() != 1 || len(j.of(7)) != 1 {
			t.Fatalf("%d answers to %d renewals", again.count(), len(j.of(7)))
		}
		pass(20 * time.Second)
		// Sent at 0, answered at 1 s; kept alive again at 0.8 s.
		if at := again.wantClosed(ErrExpired); at != 5200*time.Millisecond {
			t.Errorf("closed %v after the second KeepAlive", at)
		}
	})
}

// The receiver of a stream may have a response in hand when the stream is dropped. It must not be taken for the answer
// to the renewal that was sent since, on another stream, or the TTL would be counted from that one.
func TestResponsesOfADroppedStreamAreIgnored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := start(t, Config{Client: &fakeClient{serve: (*fakeStream).hang}})
		r := keep(t, e, t.Context(), 7)
		synctest.Wait()
		var dropped *stream
		locked(e, func(time.Duration) { dropped = e.stream })
		pass(minStall + streamBackoff.Base)
		locked(e, func(time.Duration) {
			if e.stream == dropped || e.flight.first() == nil {
				t.Fatal("not sent again on another stream")
			}
		})
		e.answer(dropped, &pb.LeaseKeepAliveResponse{ID: 7, TTL: 60})
		if r.count() != 0 {
			t.Error("taken for an answer")
		}
	})
}

// What is known of a lease is not forgotten for a caller who comes while a renewal for the last one is in flight.
func TestKeepAliveOfALeaseInFlightKeepsItsExpiry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal()
		e := start(t, Config{FirstTimeout: 20 * time.Second, Client: &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				j.add(st, id)
				if id == 1 || len(j.of(7)) == 1 {
					st.answer(id, 9)
				}
			}
		}}})
		keep(t, e, t.Context(), 1)
		ctx, cancel := context.WithCancel(t.Context())
		keep(t, e, ctx, 7)
		pass(3200 * time.Millisecond)
		if len(j.of(7)) != 2 {
			t.Fatal("no renewal in flight")
		}
		cancel()
		synctest.Wait()
		r := keep(t, e, t.Context(), 7)
		pass(time.Minute)
		if at := r.wantClosed(ErrExpired); at != 5800*time.Millisecond {
			t.Errorf("closed after %v", at)
		}
	})
}

func TestLateAnswerIsFollowedByARenewalInTime(t *testing.T) {
	for _, late := range []time.Duration{500, 1500, 2500, 2999, 3500} {
		late *= time.Millisecond
		bubble(t, func(t *testing.T) {
			j := newJournal()
			e := start(t, Config{FirstTimeout: time.Minute, Client: &fakeClient{serve: func(st *fakeStream) error {
				for {
					id, err := st.next()
					if err != nil {
						return err
					}
					j.add(st, id)
					if len(j.all()) > 1 {
						continue
					}
					st.pause(late)
					st.answer(id, 3)
				}
			}}})
			r := keep(t, e, t.Context(), 7)
			pass(time.Minute)
			if at := r.wantClosed(ErrExpired); at != max(3*time.Second, late) {
				t.Errorf("answered after %v: closed after %v", late, at)
			}
			want := max(min(late+time.Second, 2*time.Second), late)
			switch all := j.all(); {
			case late > 3*time.Second && len(all) != 1:
				t.Errorf("answered after %v: renewed when it was over", late)
			case late < 3*time.Second && (len(all) < 2 || all[1].at > want || all[1].at < want-100*time.Millisecond):
				t.Errorf("answered after %v: renewals %v, want the second after %v", late, all, want)
			}
		})
	}
}

func TestAbandonedRenewalInFlightIsForgottenWithItsAnswerOrStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		answer := make(chan struct{})
		c := &fakeClient{serve: func(st *fakeStream) error {
			for {
				id, err := st.next()
				if err != nil {
					return err
				}
				if id == 8 && st.n == 2 {
					return errGone
				}
				if id == 8 {
					<-answer
				}
				st.answer(id, 60)
			}
		}}
		e := start(t, Config{Client: c})
		for stream := range 2 {
			keep(t, e, t.Context(), 7)
			ctx, cancel := context.WithCancel(t.Context())
			pass(0)
			r := keep(t, e, ctx, 8)
			pass(0)
			cancel()
			pass(0)
			r.wantClosed(nil)
			if stream == 0 {
				answer <- struct{}{}
				pass(0)
			} else {
				pass(time.Second)
			}
			locked(e, func(now time.Duration) {
				if len(e.leases) != 1 {
					t.Errorf("stream %d: %d leases left", stream, len(e.leases))
				}
				if stream == 0 {
					e.drop(now, errGone)
				}
			})
		}
	})
}

func TestLeaderIsAskedForOnEveryStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var md metadata.MD
		c := &fakeClient{
			serve: answering(newJournal(), always(9)),
			open: func(ctx context.Context, _ int) error {
				md, _ = metadata.FromOutgoingContext(ctx)
				return nil
			},
		}
		e := start(t, Config{Client: c})
		keep(t, e, t.Context(), 7)
		synctest.Wait()
		if got := md.Get(rpctypes.MetadataRequireLeaderKey); len(got) != 1 || got[0] != rpctypes.MetadataHasLeader {
			t.Errorf("metadata %v", md)
		}
	})
}

// fullSink is a channel as a client offers it, which nobody reads.
type fullSink chan *pb.LeaseKeepAliveResponse

func (s fullSink) Offer(resp *pb.LeaseKeepAliveResponse) {
	select {
	case s <- resp:
	default:
	}
}

func (s fullSink) Close(error) { close(s) }

func TestSinkNobodyReadsDelaysNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal()
		e := start(t, Config{Client: &fakeClient{serve: answering(j, always(3))}})
		full := make(fullSink, 1)
		if err := e.KeepAlive(t.Context(), 1, full); err != nil {
			t.Fatal(err)
		}
		r := keep(t, e, t.Context(), 2)
		pass(time.Minute)
		r.wantOpen()
		if a, b := len(j.of(1)), len(j.of(2)); a < 60 || b < 60 {
			t.Errorf("renewed %d and %d times", a, b)
		}
		<-full
		select {
		case _, ok := <-full:
			t.Errorf("channel closed or buffered more than its capacity: %v", ok)
		default:
		}
	})
}

func TestClosedEngineRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := New(Config{Client: &fakeClient{}})
		if err := e.Halted(); err != nil {
			t.Errorf("Halted: %v", err)
		}
		for range 2 {
			if err := e.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		r := newRecorder(t)
		if err := e.KeepAlive(t.Context(), 7, r); !errors.Is(err, context.Canceled) {
			t.Errorf("KeepAlive: %v", err)
		}
		if err := e.Halted(); !errors.Is(err, context.Canceled) {
			t.Errorf("Halted: %v", err)
		}
		r.wantOpen()
	})
}

func TestCloseAtEveryStage(t *testing.T) {
	hangInOpen := func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, tc := range map[string]struct {
		client *fakeClient
		cfg    Config
		after  time.Duration
	}{
		"at once":   {client: &fakeClient{serve: answering(newJournal(), always(9))}},
		"opening":   {client: &fakeClient{open: hangInOpen}, after: time.Second},
		"sending":   {client: &fakeClient{serve: (*fakeStream).hang, room: 1}, after: time.Second / 2},
		"receiving": {client: &fakeClient{serve: (*fakeStream).hang}, after: time.Second / 2},
		"renewing":  {client: &fakeClient{serve: answering(newJournal(), always(9))}, after: time.Minute},
		"backing off": {
			client: &fakeClient{open: func(context.Context, int) error { return errGone }},
			after:  3 * time.Second,
		},
		"fetching a token": {
			client: &fakeClient{serve: func(*fakeStream) error { return rpctypes.ErrGRPCInvalidAuthToken }},
			cfg:    Config{Reauthenticate: func(ctx context.Context) error { return hangInOpen(ctx, 0) }},
			after:  time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tc.cfg.Client = tc.client
				e := New(tc.cfg)
				var all []*recorder
				for id := range int64(100) {
					all = append(all, keep(t, e, t.Context(), id))
				}
				if tc.after > 0 {
					pass(tc.after)
				}
				at := time.Now()
				if err := e.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				if d := time.Since(at); d != 0 {
					t.Errorf("Close took %v", d)
				}
				for _, r := range all {
					r.wantClosed(context.Canceled)
				}
				wantRest(t, e)
			})
		})
	}
}
