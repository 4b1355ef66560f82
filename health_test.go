package clientv3

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

const (
	probes  = healthpb.Health_Check_FullMethodName
	ranges  = pb.KV_Range_FullMethodName
	puts    = pb.KV_Put_FullMethodName
	watchRP = pb.Watch_Watch_FullMethodName
)

// after answers with the response after a while.
func after(d time.Duration, resp proto.Message) scripted.Unary {
	return func(call *scripted.Call) (proto.Message, error) {
		select {
		case <-time.After(d):
			return resp, nil
		case <-call.Context.Done():
			return nil, status.FromContextError(call.Context.Err()).Err()
		}
	}
}

// freeze halts a member as the kernel sees it: connections are accepted, and nothing is said on them.
func (m *members) freeze(i int) {
	m.servers[i].SetMode(scripted.Hanging)
	m.servers[i].Freeze()
}

func (m *members) thaw(i int) {
	m.servers[i].SetMode(scripted.Serving)
	m.servers[i].Thaw()
}

// leaders makes each member say whether it has a leader.
func (m *members) leaders(has ...bool) {
	for i, s := range m.servers {
		for _, method := range []string{probes, ranges, puts} {
			s.Handle(method, func(call *scripted.Call) (proto.Message, error) {
				if !has[i] && slices.Contains(call.Metadata().Get(rpctypes.MetadataRequireLeaderKey), "true") {
					return nil, rpctypes.ErrGRPCNoLeader
				}
				if !has[i] && method != probes {
					return scripted.Hang(call)
				}
				return nil, nil
			})
		}
	}
}

// tally is what callers saw.
type tally struct {
	mu     sync.Mutex
	done   int
	failed map[int]int // by caller
	gap    time.Duration
}

// check fails the test if a caller had more failures, or a longer time without success. The callers have ended.
func (got *tally) check(t *testing.T, failed int, gap time.Duration) {
	t.Helper()
	for i, n := range got.failed {
		if n > failed {
			t.Errorf("caller %d: %d calls failed", i, n)
		}
	}
	if got.gap > gap {
		t.Errorf("a caller had no success for %v", got.gap)
	}
}

// callerPause is what a caller does between two calls.
const callerPause = 25 * time.Millisecond

// callers make calls one after the other until ctx ends, each with a timeout of its own.
func callers(ctx context.Context, n int, timeout time.Duration, call func(context.Context) error) (*tally, *sync.WaitGroup) {
	t, wg := &tally{failed: make(map[int]int)}, new(sync.WaitGroup)
	for i := range n {
		wg.Go(func() {
			last := time.Now()
			for ctx.Err() == nil {
				short, cancel := context.WithTimeout(context.Background(), timeout)
				err := call(short)
				cancel()
				t.mu.Lock()
				if err == nil {
					t.done++
					t.gap = max(t.gap, time.Since(last))
					last = time.Now()
				} else {
					t.failed[i]++
				}
				t.mu.Unlock()
				time.Sleep(callerPause)
			}
		})
	}
	return t, wg
}

func TestAFrozenMemberHurtsNobody(t *testing.T) {
	for name, tt := range map[string]struct {
		call   func(*Client) func(context.Context) error
		failed int // per caller
		gap    time.Duration
	}{
		"linearizable reads": {func(c *Client) func(context.Context) error {
			return func(ctx context.Context) error { return drop(c.Get(ctx, "k")) }
		}, 0, 500 * time.Millisecond},
		"serializable reads": {func(c *Client) func(context.Context) error {
			return func(ctx context.Context) error { return drop(c.Get(ctx, "k", WithSerializable())) }
		}, 0, 500 * time.Millisecond},
		"writes": {func(c *Client) func(context.Context) error {
			return func(ctx context.Context) error {
				_, err := c.Put(ctx, "k", "v")
				if err != nil && !MayHaveApplied(err) {
					t.Errorf("a write that was sent is said not to have been: %v", err)
				}
				return err
			}
		}, 1, 3200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 3)
				c := m.client(t)
				m.leaders(true, true, true)
				ctx, cancel := context.WithCancel(t.Context())
				got, wg := callers(ctx, 12, 3*time.Second, tt.call(c))
				time.Sleep(10 * time.Second)
				m.freeze(0)
				time.Sleep(12 * time.Second)
				m.thaw(0)
				time.Sleep(8 * time.Second)
				cancel()
				wg.Wait()
				got.check(t, tt.failed, tt.gap)
				if healthy := 12 * 30 * 40; got.done < healthy*8/10 {
					t.Errorf("%d calls of %d in a healthy run", got.done, healthy)
				}
				for _, st := range c.EndpointStates() {
					if st.Health != EndpointHealthy || st.InFlight != 0 {
						t.Errorf("%+v", st)
					}
				}
			})
		})
	}
}

// A member that answers probes and says that it has a leader, and loses all that takes agreement, as a leader does for a
// while that was frozen and is thawed.
func TestAStuckMemberHurtsNobody(t *testing.T) {
	for name, tt := range map[string]struct {
		call   func(*Client, context.Context) error
		failed int // per caller
		gap    time.Duration
	}{
		"reads":  {func(c *Client, ctx context.Context) error { return drop(c.Get(ctx, "k")) }, 0, time.Second},
		"writes": {func(c *Client, ctx context.Context) error { return drop(c.Put(ctx, "k", "v")) }, 2, 6200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 3)
				c := m.client(t)
				m.leaders(true, true, true)
				for _, method := range []string{ranges, puts} {
					m.servers[0].Handle(method, scripted.Hang)
				}
				ctx, cancel := context.WithCancel(t.Context())
				got, wg := callers(ctx, 12, 3*time.Second, func(ctx context.Context) error { return tt.call(c, ctx) })
				time.Sleep(8 * time.Second)
				if st := c.EndpointStates()[0]; st.Health != EndpointLeaderless {
					t.Errorf("%+v", st)
				}
				n := m.servers[0].Count(puts)
				time.Sleep(22 * time.Second)
				if more := m.servers[0].Count(puts) - n; more > 0 {
					t.Errorf("%d more writes went there", more)
				}
				cancel()
				wg.Wait()
				got.check(t, tt.failed, tt.gap)
			})
		})
	}
}

// The answer of the hedge is the caller's, and the first attempt is cancelled on its member.
func TestHedgedReadReturnsTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		time.Sleep(time.Second)
		ended := make(chan struct{}, 2)
		first := true
		var mu sync.Mutex
		m.handle(ranges, func(call *scripted.Call) (proto.Message, error) {
			mu.Lock()
			hang := first
			first = false
			mu.Unlock()
			if hang {
				<-call.Context.Done()
				ended <- struct{}{}
				return nil, call.Context.Err()
			}
			return &pb.RangeResponse{Header: testHeader, Count: 1, Kvs: []*mvccpb.KeyValue{{Key: []byte("k"), Value: []byte("v")}}}, nil
		})
		start := time.Now()
		resp, err := c.Get(t.Context(), "k")
		if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "v" || resp.Header.Revision != testHeader.Revision {
			t.Errorf("%v, %v", resp, err)
		}
		if took := time.Since(start); took != DefaultHedgeDelay {
			t.Errorf("answered after %v", took)
		}
		<-ended
		if got := m.counts(ranges); !slices.Equal(got, []int{1, 1}) {
			t.Errorf("attempts %v", got)
		}
		// A hedge that loses is cancelled as well.
		m.handle(ranges, func(call *scripted.Call) (proto.Message, error) {
			mu.Lock()
			hang := first
			first = true
			mu.Unlock()
			if hang {
				<-call.Context.Done()
				ended <- struct{}{}
				return nil, call.Context.Err()
			}
			time.Sleep(150 * time.Millisecond)
			return nil, nil
		})
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Error(err)
		}
		<-ended
	})
}

// Where all reads take long, a twentieth of them is made twice, and what is learnt makes it fewer.
func TestHedgesAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t)
		time.Sleep(time.Second)
		m.handle(ranges, after(300*time.Millisecond, nil))
		const reads = 3000
		for range reads / 10 {
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					if _, err := c.Get(t.Context(), "k"); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		sent := 0
		for _, n := range m.counts(ranges) {
			sent += n
		}
		if hedges := sent - reads; hedges == 0 || hedges > reads/20+25 {
			t.Errorf("%d hedges of %d reads", hedges, reads)
		}
		if d := c.hedges.delay.Get(); d < 280*time.Millisecond {
			t.Errorf("the delay is still %v", d)
		}
		m.handle(ranges, nil)
		for range 8000 {
			if _, err := c.Get(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
		}
		if d := c.hedges.delay.Get(); d > 110*time.Millisecond {
			t.Errorf("the delay is %v, though reads are quick again", d)
		}
	})
}

// The end of a caller's context is told as it is, with a hedge under way and without.
func TestHedgedReadEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		time.Sleep(time.Second)
		m.handle(ranges, scripted.Hang)
		for _, timeout := range []time.Duration{50 * time.Millisecond, 400 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			start := time.Now()
			_, err := c.Get(ctx, "k")
			if err != context.DeadlineExceeded || time.Since(start) != timeout { //nolint:errorlint // identity
				t.Errorf("after %v: %v", time.Since(start), err)
			}
			_, err = RetryKVClient(c).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("bare: %v", err)
			}
			cancel()
			ctx, cancel = context.WithCancel(t.Context())
			time.AfterFunc(timeout, cancel)
			if _, err := c.Get(ctx, "k"); err != context.Canceled { //nolint:errorlint // identity
				t.Errorf("canceled: %v", err)
			}
		}
	})
}

// An error that a server sends is the answer, whichever attempt gets it first.
func TestHedgedReadReturnsTheServersError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		time.Sleep(time.Second)
		m.handle(ranges, func(*scripted.Call) (proto.Message, error) {
			time.Sleep(150 * time.Millisecond)
			return nil, rpctypes.ErrGRPCCompacted
		})
		start := time.Now()
		if _, err := c.Get(t.Context(), "k"); err != rpctypes.ErrCompacted { //nolint:errorlint // identity
			t.Error(err)
		}
		if took := time.Since(start); took != 150*time.Millisecond {
			t.Errorf("told after %v", took)
		}
	})
}

// Calls with options that write somewhere are not made twice at a time.
func TestCallsThatFillInOptionsAreNotHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		time.Sleep(time.Second)
		m.handle(ranges, after(time.Second, nil))
		var header metadata.MD
		if _, err := RetryKVClient(c).Range(t.Context(), &pb.RangeRequest{}, grpc.Header(&header)); err != nil {
			t.Error(err)
		}
		if n := m.count(ranges); n != 1 {
			t.Errorf("%d attempts", n)
		}
		if _, err := c.Put(t.Context(), "k", "v"); err != nil {
			t.Error(err)
		}
		m.handle(puts, after(time.Second, nil))
		if _, err := c.Put(t.Context(), "k", "v"); err != nil {
			t.Error(err)
		}
		if n := m.count(puts); n != 2 {
			t.Errorf("%d attempts at two writes", n)
		}
	})
}

// A member without leader refuses what needs one, which goes elsewhere at once, writes too; only then is it passed over.
func TestCallsGoToMembersWithALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t)
		m.leaders(false, true, true)
		time.Sleep(time.Second)
		start := time.Now()
		for range 50 {
			if _, err := c.Put(t.Context(), "k", "v"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Get(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v", took)
		}
		if n := m.servers[0].Count(puts) + m.servers[0].Count(ranges); n != 1 {
			t.Errorf("it was asked %d times", n)
		}
		if st := c.EndpointStates()[0]; st.Health != EndpointLeaderless || st.Reason == "" {
			t.Errorf("%+v", st)
		}
		// Serializable reads still go there; they do not ask for a leader.
		m.handle(ranges, nil)
		for range 50 {
			if _, err := c.Get(t.Context(), "k", WithSerializable()); err != nil {
				t.Fatal(err)
			}
		}
		for _, call := range m.servers[0].Calls(ranges)[m.servers[0].Count(ranges)-2:] {
			if got := call.Metadata().Get(rpctypes.MetadataRequireLeaderKey); len(got) != 0 {
				t.Errorf("a serializable read has %q", got)
			}
		}
	})
}

// What a caller says about a leader is left alone.
func TestCallersMetadataAboutALeaderStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		for _, tt := range []struct {
			ctx  context.Context //nolint:containedctx // a table
			want []string
		}{
			{t.Context(), []string{"true"}},
			{metadata.AppendToOutgoingContext(t.Context(), "mine", "x"), []string{"true"}},
			{metadata.AppendToOutgoingContext(t.Context(), rpctypes.MetadataRequireLeaderKey, "false"), []string{"false"}},
			{WithRequireLeader(t.Context()), []string{"true"}},
		} {
			for _, s := range m.servers {
				s.Forget()
			}
			if _, err := c.Put(tt.ctx, "k", "v"); err != nil {
				t.Fatal(err)
			}
			if got := m.last(t, puts).Metadata().Get(rpctypes.MetadataRequireLeaderKey); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		}
	})
}

// While no member has a leader calls wait for one, however many they are, and all go on when there is one.
func TestCallsWaitForALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t)
		m.leaders(false, false, false)
		time.Sleep(time.Second)

		short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		for name, call := range map[string]func(context.Context) error{
			"get": func(ctx context.Context) error { return drop(c.Get(ctx, "k")) },
			"put": func(ctx context.Context) error { return drop(c.Put(ctx, "k", "v")) },
		} {
			if err := call(short); err != context.DeadlineExceeded { //nolint:errorlint // identity
				t.Errorf("%s: %v", name, err)
			}
			start := time.Now()
			if err := call(WithRequireLeader(t.Context())); err != rpctypes.ErrNoLeader { //nolint:errorlint // identity
				t.Errorf("%s that requires a leader: %v", name, err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("%s that requires a leader was refused after %v", name, took)
			}
		}

		for _, s := range m.servers {
			s.Forget()
		}
		const n = 200
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				err := drop(c.Get(t.Context(), "k"))
				if i%2 == 0 {
					err = drop(c.Put(t.Context(), "k", "v"))
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(10 * time.Second)
		attempts, asked := 0, 0
		for _, method := range []string{ranges, puts} {
			for _, count := range m.counts(method) {
				attempts += count
			}
		}
		for _, count := range m.counts(probes) {
			asked += count
		}
		if attempts > 4*n || asked > 3*45 {
			t.Errorf("%d attempts of %d waiting calls, %d probes", attempts, n, asked)
		}
		m.leaders(false, true, true)
		start := time.Now()
		wg.Wait()
		if took := time.Since(start); took > time.Second {
			t.Errorf("they went on after %v", took)
		}
	})
}

// created returns a handler of watches that confirms each, and then is silent.
func confirmed(opened chan<- int, i int) scripted.Stream {
	return func(call *scripted.Call) error {
		for {
			var req pb.WatchRequest
			if err := call.Stream.RecvMsg(&req); err != nil {
				return nil
			}
			if create := req.GetCreateRequest(); create != nil {
				opened <- i
				if err := call.Stream.SendMsg(&pb.WatchResponse{Header: testHeader, Created: true, WatchId: create.WatchId}); err != nil {
					return err
				}
			}
		}
	}
}

// watching opens a watch, and returns where it was opened and what tells where it goes next.
func (m *members) watching(t *testing.T, c *Client) (at int, opened <-chan int, ch WatchChan) {
	t.Helper()
	where := make(chan int, 10)
	for i, s := range m.servers {
		s.HandleStream(watchRP, confirmed(where, i))
	}
	ch = c.Watch(t.Context(), "k")
	return <-where, where, ch
}

func TestWatchLeavesABadMember(t *testing.T) {
	for name, tt := range map[string]struct {
		fault  func(m *members, c *Client, i int)
		within time.Duration
	}{
		"frozen": {func(m *members, _ *Client, i int) { m.freeze(i) }, 3 * time.Second},
		"without leader": {func(m *members, _ *Client, i int) {
			has := []bool{true, true, true}
			has[i] = false
			m.leaders(has...)
		}, 2 * time.Second},
		"no longer an endpoint": {func(_ *members, c *Client, i int) {
			c.SetEndpoints(slices.Delete(c.Endpoints(), i, i+1)...)
		}, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 3)
				c := m.client(t)
				m.leaders(true, true, true)
				time.Sleep(time.Second)
				at, opened, ch := m.watching(t, c)
				time.Sleep(1700 * time.Millisecond)
				start := time.Now()
				tt.fault(m, c, at)
				next := <-opened
				if took := time.Since(start); next == at || took > tt.within {
					t.Errorf("from %d to %d after %v", at, next, took)
				}
				select {
				case resp := <-ch:
					t.Errorf("the watch was told: %+v", resp)
				default:
				}
			})
		})
	}
}

// A watch needs no leader where there is none anywhere: it is opened all the same.
func TestWatchIsOpenedWithoutALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t)
		m.leaders(false, false, false)
		opened := make(chan int, 10)
		for i, s := range m.servers {
			confirm := confirmed(opened, i)
			s.HandleStream(watchRP, func(call *scripted.Call) error {
				if slices.Contains(call.Metadata().Get(rpctypes.MetadataRequireLeaderKey), "true") {
					return rpctypes.ErrGRPCNoLeader
				}
				return confirm(call)
			})
		}
		time.Sleep(time.Second)
		start := time.Now()
		ch := c.Watch(t.Context(), "k")
		<-opened
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("opened after %v", took)
		}
		time.Sleep(10 * time.Second)
		select {
		case resp := <-ch:
			t.Errorf("told %+v", resp)
		case <-opened:
			t.Error("opened again")
		default:
		}
		if resp := <-c.Watch(WithRequireLeader(t.Context()), "k"); resp.Err() != rpctypes.ErrNoLeader { //nolint:errorlint // identity
			t.Errorf("one that requires a leader: %v", resp.Err())
		}
	})
}

func TestRenewalsLeaveAFrozenMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t)
		m.stream(keepAlive, renewals(8))
		time.Sleep(time.Second)
		ch, err := c.KeepAlive(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		<-ch
		for i := range m.servers {
			if m.servers[i].Count(keepAlive) > 0 {
				m.freeze(i)
			}
		}
		last := time.Now()
		for range 10 {
			if _, ok := <-ch; !ok {
				t.Fatal("the lease is lost")
			}
			if gap := time.Since(last); gap > 6*time.Second {
				t.Errorf("not renewed for %v", gap)
			}
			last = time.Now()
		}
	})
}

func TestAllMembersFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t)
		m.leaders(true, true, true)
		ctx, cancel := context.WithCancel(t.Context())
		reads, reading := callers(ctx, 12, 3*time.Second, func(ctx context.Context) error {
			err := drop(c.Get(ctx, "k"))
			if err != nil && err != context.DeadlineExceeded { //nolint:errorlint // identity
				t.Errorf("read: %v", err)
			}
			return err
		})
		writes, writing := callers(ctx, 12, 3*time.Second, func(ctx context.Context) error {
			err := drop(c.Put(ctx, "k", "v"))
			if err != nil && err != context.DeadlineExceeded { //nolint:errorlint // identity
				t.Errorf("write: %v", err)
			}
			return err
		})
		time.Sleep(5 * time.Second)
		for i, s := range m.servers {
			m.freeze(i)
			s.Forget()
		}
		time.Sleep(10 * time.Second)
		for i := range m.servers {
			m.thaw(i)
		}
		synctest.Wait()
		sent := 0
		for _, method := range []string{ranges, puts, probes} {
			for _, n := range m.counts(method) {
				sent += n
			}
		}
		// 24 callers make four calls each, and the reads among them some hedges.
		if sent > 300 {
			t.Errorf("%d requests while nobody answered", sent)
		}
		time.Sleep(time.Second)
		reads.mu.Lock()
		writes.mu.Lock()
		before := reads.done + writes.done
		writes.mu.Unlock()
		reads.mu.Unlock()
		time.Sleep(time.Second)
		cancel()
		reading.Wait()
		writing.Wait()
		if n := reads.done + writes.done - before; n < 24*35 {
			t.Errorf("%d calls in the second second after the thaw, want about %d", n, 24*40)
		}
	})
}

// A member that dies may have led the others. Until they have another leader writes that they forward to it are lost, so
// the next ones wait until a linearizable read has been answered.
func TestWritesWaitForTheProofOfALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t)
		time.Sleep(time.Second)
		elected := make(chan struct{})
		forward := func(call *scripted.Call) (proto.Message, error) {
			select {
			case <-elected:
				return nil, nil
			case <-call.Context.Done():
				return nil, call.Context.Err()
			}
		}
		m.handle(ranges, forward) // answered once there is a leader
		m.handle(puts, func(call *scripted.Call) (proto.Message, error) {
			select {
			case <-elected:
				return nil, nil
			default:
				return scripted.Hang(call) // lost
			}
		})
		m.servers[0].Stop()
		time.Sleep(10 * time.Millisecond)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				if _, err := c.Put(ctx, "k", "v"); err != nil {
					t.Error(err)
				}
			})
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Put(short, "k", "v"); err != context.DeadlineExceeded { //nolint:errorlint // identity
			t.Errorf("without a leader: %v", err)
		}
		time.Sleep(time.Second)
		if n := m.count(puts); n != 0 {
			t.Errorf("%d writes were sent", n)
		}
		if n := m.count(ranges); n == 0 || n > 4 {
			t.Errorf("%d reads to prove that there is a leader", n)
		}
		close(elected)
		start := time.Now()
		wg.Wait()
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("they went on after %v", took)
		}
		before := m.count(ranges)
		if _, err := c.Put(t.Context(), "k", "v"); err != nil || m.count(ranges) != before {
			t.Errorf("%d reads before the next write: %v", m.count(ranges)-before, err)
		}
	})
}

// The refusal of the read that is to prove it proves it as well.
func TestAForbiddenReadProvesALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		c := m.client(t)
		time.Sleep(time.Second)
		// The second is what a client without a user is told.
		for i, refusal := range []error{rpctypes.ErrGRPCPermissionDenied, rpctypes.ErrGRPCUserEmpty} {
			m.handle(ranges, scripted.Fail(refusal))
			m.servers[i].Cut()
			time.Sleep(10 * time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			if _, err := c.Put(ctx, "k", "v"); err != nil || time.Since(start) != 0 {
				t.Errorf("%v: after %v: %v", refusal, time.Since(start), err)
			}
			cancel()
			time.Sleep(time.Second)
		}
	})
}

func TestEndpointStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		m := newMembers(t, 2)
		c := m.client(t, func(cfg *Config) {
			cfg.Endpoints = append(cfg.Endpoints, "http://nobody:1")
			cfg.Logger = zap.New(core)
		})
		start := time.Now()
		for i, st := range c.EndpointStates() {
			if st.Endpoint != c.Endpoints()[i] || !st.Since.Equal(start) {
				t.Errorf("at first: %+v", st)
			}
		}
		time.Sleep(time.Second)
		m.handle(puts, scripted.Hang)
		for range 2 {
			go func() { _, _ = c.Put(t.Context(), "k", "v") }()
			synctest.Wait()
		}
		m.freeze(0)
		time.Sleep(4 * time.Second)
		states := c.EndpointStates()
		for i, want := range []EndpointState{
			{Health: EndpointDown, Reason: "connection dropped: the endpoint does not answer"},
			{Health: EndpointHealthy, InFlight: 1, Reason: "connected"},
			{Health: EndpointDown},
		} {
			got := states[i]
			if got.Health != want.Health || got.InFlight != want.InFlight ||
				!strings.Contains(got.Reason, want.Reason) || (got.Err != nil) != (want.Health == EndpointDown) {
				t.Errorf("%d: %+v, want %+v", i, got, want)
			}
		}
		var lines []string
		for _, entry := range logs.All() {
			fields := entry.ContextMap()
			lines = append(lines, fmt.Sprintf("%s %s %s", entry.Message, fields["endpoint"], fields["before"]))
		}
		slices.Sort(lines)
		want := []string{
			"endpoint down http://m0:2379 suspect",
			"endpoint down http://nobody:1 connecting",
			"endpoint healthy http://m0:2379 connecting",
			"endpoint healthy http://m1:2379 connecting",
			"endpoint suspect http://m0:2379 healthy",
		}
		if !slices.Equal(lines, want) {
			t.Errorf("logged %q, want %q", lines, want)
		}
		if got := NewCtxClient(t.Context()).EndpointStates(); got != nil {
			t.Errorf("of a client without connection: %v", got)
		}
	})
}

func TestHealthDisabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t, func(cfg *Config) { cfg.Health.Disabled = true })
		at, opened, _ := m.watching(t, c)
		m.freeze(at)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := c.Get(t.Context(), "k"); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(8 * time.Second) // keepalive pings come later
		m.thaw(at)
		wg.Wait()
		for i, n := range m.counts(probes) {
			if n > 0 {
				t.Errorf("member %d: %d probes", i, n)
			}
		}
		sent := 0
		for _, s := range m.servers {
			for _, call := range s.Calls(ranges) {
				sent++
				if got := call.Metadata().Get(rpctypes.MetadataRequireLeaderKey); len(got) != 0 {
					t.Errorf("a leader is asked for: %q", got)
				}
			}
		}
		if sent != 4 || len(opened) != 0 {
			t.Errorf("%d attempts of 4 reads, %d watches opened again", sent, len(opened))
		}
	})
}

// A learner that is connected first does not keep a call from the voter that is being connected to.
func TestALearnerIsNotTheLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		m.servers[0].Handle(puts, scripted.Fail(rpctypes.ErrGRPCNotSupportedForLearner))
		far := make(chan struct{})
		c := m.client(t, func(cfg *Config) {
			cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				if addr == m.servers[1].Addr() {
					select {
					case <-far:
					case <-ctx.Done():
					}
				}
				return m.Dial(ctx, addr)
			})}
		})
		start := time.Now()
		_, err := c.Put(t.Context(), "k", "v")
		if rpctypes.ErrorDesc(err) != rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner) {
			t.Error(err)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("told after %v that there is only a learner", took)
		}
		time.AfterFunc(time.Second, func() { close(far) })
		if _, err := c.Put(t.Context(), "k", "v"); err != nil {
			t.Error(err)
		}
	})
}

// Changes are logged where connections change, which the replacement of the endpoints waits for: whatever the logger
// asks the client for meanwhile, neither waits for the other.
func TestALoggerMayAskTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3)
		var client atomic.Pointer[Client]
		goOn := make(chan struct{})
		c := m.client(t, func(cfg *Config) {
			cfg.Logger = zaptest.NewLogger(t, zaptest.WrapOptions(zap.Hooks(func(zapcore.Entry) error {
				<-goOn
				_, _, _ = client.Load().Endpoints(), client.Load().EndpointStates(), client.Load().GetLogger()
				return nil
			})))
		})
		client.Store(c)
		synctest.Wait() // the first connection is being told of
		updated := make(chan struct{})
		go func() {
			c.SetEndpoints(m.servers[1].Endpoint())
			close(updated)
		}()
		synctest.Wait()
		close(goOn)
		<-updated
	})
}

// A read that may be hedged ends with its caller's context, if only after a moment where that ends in the first one.
func TestAReadEndsWithItsContext(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		timeout, cancel time.Duration // 0: none
		want            error
		took            time.Duration
	}{
		"deadline at once":       {ms, 0, context.DeadlineExceeded, ms},
		"deadline later":         {50 * ms, 0, context.DeadlineExceeded, 50 * ms},
		"deadline after a hedge": {3000 * ms, 0, context.DeadlineExceeded, 3000 * ms},
		"cancelled at once":      {0, ms, context.Canceled, unwatched},
		"cancelled later":        {0, 50 * ms, context.Canceled, 50 * ms},
		"after a hedge":          {0, 3000 * ms, context.Canceled, 3000 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMembers(t, 2)
				m.handle(ranges, scripted.Hang)
				c := m.client(t)
				synctest.Wait() // connected
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.timeout > 0 {
					ctx, cancel = context.WithTimeout(ctx, tt.timeout)
					defer cancel()
				}
				if tt.cancel > 0 {
					time.AfterFunc(tt.cancel, cancel)
				}
				start := time.Now()
				_, err := c.Get(ctx, "k")
				if took := time.Since(start); err != tt.want || took != tt.took { //nolint:errorlint // bare, as promised
					t.Errorf("%v after %v, want %v after %v", err, took, tt.want, tt.took)
				}
				start = time.Now()
				if _, err := c.Get(ctx, "k"); err != tt.want || time.Since(start) != 0 { //nolint:errorlint // as above
					t.Errorf("under a context that has ended: %v after %v", err, time.Since(start))
				}
			})
		})
	}
}

// A read for whose hedge the budget was used up when it was due is hedged once other reads have filled it.
func TestAHedgeWaitsForItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		synctest.Wait() // connected
		for c.hedges.budget.Withdraw() {
		}
		var hung atomic.Bool
		m.handle(ranges, func(call *scripted.Call) (proto.Message, error) {
			if hung.CompareAndSwap(false, true) {
				return scripted.Hang(call)
			}
			return nil, nil
		})
		done := make(chan error)
		go func() { done <- drop(c.Get(t.Context(), "k")) }()
		time.Sleep(3 * DefaultHedgeDelay)
		for range 40 {
			if _, err := c.Get(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(2 * DefaultHedgeDelay):
			t.Errorf("no answer after %v", time.Since(start))
		}
	})
}

// A read that was waiting for a connection when its hedge was due is hedged once it has one.
func TestAHedgeWaitsForTheFirstAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		var hung atomic.Bool
		m.handle(ranges, func(call *scripted.Call) (proto.Message, error) {
			if hung.CompareAndSwap(false, true) {
				return scripted.Hang(call)
			}
			return nil, nil
		})
		slow := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			time.Sleep(5 * DefaultHedgeDelay)
			return m.Dial(ctx, addr)
		})
		c := m.client(t, func(cfg *Config) { cfg.DialOptions = []grpc.DialOption{slow} })
		start := time.Now()
		if _, err := c.Get(within(t, time.Minute), "k"); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 7*DefaultHedgeDelay {
			t.Errorf("answered after %v", took)
		}
	})
}

func TestHedgesTurnedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t, func(cfg *Config) { cfg.Health.HedgeDelay = -1 })
		m.handle(ranges, after(time.Second, nil))
		if _, err := c.Get(t.Context(), "k"); err != nil || m.count(ranges) != 1 {
			t.Errorf("%d attempts, %v", m.count(ranges), err)
		}
	})
}

// A read that has to be hedged is reason enough to ask its member for a sign of life, before the interval has passed.
func TestAHedgeBringsTheProbeForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2)
		c := m.client(t)
		time.Sleep(time.Second)
		m.freeze(0)
		start := time.Now()
		for c.EndpointStates()[0].Health != EndpointDown && time.Since(start) < time.Minute {
			if _, err := c.Get(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(start); took > 2200*time.Millisecond {
			t.Errorf("dropped after %v", took)
		}
	})
}
