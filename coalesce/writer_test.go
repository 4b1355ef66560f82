package coalesce

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
)

// busyWriter returns a server and a Writer on it with one slot, which a put of "z" has.
func busyWriter(t *testing.T, opts ...Option) (*server, *Writer, *calling) {
	t.Helper()
	s := newServer()
	w := NewWriter(s, append([]Option{WithInFlight(1)}, opts...)...)
	return s, w, put(t.Context(), w, "z", "")
}

func TestALoneWriteGoesOutByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		w := NewWriter(s)
		for range 2 {
			for _, c := range []func() *calling{
				func() *calling { return put(t.Context(), w, "a", "1", clientv3.WithLease(7)) },
				func() *calling { return del(t.Context(), w, "a") },
				func() *calling { return del(t.Context(), w, "a", clientv3.WithPrefix()) },
			} {
				c := c()
				if r := s.only(t); r.txn {
					t.Error("a transaction for a lone write")
				}
				free(t, s)
				if !c.ended() || c.err != nil {
					t.Errorf("ended %v, %v", c.ended(), c.err)
				}
			}
		}
	})
}

func TestWritesThatWaitShareOneTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, first := busyWriter(t)
		s.store.do(clientv3.OpPut("a", "before"))
		s.store.do(clientv3.OpPut("d", "before"))
		none := del(t.Context(), w, "none")
		a := put(t.Context(), w, "a", "1", clientv3.WithPrevKV())
		b := put(t.Context(), w, "b", "2", clientv3.WithLease(7))
		d := del(t.Context(), w, "d", clientv3.WithPrevKV())
		free(t, s)
		r := s.only(t)
		if !r.txn || r.keys() != "noneabd" {
			t.Fatalf("transaction %v of %q", r.txn, r.keys())
		}
		if want := clientv3.OpPut("b", "2", clientv3.WithLease(7)); !reflect.DeepEqual(r.ops[2], want) {
			t.Errorf("operation %+v, want %+v", r.ops[2], want)
		}
		free(t, s)
		for _, c := range []*calling{first, a, none, b, d} {
			if !c.ended() || c.err != nil {
				t.Fatalf("ended %v, %v", c.ended(), c.err)
			}
		}
		want := s.store.header().String()
		for _, got := range []string{
			a.resp.Put().Header.String(), none.resp.Del().Header.String(), b.resp.Put().Header.String(),
			d.resp.Del().Header.String(),
		} {
			if got != want {
				t.Errorf("header %v, want %v", got, want)
			}
		}
		if got := a.resp.Put().PrevKv; string(got.GetValue()) != "before" {
			t.Errorf("before a: %v", got)
		}
		if got := b.resp.Put().PrevKv; got != nil {
			t.Errorf("before b: %v", got)
		}
		if n := none.resp.Del().Deleted; n != 0 {
			t.Errorf("%d keys deleted, want 0", n)
		}
		if d := d.resp.Del(); d.Deleted != 1 || string(d.PrevKvs[0].Value) != "before" {
			t.Errorf("deletion %v", d)
		}
	})
}

func TestNoKeyIsInOneTransactionTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, _ := busyWriter(t)
		var all []*calling
		for _, value := range []string{"1", "2", "3"} {
			all = append(all, put(t.Context(), w, "a", value, clientv3.WithPrevKV()))
		}
		all = append(all, put(t.Context(), w, "b", "4"), del(t.Context(), w, "b", clientv3.WithPrevKV()))
		free(t, s)
		for _, want := range []string{"ab", "ab", "a"} {
			if r := s.only(t); r.keys() != want {
				t.Fatalf("a request of %q, want %q", r.keys(), want)
			}
			free(t, s)
		}
		for i, want := range []string{"", "1", "2"} {
			if !all[i].ended() || string(all[i].resp.Put().PrevKv.GetValue()) != want {
				t.Errorf("put %d: before it %v, want %q", i, all[i].resp.Put().PrevKv, want)
			}
		}
		if d := all[4].resp.Del(); d.Deleted != 1 || string(d.PrevKvs[0].Value) != "4" {
			t.Errorf("deletion %v", d)
		}
	})
}

func TestNoKeyIsInTwoRequestsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		w := NewWriter(s, WithInFlight(3))
		first := put(t.Context(), w, "a", "1")
		second := put(t.Context(), w, "a", "2", clientv3.WithPrevKV())
		if n := len(s.pending()); n != 1 {
			t.Fatalf("%d requests, want 1: both are of one key", n)
		}
		put(t.Context(), w, "b", "3")
		requests := s.pending()
		if len(requests) != 2 || requests[1].keys() != "b" {
			t.Fatalf("%d requests, want another of b", len(requests))
		}
		requests[1].succeed()
		if second.ended() || len(s.pending()) != 1 {
			t.Fatal("the second write of a has passed the first")
		}
		requests[0].succeed()
		if !first.ended() {
			t.Fatal("the first write waits")
		}
		free(t, s)
		if !second.ended() || string(second.resp.Put().PrevKv.GetValue()) != "1" {
			t.Errorf("the second write: %v, %v", second.resp.Put(), second.err)
		}
		if l := &w.merger.plain[0]; l.busy != 0 || len(l.held) != 0 {
			t.Errorf("%d slots in use, %v held, with nothing under way", l.busy, l.held)
		}
	})
}

// What a deletion of a range concerns, and how long it takes, nobody knows before.
func TestADeletionOfARangeTakesItsTurnByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		w := NewWriter(s, WithInFlight(3))
		put(t.Context(), w, "a1", "")
		a2 := put(t.Context(), w, "a2", "")
		all := del(t.Context(), w, "a", clientv3.WithPrefix())
		a3 := put(t.Context(), w, "a3", "")
		requests := s.pending()
		if len(requests) != 2 || requests[0].keys() != "a1" || requests[1].keys() != "a2" {
			t.Fatalf("%d requests, want those of a1 and a2", len(requests))
		}
		requests[0].succeed()
		if n := len(s.pending()); n != 1 {
			t.Fatalf("%d requests while a2 is under way, want 1", n)
		}
		requests[1].succeed()
		if r := s.only(t); r.txn || !r.ops[0].IsDelete() {
			t.Fatalf("a request of %q, want the deletion", r.keys())
		}
		a4 := put(t.Context(), w, "a4", "")
		if n := len(s.pending()); n != 1 {
			t.Fatalf("%d requests while the deletion is under way, want 1", n)
		}
		free(t, s)
		if !all.ended() || all.resp.Del().Deleted != 2 {
			t.Errorf("deleted %v", all.resp.Del())
		}
		if r := s.only(t); r.keys() != "a3a4" {
			t.Errorf("a request of %q, want a3 and a4", r.keys())
		}
		free(t, s)
		for _, c := range []*calling{a2, a3, a4} {
			if !c.ended() || c.err != nil {
				t.Errorf("ended %v, %v", c.ended(), c.err)
			}
		}
	})
}

func TestALoneDeletionOfARangeKeepsOthersOutOfItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		w := NewWriter(s, WithInFlight(3))
		del(t.Context(), w, "a", clientv3.WithPrefix())
		put(t.Context(), w, "a", "")
		if n := len(s.pending()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
		s.drain()
	})
}

func TestWritesWithDifferentMetadataAreKeptApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, _ := busyWriter(t)
		other := metadata.AppendToOutgoingContext(t.Context(), "token", "1")
		put(other, w, "a", "")
		if n := len(s.pending()); n != 2 {
			t.Fatalf("%d requests, want 2", n)
		}
		put(other, w, "b", "")
		put(t.Context(), w, "c", "")
		put(other, w, "d", "")
		for _, r := range s.pending() {
			r.succeed()
		}
		for _, r := range s.pending() {
			if r.keys() != "c" && r.keys() != "bd" {
				t.Errorf("a request of %q", r.keys())
			}
		}
		s.drain()
	})
}

func TestAWriteGivenUpInTheQueueIsKnownNotToBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, _ := busyWriter(t)
		a, b := put(t.Context(), w, "a", ""), put(t.Context(), w, "b", "")
		a.cancel()
		if !a.ended() || !errors.Is(a.err, context.Canceled) || clientv3.MayHaveApplied(a.err) {
			t.Fatalf("ended %v, %v, may have applied: %v", a.ended(), a.err, clientv3.MayHaveApplied(a.err))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		_, err := w.Put(ctx, "c", "")
		if !errors.Is(err, context.DeadlineExceeded) || clientv3.MayHaveApplied(err) {
			t.Errorf("%v, may have applied: %v", err, clientv3.MayHaveApplied(err))
		}
		free(t, s)
		if r := s.only(t); r.keys() != "b" {
			t.Errorf("a request of %q, want b", r.keys())
		}
		s.drain()
		if !b.ended() || b.err != nil {
			t.Error(b.err)
		}
	})
}

func TestAWriteGivenUpUnderWayDoesNotDisturbTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, _ := busyWriter(t)
		a, b := put(t.Context(), w, "a", "1"), put(t.Context(), w, "b", "")
		again := put(t.Context(), w, "a", "2", clientv3.WithPrevKV())
		free(t, s)
		r := s.only(t)
		a.cancel()
		if !a.ended() || a.err != context.Canceled || !clientv3.MayHaveApplied(a.err) {
			t.Errorf("ended %v, %v", a.ended(), a.err)
		}
		r.succeed()
		if !b.ended() || b.err != nil {
			t.Error(b.err)
		}
		free(t, s)
		if !again.ended() || string(again.resp.Put().PrevKv.GetValue()) != "1" {
			t.Errorf("the next write of the key: %v, %v", again.resp.Put(), again.err)
		}
	})
}

func TestAWritesOwnErrorReachesItsCallerOnly(t *testing.T) {
	for _, failure := range []error{
		rpctypes.ErrPermissionDenied, rpctypes.ErrLeaseNotFound, rpctypes.ErrKeyNotFound, rpctypes.ErrValueProvided,
		rpctypes.ErrDuplicateKey,
	} {
		synctest.Test(t, func(t *testing.T) {
			s, w, _ := busyWriter(t)
			waiting := []*calling{put(t.Context(), w, "a", ""), put(t.Context(), w, "b", ""), del(t.Context(), w, "c")}
			gone := put(t.Context(), w, "d", "")
			free(t, s)
			r := s.only(t)
			gone.cancel()
			synctest.Wait()
			later := []*calling{put(t.Context(), w, "a", "later", clientv3.WithPrevKV()), put(t.Context(), w, "d", "")}
			r.fail(failure)
			alone := s.pending()
			if len(alone) != 3 {
				t.Fatalf("%d requests after the failure, want 3", len(alone))
			}
			for _, r := range alone {
				if r.txn {
					t.Fatal("sent again in a transaction")
				}
				if r.keys() == "b" {
					r.fail(failure)
				} else {
					r.succeed()
				}
			}
			for i, want := range []error{nil, failure, nil} {
				if c := waiting[i]; !c.ended() || c.err != want {
					t.Errorf("write %d: ended %v, %v; want %v", i, c.ended(), c.err, want)
				}
			}
			s.drain()
			for _, c := range later {
				if !c.ended() || c.err != nil {
					t.Errorf("later: %v", c.err)
				}
			}
			if later[0].resp.Put().PrevKv == nil {
				t.Error("the later write of a has passed the earlier one")
			}
		})
	}
}

// Whoever writes again what may have been written may write it twice.
func TestWritesThatMayHaveBeenAppliedAreNotSentAgain(t *testing.T) {
	for _, failure := range []error{
		status.Error(codes.Unavailable, "connection lost"), rpctypes.ErrTimeout, errors.New("says a decorator"),
		status.Error(codes.ResourceExhausted, "grpc: received message larger than max (4194305 vs. 4194304)"),
		status.Error(codes.Unknown, ""), rpctypes.ErrNoLeader, rpctypes.ErrTooManyRequests,
	} {
		synctest.Test(t, func(t *testing.T) {
			s, w, _ := busyWriter(t)
			waiting := []*calling{put(t.Context(), w, "a", ""), put(t.Context(), w, "b", "")}
			free(t, s)
			s.only(t).fail(failure)
			if n := len(s.pending()); n != 0 {
				t.Errorf("%v: %d requests after it", failure, n)
			}
			for _, c := range waiting {
				if !c.ended() || c.err != failure {
					t.Errorf("ended %v, %v; want %v", c.ended(), c.err, failure)
				}
			}
		})
	}
}

func TestTheServersBoundsOfWritesAreLearnt(t *testing.T) {
	for _, failure := range []error{rpctypes.ErrTooManyOps, rpctypes.ErrRequestTooLarge} {
		synctest.Test(t, func(t *testing.T) {
			s, w, _ := busyWriter(t)
			value := strings.Repeat("v", 1000)
			for round, most := range []int{3, 0} {
				var all []*calling
				for i := range 60 {
					all = append(all, put(t.Context(), w, string(rune('Ā'+i)), value, clientv3.WithPrevKV()))
				}
				refused := 0
				for requests := s.pending(); len(requests) > 0; requests = s.pending() {
					for _, r := range requests {
						if len(r.ops) > 20 {
							refused++
							r.fail(failure)
						} else {
							r.succeed()
						}
					}
				}
				if refused > most || round == 0 && refused == 0 {
					t.Errorf("round %d: %d refusals", round, refused)
				}
				for _, c := range all {
					if !c.ended() || c.err != nil || (c.resp.Put().PrevKv != nil) != (round > 0) {
						t.Fatalf("round %d: ended %v, %v, %v", round, c.ended(), c.err, c.resp.Put())
					}
				}
			}
		})
	}
}

func TestBytesOfATransactionAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, _ := busyWriter(t, WithMaxBytes(1000))
		for _, key := range []string{"a", "b", "c"} {
			put(t.Context(), w, key, strings.Repeat("v", 400))
		}
		put(t.Context(), w, "d", strings.Repeat("v", 5000))
		for _, want := range []string{"z", "ab", "c", "d"} {
			if r := s.only(t); r.keys() != want {
				t.Fatalf("a request of %q, want %q", r.keys(), want)
			}
			free(t, s)
		}
	})
}

func TestAnEmptyKeyIsRefusedWithoutTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, _ := busyWriter(t)
		c := put(t.Context(), w, "", "")
		requests := s.pending()
		if len(requests) != 2 {
			t.Fatalf("%d requests, want 2", len(requests))
		}
		requests[1].fail(rpctypes.ErrEmptyKey)
		if !c.ended() || c.err != rpctypes.ErrEmptyKey {
			t.Errorf("ended %v, %v", c.ended(), c.err)
		}
		s.drain()
	})
}

// All want the same key: one write after the other, and nobody spins or is forgotten.
func TestWritesOfOneKeyFollowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		w := NewWriter(s, WithInFlight(4))
		var all []*calling
		for range 50 {
			all = append(all, put(t.Context(), w, "a", ""))
		}
		s.drain()
		for _, c := range all {
			if !c.ended() || c.err != nil {
				t.Fatalf("ended %v, %v", c.ended(), c.err)
			}
		}
		if kv := s.store.states[s.store.revision()]["a"]; kv.Version != 50 {
			t.Errorf("version %d, want 50", kv.Version)
		}
		if l := &w.merger.plain[0]; l.busy != 0 || len(l.held) != 0 {
			t.Errorf("%d slots in use, %v held, with nothing under way", l.busy, l.held)
		}
	})
}
