package balance

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/endpoint"
	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

const put = pb.KV_Put_FullMethodName

func parse(t *testing.T, endpoints ...string) []endpoint.Endpoint {
	t.Helper()
	targets := make([]endpoint.Endpoint, len(endpoints))
	for i, ep := range endpoints {
		var err error
		if targets[i], err = endpoint.Parse(ep); err != nil {
			t.Fatal(err)
		}
	}
	return targets
}

// fixture is a set on a network in memory, with a connection. It is used in synctest bubbles.
type fixture struct {
	*Set
	t       *testing.T
	network *scripted.Network
	conn    *grpc.ClientConn
	servers map[string]*scripted.Server
	health  HealthConfig // zero: the set does not look after it
}

// newFixture connects to a set of the endpoints, on which servers run at the addresses.
func newFixture(t *testing.T, endpoints []string, addrs ...string) *fixture {
	t.Helper()
	f := &fixture{Set: NewSet(parse(t, endpoints...)), t: t, network: scripted.NewNetwork()}
	f.servers = make(map[string]*scripted.Server)
	for _, addr := range addrs {
		f.servers[addr] = f.network.Serve(t, addr)
	}
	f.dial(insecure.NewCredentials(), false)
	return f
}

func (f *fixture) dial(secure credentials.TransportCredentials, configured bool) {
	f.t.Helper()
	opts := append(f.DialOptions(), f.network.DialOption(),
		grpc.WithTransportCredentials(f.Credentials(secure, configured)),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}))
	conn, err := grpc.NewClient(f.Target(), opts...)
	if err != nil {
		f.t.Fatal(err)
	}
	if f.health.Interval > 0 {
		f.Watch(conn, f.health)
	}
	conn.Connect()
	f.conn = conn
	f.t.Cleanup(func() { _ = conn.Close() })
}

// put makes a call and returns it with its error.
func (f *fixture) put(ctx context.Context) (*Call, error) {
	call := NewCall(ctx, nil)
	_, err := pb.NewKVClient(f.conn).Put(call, &pb.PutRequest{})
	return call, err
}

// count returns the number of puts at a server.
func (f *fixture) count(addr string) int { return f.servers[addr].Count(put) }

// states returns the state of every endpoint.
func (f *fixture) states() map[string]connectivity.State {
	states := make(map[string]connectivity.State)
	for _, st := range f.Statuses() {
		states[st.Endpoint] = st.State
	}
	return states
}

func TestCallsGoToAllEndpointsUnderTheirOwnAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"http://a:1", "b:1", "http://c:1"}, "a:1", "b:1", "c:1")
		synctest.Wait()
		for range 100 {
			if _, err := f.put(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for addr, s := range f.servers {
			if s.Accepted() != 1 {
				t.Errorf("%s: %d connections, want 1", addr, s.Accepted())
			}
			if n := f.count(addr); n < 10 {
				t.Errorf("%s: %d calls of 100", addr, n)
			}
			for _, call := range s.Calls(put) {
				if got := call.Metadata().Get(":authority"); len(got) != 1 || got[0] != addr {
					t.Fatalf("%s: authority %q", addr, got)
				}
			}
		}
		for _, st := range f.Statuses() {
			if st.State != connectivity.Ready || st.Err != nil || st.InFlight != 0 {
				t.Errorf("%+v, want ready and idle", st)
			}
		}
	})
}

func TestCallKnowsItsEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"http://a:1"}, "a:1")
		call, err := f.put(t.Context())
		if err != nil || call.String() != "http://a:1" || !call.Sent() {
			t.Errorf("went to %q, sent %t, error %v", call, call.Sent(), err)
		}
	})
}

func TestInFlightCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1"}, "a:1")
		f.servers["a:1"].Handle(put, scripted.Hang)
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			go func() { _, _ = f.put(ctx) }()
		}
		synctest.Wait()
		if got := f.Statuses()[0].InFlight; got != 3 {
			t.Errorf("%d in flight, want 3", got)
		}
		cancel()
		synctest.Wait()
		if got := f.Statuses()[0].InFlight; got != 0 {
			t.Errorf("%d in flight after the end, want 0", got)
		}
	})
}

func TestEndpointsListedTwiceAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1", "a:1", "b:1", "a:1"}, "a:1", "b:1")
		synctest.Wait()
		if f.Size() != 2 || f.servers["a:1"].Accepted() != 1 {
			t.Errorf("%d endpoints, %d connections", f.Size(), f.servers["a:1"].Accepted())
		}
	})
}

func TestUpdateKeepsConnectionsThatStayAndDropsThoseThatGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1", "b:1"}, "a:1", "b:1", "c:1")
		synctest.Wait()
		f.Update(parse(t, "c:1", "b:1"))
		synctest.Wait()
		if n := f.servers["a:1"].Conns(); n != 0 {
			t.Errorf("the endpoint that is gone has %d connections", n)
		}
		if n := f.servers["b:1"].Accepted(); n != 1 {
			t.Errorf("the endpoint that stays was connected to %d times", n)
		}
		if n := f.servers["c:1"].Conns(); n != 1 {
			t.Errorf("the new endpoint has %d connections", n)
		}
		for range 50 {
			if _, err := f.put(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if f.count("a:1") != 0 || f.count("b:1") == 0 || f.count("c:1") == 0 {
			t.Errorf("calls: a %d, b %d, c %d", f.count("a:1"), f.count("b:1"), f.count("c:1"))
		}
		if got := f.Statuses(); len(got) != 2 || got[0].Endpoint != "c:1" || got[1].Endpoint != "b:1" {
			t.Errorf("statuses %v, want those of c and b, in this order", got)
		}
	})
}

func TestCallsUnderWayOnARemovedEndpointRunToTheirEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1"}, "a:1", "b:1")
		answer := make(chan struct{})
		f.servers["a:1"].Handle(put, func(*scripted.Call) (proto.Message, error) {
			<-answer
			return nil, nil
		})
		result := make(chan error, 1)
		go func() { _, err := f.put(t.Context()); result <- err }()
		synctest.Wait()
		f.Update(parse(t, "b:1"))
		synctest.Wait()
		close(answer)
		if err := <-result; err != nil {
			t.Errorf("the call under way: %v", err)
		}
		synctest.Wait()
		if n := f.servers["a:1"].Conns(); n != 0 {
			t.Errorf("%d connections are left to the removed endpoint", n)
		}
	})
}

func TestAnEndpointThatComesBackIsANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1"}, "a:1", "b:1")
		synctest.Wait()
		f.Update(parse(t, "b:1"))
		f.Update(parse(t, "a:1"))
		if _, err := f.put(t.Context()); err != nil || f.count("a:1") != 1 {
			t.Errorf("%d calls, error %v", f.count("a:1"), err)
		}
	})
}

func TestWithoutEndpointsCallsFailUntilThereAreSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1"}, "a:1")
		synctest.Wait()
		f.Update(nil)
		synctest.Wait()
		call, err := f.put(t.Context())
		if status.Code(err) != codes.Unavailable || call.Sent() {
			t.Errorf("without endpoints: sent %t, error %v", call.Sent(), err)
		}
		f.Update(parse(t, "a:1"))
		if err := f.WaitReady(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := f.put(t.Context()); err != nil {
			t.Errorf("with endpoints again: %v", err)
		}
	})
}

func TestUpdateOutlivesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1"}, "a:1")
		synctest.Wait()
		if err := f.conn.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		f.Update(parse(t, "b:1"))
		if got := f.Statuses(); len(got) != 1 || got[0].Endpoint != "b:1" {
			t.Errorf("statuses %v", got)
		}
	})
}

func TestCallsWaitWhileAnEndpointMayStillAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1", "dead:1"}, "a:1")
		synctest.Wait()
		// The dead one refuses at once; the other has accepted the connection and not said anything yet.
		f.servers["a:1"].SetMode(scripted.Hanging)
		f.servers["a:1"].Cut()
		synctest.Wait()
		f.Update(parse(t, "a:1", "dead:1"))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := f.put(ctx)
		if status.Code(err) != codes.DeadlineExceeded || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		// Once it has failed too, after the 5 s that a connection may take, calls fail at once.
		time.Sleep(2*time.Second + time.Millisecond)
		synctest.Wait()
		start = time.Now()
		_, err = f.put(t.Context())
		if status.Code(err) != codes.Unavailable || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestUnreachableEndpointsAreNamedWithTheirErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"http://a:1", "b:2"})
		call, err := f.put(t.Context())
		if status.Code(err) != codes.Unavailable || call.Sent() || call.String() != "" {
			t.Fatalf("went to %q, sent %t, error %v", call, call.Sent(), err)
		}
		for _, part := range []string{
			`no endpoint is reachable: "http://a:1" (`, "dial a:1: connection refused", `"b:2" (`, "dial b:2: connection refused",
		} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q lacks %q", err, part)
			}
		}
		for _, st := range f.Statuses() {
			if st.State != connectivity.TransientFailure || st.Err == nil {
				t.Errorf("%+v, want a failure with its error", st)
			}
		}
	})
}

func TestAFailureLastsUntilTheNextSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1"})
		synctest.Wait()
		server := f.network.Serve(t, "a:1")
		server.SetMode(scripted.Hanging)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		// It is being dialled again, but a call need not wait for that.
		if server.Accepted() == 0 {
			t.Fatal("the endpoint was not dialled again")
		}
		start := time.Now()
		if _, err := f.put(t.Context()); status.Code(err) != codes.Unavailable || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if st := f.Statuses()[0]; st.State != connectivity.TransientFailure || st.Err == nil {
			t.Errorf("%+v, want the failure", st)
		}
		server.SetMode(scripted.Serving)
		server.Cut()
		if err := f.WaitReady(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := f.put(t.Context()); err != nil {
			t.Errorf("once connected: %v", err)
		}
		if st := f.Statuses()[0]; st.State != connectivity.Ready || st.Err != nil {
			t.Errorf("%+v, want ready without error", st)
		}
	})
}

func TestLostConnectionsAreDialledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1"}, "a:1")
		if _, err := f.put(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.servers["a:1"].Cut()
		synctest.Wait()
		start := time.Now()
		if _, err := f.put(t.Context()); err != nil {
			t.Errorf("after a cut: %v", err)
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("the call took %v, want the endpoint dialled at once", got)
		}
		f.servers["a:1"].Stop()
		synctest.Wait()
		if _, err := f.put(t.Context()); status.Code(err) != codes.Unavailable {
			t.Errorf("while it is down: %v", err)
		}
		time.Sleep(time.Minute)
		if dials := f.network.Dials("a:1"); dials < 30 || dials > 80 {
			t.Errorf("%d dials in a minute, want about one in each second of backoff", dials)
		}
		if err := f.servers["a:1"].Start(); err != nil {
			t.Fatal(err)
		}
		if err := f.WaitReady(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := f.put(t.Context()); err != nil {
			t.Errorf("when it is back: %v", err)
		}
	})
}

func TestCallsPassOverEndpointsThatAreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1", "b:1", "c:1"}, "a:1", "b:1", "c:1")
		synctest.Wait()
		f.servers["b:1"].Stop()
		synctest.Wait()
		for range 50 {
			if _, err := f.put(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.states(); got["b:1"] != connectivity.TransientFailure || got["a:1"] != connectivity.Ready {
			t.Errorf("states %v", got)
		}
	})
}

func TestWaitReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1"})
		start := time.Now()
		if err := f.WaitReady(t.Context(), 1500*time.Millisecond); err != nil || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("nobody there: %v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.WaitReady(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("under a context that ends: %v", err)
		}
		if f.Reached() {
			t.Error("an endpoint was reached")
		}
		f.network.Serve(t, "a:1")
		start = time.Now()
		if err := f.WaitReady(t.Context(), time.Hour); err != nil || time.Since(start) > 2*time.Second {
			t.Errorf("once it is there: %v after %v", err, time.Since(start))
		}
		if !f.Reached() {
			t.Error("no endpoint was reached")
		}
		start = time.Now()
		if err := f.WaitReady(t.Context(), time.Hour); err != nil || time.Since(start) != 0 {
			t.Errorf("while connected: %v after %v", err, time.Since(start))
		}
	})
}

func TestWaitReadyEndsWhenTheConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1"})
		start := time.Now()
		time.AfterFunc(time.Second, func() { _ = f.conn.Close() })
		if err := f.WaitReady(t.Context(), time.Hour); err != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %v, want no error after 1 s", err, time.Since(start))
		}
	})
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1"}, "a:1")
		start := time.Now()
		if err := f.Sleep(t.Context(), time.Second); err != nil || time.Since(start) != time.Second || f.Closed() {
			t.Errorf("%v after %v, closed %t", err, time.Since(start), f.Closed())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("under a context that ends: %v", err)
		}
		if err := f.Sleep(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("for no time, under a context that has ended: %v", err)
		}
		start = time.Now()
		time.AfterFunc(time.Second, func() { _ = f.conn.Close() })
		if err := f.Sleep(t.Context(), time.Hour); err != nil || time.Since(start) != time.Second || !f.Closed() {
			t.Errorf("%v after %v, closed %t, want the end of the connection", err, time.Since(start), f.Closed())
		}
	})
}

func TestAvoidSendsAnAttemptElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, []string{"a:1", "b:1", "c:1"}, "a:1", "b:1", "c:1")
		synctest.Wait()
		kv := pb.NewKVClient(f.conn)
		for range 20 {
			for _, s := range f.servers {
				s.Forget()
			}
			call := NewCall(t.Context(), nil)
			for i := range 3 {
				if _, err := kv.Put(call, &pb.PutRequest{}); err != nil {
					t.Fatal(err)
				}
				if left := call.Avoid(f.Size()); left != (i < 2) {
					t.Fatalf("after attempt %d: something left %t", i, left)
				}
				call.Reset()
			}
			if f.count("a:1") != 1 || f.count("b:1") != 1 || f.count("c:1") != 1 {
				t.Fatalf("calls: a %d, b %d, c %d, want one each", f.count("a:1"), f.count("b:1"), f.count("c:1"))
			}
		}
	})
}

func TestTargetShowsTheFirstEndpoint(t *testing.T) {
	if got := NewSet(parse(t, "http://a:1", "b:1")).Target(); got != "etcd-endpoints:///a:1" {
		t.Errorf("target %q", got)
	}
	if got := NewSet(nil).Target(); got != "etcd-endpoints:///" {
		t.Errorf("target without endpoints %q", got)
	}
}

func TestPolicyRefusesConnectionsThatAreNotASets(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///a:1", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+policyName+`":{}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{}); err == nil {
		t.Error("a call on a foreign connection succeeded")
	}
}
