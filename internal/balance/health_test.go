package balance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

const (
	check       = healthpb.Health_Check_FullMethodName
	watchMethod = pb.Watch_Watch_FullMethodName
)

// ward is a set whose health is looked after, with what was told of it.
type ward struct {
	*fixture

	mu      sync.Mutex
	changes []string
}

// newWard connects to servers at the addresses and looks after them with the default patience.
func newWard(t *testing.T, addrs ...string) *ward {
	t.Helper()
	endpoints := make([]string, len(addrs))
	for i, addr := range addrs {
		endpoints[i] = "http://" + addr
	}
	w := &ward{fixture: &fixture{Set: NewSet(parse(t, endpoints...)), t: t, network: scripted.NewNetwork()}}
	w.servers = make(map[string]*scripted.Server)
	for _, addr := range addrs {
		w.servers[addr] = w.network.Serve(t, addr)
	}
	w.health = HealthConfig{Interval: time.Second, Timeout: 1500 * time.Millisecond}
	w.OnChange(func(c Change) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changes = append(w.changes, fmt.Sprintf("%s %v %v", c.To.Endpoint[len("http://"):], c.From, c.To.Health))
	})
	w.dial(insecure.NewCredentials(), false)
	synctest.Wait()
	w.told() // that they are connected
	return w
}

// told returns the changes since it was last called.
func (w *ward) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	changes := w.changes
	w.changes = nil
	return changes
}

// states returns the health of each endpoint, in order.
func (w *ward) states() []Health {
	var states []Health
	for _, st := range w.Statuses() {
		states = append(states, st.Health)
	}
	return states
}

func (w *ward) expect(when string, want ...Health) {
	w.t.Helper()
	if got := w.states(); !slices.Equal(got, want) {
		w.t.Errorf("%s: %v, want %v", when, got, want)
	}
}

// probes returns the number of probes that the servers have seen.
func (w *ward) probes() (n int) {
	for _, s := range w.servers {
		n += s.Count(check)
	}
	return n
}

// result is the end of a call that was started.
type result struct {
	call *Call
	err  error
	at   time.Time
}

// start makes a call to the i-th endpoint, which is not answered at once.
func (w *ward) start(ctx context.Context, i int) <-chan result {
	done := make(chan result, 1)
	call := NewCall(ctx, nil)
	for j, e := range w.endpoints {
		if j != i {
			call.avoid = append(call.avoid, e)
		}
	}
	go func() {
		_, err := pb.NewKVClient(w.conn).Put(call, &pb.PutRequest{})
		done <- result{call, err, time.Now()}
	}()
	synctest.Wait()
	return done
}

// open opens a watch stream on the i-th endpoint. The function returned tells why it is to move, or an empty string.
func (w *ward) open(i int) (left func() string) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	var mu sync.Mutex
	var why string
	call := NewCall(ctx, nil)
	for j, e := range w.endpoints {
		if j != i {
			call.avoid = append(call.avoid, e)
		}
	}
	call.OnLeave(func(reason string) {
		mu.Lock()
		defer mu.Unlock()
		why = reason
		cancel()
	})
	stream, err := pb.NewWatchClient(w.conn).Watch(call)
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
			call.Progress()
		}
	}()
	synctest.Wait()
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return why
	}
}

// freeze halts a server as the kernel sees it: connections are accepted, and nothing is said on them.
func (w *ward) freeze(addr string) {
	w.servers[addr].SetMode(scripted.Hanging)
	w.servers[addr].Freeze()
}

// quiet is a stream that says nothing.
func quiet(call *scripted.Call) error {
	<-call.Context.Done()
	return nil
}

// A frozen member: calls on it end when it has not answered for a while, though nothing on the connection says so.
func TestSilentEndpointIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		w.freeze("a:1")
		begun := time.Now()
		stuck := w.start(t.Context(), 0)
		end := <-stuck
		if took := end.at.Sub(begun); status.Code(end.err) != codes.Unavailable || took < 2500*time.Millisecond ||
			took > 3*time.Second {
			t.Errorf("the call ended after %v with %v", took, end.err)
		}
		if end.err == nil || !end.call.Sent() {
			t.Error("the call counts as unsent")
		}
		if got := status.Convert(end.err).Message(); got != "error reading from server: "+reasonSilent {
			t.Errorf("message %q", got)
		}
		w.expect("dropped", Down, Healthy)
		if got, want := w.told(), []string{"a:1 healthy suspect", "a:1 suspect down"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		for range 20 {
			if call, err := w.put(t.Context()); err != nil || call.String() != "http://b:1" {
				t.Fatalf("a call went to %s: %v", call, err)
			}
		}
	})
}

// What comes back is taken in again when it has answered, not when it has merely accepted a connection.
func TestDroppedEndpointComesBackWhenItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		a := w.servers["a:1"]
		a.Freeze()
		<-w.start(t.Context(), 0)
		a.Handle(check, scripted.Hang)
		a.Thaw()
		time.Sleep(time.Second)
		w.expect("connected", Suspect, Healthy)
		for range 20 {
			if call, err := w.put(t.Context()); err != nil || call.String() != "http://b:1" {
				t.Fatalf("a call went to %s: %v", call, err)
			}
		}
		a.Handle(check, nil)
		time.Sleep(3 * time.Second) // dropped once more, and connected again
		w.expect("answering", Healthy, Healthy)
		w.told()
		before := w.count("a:1")
		for range 50 {
			if _, err := w.put(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if w.count("a:1") == before {
			t.Error("no call goes to it")
		}
	})
}

// An endpoint is passed over as soon as it owes an answer, before anything is decided.
func TestCallsPassOverAnEndpointThatOwesAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		w.servers["a:1"].Freeze()
		w.start(t.Context(), 0)
		time.Sleep(1300 * time.Millisecond)
		w.expect("probed", Healthy, Healthy)
		busy := []<-chan result{}
		w.servers["b:1"].Handle(put, scripted.Hang)
		ctx, cancel := context.WithCancel(t.Context())
		for range 20 { // so that the other one is less busy
			done := make(chan result, 1)
			go func() {
				call, err := w.put(ctx)
				done <- result{call, err, time.Now()}
			}()
			busy = append(busy, done)
		}
		synctest.Wait()
		cancel()
		for _, done := range busy {
			if r := <-done; r.call.String() != "http://b:1" {
				t.Errorf("a call went to %s", r.call)
			}
		}
	})
}

func TestNoProbesWhileCallsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		for _, s := range w.servers {
			s.HandleStream(watchMethod, quiet)
			s.Handle(put, func(*scripted.Call) (proto.Message, error) {
				time.Sleep(300 * time.Millisecond)
				return nil, nil
			})
		}
		w.open(0)
		w.open(1)
		for range 30 { // one call after the other on each
			a, b := w.start(t.Context(), 0), w.start(t.Context(), 1)
			for _, r := range []result{<-a, <-b} {
				if r.err != nil {
					t.Fatal(r.err)
				}
			}
		}
		if n := w.probes(); n != 0 {
			t.Errorf("%d probes", n)
		}
	})
}

func TestNoProbesWithoutCallsAndStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		if _, err := w.put(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n := w.probes(); n != 0 {
			t.Errorf("%d probes", n)
		}
		if w.monitor.awake.Load() {
			t.Error("the monitor runs though there is nothing to watch")
		}
		w.freeze("a:1")
		<-w.start(t.Context(), 0)
		w.expect("after a rest", Down, Healthy)
	})
}

// A stream without anything to say is no reason to trust, or to distrust, its endpoint: it is asked once a second.
func TestIdleStreamsAreProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		for _, s := range w.servers {
			s.HandleStream(watchMethod, quiet)
		}
		w.open(0)
		time.Sleep(time.Minute)
		if n := w.servers["a:1"].Count(check); n < 45 || n > 60 {
			t.Errorf("%d probes in a minute", n)
		}
		if n := w.servers["b:1"].Count(check); n != 0 {
			t.Errorf("%d probes of the one without stream", n)
		}
		if got := w.told(); len(got) != 0 {
			t.Errorf("told %q", got)
		}
		begun := time.Now()
		w.servers["a:1"].Freeze()
		for !slices.Contains(w.told(), "a:1 suspect down") && time.Since(begun) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("the freeze was noticed after %v", took)
		}
	})
}

// A member that stands still for 300 ms in every second is slow, and alive.
func TestSlowEndpointIsNotSuspected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		a := w.servers["a:1"]
		a.HandleStream(watchMethod, quiet)
		a.Handle(put, scripted.Hang)
		w.open(0)
		ctx, cancel := context.WithCancel(t.Context())
		stuck := w.start(ctx, 0) // behind a disk that stalls
		for range 30 {
			a.Freeze()
			time.Sleep(300 * time.Millisecond)
			a.Thaw()
			time.Sleep(700 * time.Millisecond)
		}
		if got := w.told(); len(got) != 0 {
			t.Errorf("told %q", got)
		}
		if a.Count(check) == 0 || a.Accepted() != 1 {
			t.Errorf("%d probes, %d connections", a.Count(check), a.Accepted())
		}
		cancel()
		if r := <-stuck; status.Code(r.err) != codes.Canceled {
			t.Errorf("the call ended with %v", r.err)
		}
	})
}

// Where nobody answers, nobody is dropped: calls under way may yet be answered, and there is nowhere else to go.
func TestNobodyIsDroppedWhenNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1", "c:1")
		for _, s := range w.servers {
			s.Freeze()
		}
		stuck := []<-chan result{w.start(t.Context(), 0), w.start(t.Context(), 1)} // nothing is open on the third
		time.Sleep(10 * time.Second)
		w.expect("frozen", Suspect, Suspect, Healthy)
		for addr, s := range w.servers {
			s.Thaw()
			synctest.Wait()
			if n := s.Count(check); n > 1 {
				t.Errorf("%s: %d probes in the meantime", addr, n)
			}
			if s.Accepted() != 1 {
				t.Errorf("%s: %d connections", addr, s.Accepted())
			}
		}
		for _, done := range stuck {
			if r := <-done; r.err != nil {
				t.Errorf("a call ended with %v", r.err)
			}
		}
		w.expect("thawed", Healthy, Healthy, Healthy)
	})
}

// A lone endpoint is never dropped.
func TestLoneEndpointIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1")
		w.servers["a:1"].Freeze()
		stuck := w.start(t.Context(), 0)
		time.Sleep(8 * time.Second)
		w.expect("frozen", Suspect)
		w.servers["a:1"].Thaw()
		if r := <-stuck; r.err != nil {
			t.Error(r.err)
		}
		time.Sleep(time.Second)
		w.expect("thawed", Healthy)
	})
}

// Whatever a server answers to a probe, it lives.
func TestErrorFromAServerIsASignOfLife(t *testing.T) {
	for _, err := range append(scripted.EtcdErrors(), status.Error(codes.Unavailable, "x"),
		status.Error(codes.DeadlineExceeded, "x"), status.Error(codes.Unimplemented, "x")) {
		synctest.Test(t, func(t *testing.T) {
			w := newWard(t, "a:1", "b:1")
			a := w.servers["a:1"]
			a.Handle(check, scripted.Fail(err))
			a.HandleStream(watchMethod, quiet)
			w.open(0)
			time.Sleep(5 * time.Second)
			if a.Count(check) < 3 || a.Accepted() != 1 {
				t.Errorf("%v: %d probes, %d connections", err, a.Count(check), a.Accepted())
			}
			if got := w.states()[0]; got == Suspect || got == Down {
				t.Errorf("%v: %v", err, got)
			}
		})
	}
}

// A connection that the set cannot cut, since its handshake is not the set's, stays.
func TestConnectionsOfOtherCredentialsAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		for _, e := range w.endpoints {
			e.lines.links = [2]*link{}
		}
		w.servers["a:1"].Freeze()
		stuck := w.start(t.Context(), 0)
		time.Sleep(8 * time.Second)
		w.expect("frozen", Suspect, Healthy)
		w.servers["a:1"].Thaw()
		if r := <-stuck; r.err != nil {
			t.Error(r.err)
		}
	})
}

// A lost connection has its probe forgotten, and a new one is trusted.
func TestLostConnectionIsNotHeldAgainstTheNextOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		a := w.servers["a:1"]
		a.Handle(put, scripted.Hang)
		a.Handle(check, scripted.Hang)
		stuck := w.start(t.Context(), 0)
		time.Sleep(2 * time.Second)
		w.expect("unanswered", Suspect, Healthy)
		a.Cut()
		<-stuck
		a.Handle(put, nil)
		time.Sleep(time.Second)
		w.expect("connected again", Healthy, Healthy)
		want := []string{"a:1 healthy suspect", "a:1 suspect connecting", "a:1 connecting healthy"}
		if got := w.told(); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

func TestProbesEndWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		w.servers["a:1"].Handle(check, scripted.Hang)
		w.servers["a:1"].HandleStream(watchMethod, quiet)
		w.open(0)
		time.Sleep(1500 * time.Millisecond)
		if w.monitor.awake.Load() == false || w.servers["a:1"].Count(check) != 1 {
			t.Fatal("no probe is under way")
		}
		_ = w.conn.Close()
		w.monitor.tasks.Wait() // or the bubble would find them
	})
}

func TestInFlightLeavesProbesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		w.servers["a:1"].Handle(check, scripted.Hang)
		w.servers["a:1"].HandleStream(watchMethod, quiet)
		w.open(0)
		time.Sleep(1500 * time.Millisecond)
		if got := w.Statuses()[0].InFlight; got != 1 {
			t.Errorf("%d in flight", got)
		}
	})
}

func TestStreamsLeaveRemovedEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		for _, s := range w.servers {
			s.HandleStream(watchMethod, quiet)
			s.Handle(put, func(*scripted.Call) (proto.Message, error) {
				time.Sleep(time.Second)
				return nil, nil
			})
		}
		gone, stays := w.open(0), w.open(1)
		removed := w.endpoints[0]
		running := w.start(t.Context(), 0)
		w.Update(parse(t, "http://b:1"))
		synctest.Wait()
		if gone() != reasonRemoved || stays() != "" {
			t.Errorf("streams left because %q and %q", gone(), stays())
		}
		if r := <-running; r.err != nil {
			t.Errorf("a call under way ended with %v", r.err)
		}
		synctest.Wait()
		if n := w.servers["a:1"].Conns(); n != 0 {
			t.Errorf("%d connections to the removed one", n)
		}
		// A picker that still knew it may put a stream there.
		var why string
		late := NewCall(t.Context(), nil)
		late.OnLeave(func(reason string) { why = reason })
		removed.lines.join(late)
		if why != reasonRemoved {
			t.Errorf("a late stream left because %q", why)
		}
	})
}

// lead makes servers say whether they have a leader.
func (w *ward) lead(leaders map[string]error) {
	for addr, err := range leaders {
		answer := scripted.Answer(nil)
		if err != nil {
			answer = scripted.Fail(err)
		}
		w.servers[addr].Handle(check, answer)
		w.servers[addr].Handle(put, answer)
	}
}

// callOnce makes a call, tells the set of a refusal, and returns where it went.
func (w *ward) callOnce(serializable bool) string {
	call := NewCall(w.t.Context(), nil)
	if serializable {
		call.Serializable()
	}
	_, err := pb.NewKVClient(w.conn).Put(call, &pb.PutRequest{})
	if err != nil {
		w.Refused(call, err)
	}
	return call.String()[len("http://"):]
}

// refusedBy makes a call to the i-th endpoint, which refuses it, and tells the set.
func (w *ward) refusedBy(i int) {
	w.t.Helper()
	r := <-w.start(w.t.Context(), i)
	if r.err == nil {
		w.t.Fatal("the call is not refused")
	}
	w.Refused(r.call, r.err)
}

func TestCallsPassOverEndpointsThatRefuseThem(t *testing.T) {
	for err, health := range map[error]Health{
		rpctypes.ErrGRPCNoLeader: Leaderless, rpctypes.ErrGRPCNotSupportedForLearner: Learner,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWard(t, "a:1", "b:1")
			w.lead(map[string]error{"a:1": err})
			w.refusedBy(0)
			synctest.Wait()
			w.expect("refused", health, Healthy)
			serializable := 0
			for range 40 {
				if got := w.callOnce(false); got != "b:1" {
					t.Fatalf("a call that needs a leader went to %s", got)
				}
				if w.callOnce(true) == "a:1" {
					serializable++
				}
				time.Sleep(100 * time.Millisecond)
			}
			if serializable == 0 {
				t.Error("no serializable call went to it")
			}
			w.expect("refusing", health, Healthy)
			w.lead(map[string]error{"a:1": nil})
			w.callOnce(false)
			time.Sleep(1500 * time.Millisecond)
			w.expect("with a leader", Healthy, Healthy)
		})
	}
}

// The members are asked while calls wait for a leader, and they go on as soon as one has it.
func TestWaitLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		if !w.HasLeader() {
			t.Error("without a refusal there is no leader")
		}
		w.lead(map[string]error{"a:1": rpctypes.ErrGRPCNoLeader, "b:1": rpctypes.ErrGRPCNoLeader})
		for w.HasLeader() {
			w.callOnce(false)
			synctest.Wait()
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.WaitLeader(short); err != context.DeadlineExceeded {
			t.Errorf("waited for a leader: %v", err)
		}
		w.servers["a:1"].Forget()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if err := w.WaitLeader(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(10 * time.Second)
		if n := w.servers["a:1"].Count(check); n < 35 || n > 42 {
			t.Errorf("%d probes in 10 s", n)
		}
		w.lead(map[string]error{"b:1": nil})
		begun := time.Now()
		wg.Wait()
		if took := time.Since(begun); took > 250*time.Millisecond {
			t.Errorf("the leader was noticed after %v", took)
		}
		if got := w.callOnce(false); got != "b:1" {
			t.Errorf("the next call went to %s", got)
		}
		// Once nobody waits and nothing is open, nobody is asked.
		time.Sleep(time.Minute)
		n := w.probes()
		time.Sleep(time.Minute)
		if got := w.probes(); got != n {
			t.Errorf("%d probes of an idle set", got-n)
		}
	})
}

func TestWaitLeaderEndsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1")
		w.lead(map[string]error{"a:1": rpctypes.ErrGRPCNoLeader})
		w.callOnce(false)
		done := make(chan error, 1)
		go func() { done <- w.WaitLeader(t.Context()) }()
		synctest.Wait()
		_ = w.conn.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A stream on a member that has lost its leader sees nothing any more; it moves, if there is a member to move to.
func TestStreamsLeaveALeaderlessEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1", "c:1")
		for _, s := range w.servers {
			s.HandleStream(watchMethod, quiet)
		}
		left := w.open(0)
		none := map[string]error{}
		for addr := range w.servers {
			none[addr] = rpctypes.ErrGRPCNoLeader
		}
		w.lead(none)
		time.Sleep(10 * time.Second)
		w.expect("without a leader", Leaderless, Leaderless, Leaderless)
		if why := left(); why != "" {
			t.Errorf("the stream left because %q, though no other has a leader", why)
		}
		w.lead(map[string]error{"b:1": nil})
		time.Sleep(2 * time.Second)
		w.expect("with a leader", Leaderless, Healthy, Leaderless)
		if why := left(); why != refusalNoLeader {
			t.Errorf("the stream left because %q", why)
		}
	})
}

// An idle stream notices soon that its member was cut from the others.
func TestIdleStreamLeavesALeaderlessEndpointInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1", "c:1")
		w.servers["a:1"].HandleStream(watchMethod, quiet)
		left := w.open(0)
		for range 10 {
			time.Sleep(370 * time.Millisecond)
		}
		w.lead(map[string]error{"a:1": rpctypes.ErrGRPCNoLeader})
		begun := time.Now()
		for left() == "" && time.Since(begun) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(begun); took > 1600*time.Millisecond {
			t.Errorf("it left after %v", took)
		}
	})
}

// A moment without leader, as in an election, moves no stream.
func TestStreamsStayInAnElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		for _, s := range w.servers {
			s.HandleStream(watchMethod, quiet)
		}
		left := w.open(0)
		w.lead(map[string]error{"a:1": rpctypes.ErrGRPCNoLeader})
		w.refusedBy(0)
		time.Sleep(100 * time.Millisecond)
		w.lead(map[string]error{"a:1": nil})
		time.Sleep(10 * time.Second)
		if why := left(); why != "" {
			t.Errorf("the stream left because %q", why)
		}
		w.expect("afterwards", Healthy, Healthy)
	})
}

// After a rest nothing that was said before it counts.
func TestRefusalsAreForgottenAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		for _, s := range w.servers {
			s.HandleStream(watchMethod, quiet)
		}
		w.lead(map[string]error{"a:1": rpctypes.ErrGRPCNoLeader})
		w.refusedBy(0)
		time.Sleep(700 * time.Millisecond) // it has said so twice
		time.Sleep(time.Hour)
		w.lead(map[string]error{"a:1": nil})
		left := w.open(0)
		time.Sleep(5 * time.Second)
		if why := left(); why != "" {
			t.Errorf("a stream left because %q", why)
		}
		w.expect("afterwards", Healthy, Healthy)
	})
}

func TestProbesCarryNothingButTheirQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		w.servers["a:1"].HandleStream(watchMethod, quiet)
		w.open(0)
		time.Sleep(2 * time.Second)
		for _, call := range w.servers["a:1"].Calls(check) {
			if got := call.Metadata().Get(rpctypes.MetadataRequireLeaderKey); !slices.Equal(got, []string{"true"}) {
				t.Errorf("require-leader metadata %q", got)
			}
		}
		// A probe of an endpoint that is not connected fails at once, and goes nowhere else.
		call := &Call{Context: t.Context(), target: newEndpoint(w.endpoints[0].target)}
		_, err := healthpb.NewHealthClient(w.conn).Check(call, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(false))
		if status.Code(err) != codes.Unavailable || call.Answered() {
			t.Errorf("%v, answered %t", err, call.Answered())
		}
	})
}

func TestStatesOfUnreachableEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		since := w.Statuses()[0].Since
		time.Sleep(time.Second)
		w.servers["a:1"].Stop()
		time.Sleep(time.Second)
		st := w.Statuses()[0]
		if st.Health != Down || st.State != connectivity.TransientFailure || !st.Since.After(since) || st.Reason == "" {
			t.Errorf("stopped: %+v", st)
		}
		if err := w.servers["a:1"].Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		w.expect("started", Healthy, Healthy)
		want := []string{"a:1 healthy connecting", "a:1 connecting down", "a:1 down healthy"}
		if got := w.told(); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

// The silence before a call was made is nobody's fault: an endpoint has the interval to answer it.
func TestCallsHaveTheWholeInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, "a:1", "b:1")
		w.servers["b:1"].HandleStream(watchMethod, quiet)
		w.open(1) // so that the monitor runs
		w.servers["a:1"].Handle(put, func(*scripted.Call) (proto.Message, error) {
			time.Sleep(950 * time.Millisecond)
			return nil, nil
		})
		for i := range 50 {
			time.Sleep(time.Duration(i) * 11 * time.Millisecond) // at every phase of its ticks
			if r := <-w.start(t.Context(), 0); r.err != nil {
				t.Fatal(r.err)
			}
		}
		if n := w.servers["a:1"].Count(check); n != 0 {
			t.Errorf("%d probes", n)
		}
	})
}
