package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// server gives out the tokens T1, T2, … and takes a second for each.
type server struct {
	asked atomic.Int64
	err   error // what it answers instead, if not nil
}

func (s *server) get(ctx context.Context) (string, error) {
	n := s.asked.Add(1)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if s.err != nil {
		return "", s.err
	}
	return fmt.Sprint("T", n), nil
}

// outcome is what a Refresh returned, and when.
type outcome struct {
	token string
	err   error
	after time.Duration
}

// refresh calls Refresh in a goroutine.
func refresh(ctx context.Context, s *Source, refused string) <-chan outcome {
	start := time.Now()
	c := make(chan outcome, 1)
	go func() {
		token, err := s.Refresh(ctx, refused)
		c <- outcome{token, err, time.Since(start)}
	}()
	return c
}

func expect(t *testing.T, c <-chan outcome, want outcome) {
	t.Helper()
	if got := <-c; got != want {
		t.Errorf("Refresh returned %+v, want %+v", got, want)
	}
}

func (s *server) expectAsked(t *testing.T, want int64) {
	t.Helper()
	if asked := s.asked.Load(); asked != want {
		t.Errorf("%d tokens were asked for, want %d", asked, want)
	}
}

// run runs a test in a bubble with a source of the server's tokens.
func run(t *testing.T, test func(t *testing.T, srv *server, s *Source)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv := &server{}
		s := NewSource(srv.get)
		defer s.Close()
		test(t, srv, s)
	})
}

func TestManyCallersCauseOneFetch(t *testing.T) {
	run(t, func(t *testing.T, srv *server, s *Source) {
		var callers []<-chan outcome
		for range 100 {
			callers = append(callers, refresh(t.Context(), s, ""))
		}
		synctest.Wait()
		if token := s.Current(); token != "" {
			t.Errorf("the token is %q before it was fetched", token)
		}
		for _, c := range callers {
			expect(t, c, outcome{"T1", nil, time.Second})
		}
		srv.expectAsked(t, 1)
		if token := s.Current(); token != "T1" {
			t.Errorf("the token is %q after it was fetched", token)
		}
	})
}

func TestARefusedTokenIsReplacedOnce(t *testing.T) {
	run(t, func(t *testing.T, srv *server, s *Source) {
		expect(t, refresh(t.Context(), s, ""), outcome{"T1", nil, time.Second})
		first := refresh(t.Context(), s, "T1")
		synctest.Wait()
		second := refresh(t.Context(), s, "T1")
		expect(t, first, outcome{"T2", nil, time.Second})
		expect(t, second, outcome{"T2", nil, time.Second})
		// A call that took longer to be refused, and one that began without a token.
		expect(t, refresh(t.Context(), s, "T1"), outcome{"T2", nil, 0})
		expect(t, refresh(t.Context(), s, ""), outcome{"T2", nil, 0})
		srv.expectAsked(t, 2)
	})
}

// The current token is refused and its successor on the way, so even who has not seen it yet must not be given it.
func TestATokenIsFreshForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSource(new(server).get)
		defer s.Close()
		if s.Fresh("") {
			t.Error("before the first fetch")
		}
		expect(t, refresh(t.Context(), s, ""), outcome{"T1", nil, time.Second})
		if !s.Fresh("T1") || s.Fresh("T0") || s.Fresh("") {
			t.Errorf("after the fetch: T1 %t, another %t, none %t", s.Fresh("T1"), s.Fresh("T0"), s.Fresh(""))
		}
		time.Sleep(time.Second)
		if s.Fresh("T1") {
			t.Error("after a second")
		}
	})
}

func TestALateRefusalWaitsForTheFetchUnderWay(t *testing.T) {
	run(t, func(t *testing.T, srv *server, s *Source) {
		expect(t, refresh(t.Context(), s, ""), outcome{"T1", nil, time.Second})
		expect(t, refresh(t.Context(), s, "T1"), outcome{"T2", nil, time.Second})
		fetching := refresh(t.Context(), s, "T2")
		synctest.Wait()
		expect(t, refresh(t.Context(), s, "T1"), outcome{"T3", nil, time.Second})
		expect(t, fetching, outcome{"T3", nil, time.Second})
		srv.expectAsked(t, 3)
	})
}

func TestACallerThatGivesUpLeavesTheFetchToTheOthers(t *testing.T) {
	run(t, func(t *testing.T, srv *server, s *Source) {
		ctx, cancel := context.WithCancel(t.Context())
		first := refresh(ctx, s, "")
		synctest.Wait()
		second := refresh(t.Context(), s, "")
		time.Sleep(time.Second / 2)
		cancel()
		expect(t, first, outcome{"", context.Canceled, time.Second / 2})
		expect(t, second, outcome{"T1", nil, time.Second})
		srv.expectAsked(t, 1)
	})
}

func TestAFetchOutlivesAllWhoWaited(t *testing.T) {
	run(t, func(t *testing.T, srv *server, s *Source) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		expect(t, refresh(ctx, s, ""), outcome{"", context.DeadlineExceeded, time.Second / 2})
		expect(t, refresh(t.Context(), s, ""), outcome{"T1", nil, time.Second / 2})
		srv.expectAsked(t, 1)
	})
}

func TestAFailureIsSharedAndNotRemembered(t *testing.T) {
	run(t, func(t *testing.T, srv *server, s *Source) {
		expect(t, refresh(t.Context(), s, ""), outcome{"T1", nil, time.Second})
		srv.err = errors.New("wrong password")
		first, second := refresh(t.Context(), s, "T1"), refresh(t.Context(), s, "T1")
		expect(t, first, outcome{"", srv.err, time.Second})
		expect(t, second, outcome{"", srv.err, time.Second})
		srv.expectAsked(t, 2)
		if token := s.Current(); token != "T1" {
			t.Errorf("the token is %q after a failure", token)
		}
		srv.err = nil
		expect(t, refresh(t.Context(), s, "T1"), outcome{"T3", nil, time.Second})
	})
}

// A server with authentication turned off has no tokens to give. When it is turned on, calls are refused for having
// none.
func TestTheEmptyTokenIsReplacedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := ""
		s := NewSource(func(context.Context) (string, error) { return token, nil })
		defer s.Close()
		expect(t, refresh(t.Context(), s, ""), outcome{})
		token = "T"
		expect(t, refresh(t.Context(), s, ""), outcome{token: "T"})
	})
}

func TestACallerWhoseContextHasEndedFetchesNothing(t *testing.T) {
	run(t, func(t *testing.T, srv *server, s *Source) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		expect(t, refresh(ctx, s, ""), outcome{err: context.Canceled})
		synctest.Wait()
		srv.expectAsked(t, 0)
	})
}

func TestCloseEndsTheFetchAndWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		returned := false
		s := NewSource(func(ctx context.Context) (string, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			returned = true
			return "", fmt.Errorf("authenticate: %w", ctx.Err())
		})
		caller := refresh(t.Context(), s, "")
		synctest.Wait()
		s.Close()
		if !returned {
			t.Error("Close did not wait for the fetch")
		}
		expect(t, caller, outcome{"", ErrClosed, time.Second})
		expect(t, refresh(t.Context(), s, ""), outcome{err: ErrClosed})
		s.Close()
	})
}

func TestCloseKeepsTheToken(t *testing.T) {
	run(t, func(t *testing.T, srv *server, s *Source) {
		expect(t, refresh(t.Context(), s, ""), outcome{"T1", nil, time.Second})
		s.Close()
		if token := s.Current(); token != "T1" {
			t.Errorf("the token is %q after Close", token)
		}
		expect(t, refresh(t.Context(), s, "other"), outcome{err: ErrClosed})
		srv.expectAsked(t, 1)
	})
}

// Under the race detector: calls that use the token, are refused and refresh it, while the source is closed. Every
// use of a token is refused, and what takes its place is another that was really given out.
func TestCallsRefreshAndCloseAtTheSameTime(t *testing.T) {
	var mu sync.Mutex
	given := make(map[string]bool)
	s := NewSource(func(context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		token := fmt.Sprint("T", len(given)+1)
		given[token] = true
		return token, nil
	})
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for {
				used := s.Current()
				got, err := s.Refresh(t.Context(), used)
				if errors.Is(err, ErrClosed) {
					return
				}
				mu.Lock()
				known := given[got]
				enough := len(given) >= 1000
				mu.Unlock()
				if err != nil || got == used || !known {
					t.Errorf("in place of %q: %q, %v", used, got, err)
					return
				}
				if enough {
					s.Close()
				}
			}
		})
	}
	calls.Wait()
}

func TestReadingTheTokenAllocatesNothing(t *testing.T) {
	s := NewSource(func(context.Context) (string, error) { return "T", nil })
	defer s.Close()
	if _, err := s.Refresh(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = s.Current() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
