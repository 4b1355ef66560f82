package balance

import (
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

const rangeMethod = pb.KV_Range_FullMethodName

// newTrialWard has three endpoints, of which the first answers everything but linearizable reads, and somebody who keeps
// watching them.
func newTrialWard(t *testing.T) *ward {
	w := newWard(t, "a:1", "b:1", "c:1")
	for _, s := range w.servers {
		s.HandleStream(watchMethod, quiet)
	}
	w.servers["a:1"].Handle(rangeMethod, scripted.Hang)
	w.open(1)
	return w
}

// on returns a call whose last attempt went to the i-th endpoint.
func (w *ward) on(i int) *Call { return (<-w.start(w.t.Context(), i)).call }

// visited returns how many of a hundred calls went to the address.
func (w *ward) visited(addr string, serializable bool) (n int) {
	for range 100 {
		if w.callOnce(serializable) == addr {
			n++
		}
	}
	return n
}

// A member that answers probes, has a leader, and serves nothing that takes agreement.
func TestStuckEndpointIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrialWard(t)
		left := w.open(0)
		w.TimedOut(w.on(0))
		time.Sleep(1400 * time.Millisecond)
		w.expect("on trial", Healthy, Healthy, Healthy)
		time.Sleep(500 * time.Millisecond)
		w.expect("failed", Leaderless, Healthy, Healthy)
		if st := w.Statuses()[0]; st.Reason != refusalStuck {
			t.Errorf("reason %q", st.Reason)
		}
		if why := left(); why != "" {
			t.Errorf("a stream left because %q, at the first failure", why)
		}
		if n := w.visited("a:1", false); n > 0 {
			t.Errorf("%d calls that need a leader went there", n)
		}
		if n := w.visited("a:1", true); n == 0 {
			t.Error("no call that needs none went there")
		}
		time.Sleep(5 * time.Second)
		w.expect("later", Leaderless, Healthy, Healthy)
		if why := left(); why != refusalStuck {
			t.Errorf("a stream left because %q", why)
		}

		w.servers["a:1"].Handle(rangeMethod, scripted.Fail(rpctypes.ErrGRPCPermissionDenied))
		time.Sleep(3500 * time.Millisecond)
		w.expect("passed", Healthy, Healthy, Healthy)
		if n := w.visited("a:1", false); n == 0 {
			t.Error("no call went there")
		}
	})
}

func TestSlowEndpointPassesItsTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrialWard(t)
		w.servers["a:1"].Handle(rangeMethod, func(*scripted.Call) (proto.Message, error) {
			time.Sleep(1200 * time.Millisecond)
			return nil, nil
		})
		for range 20 {
			w.TimedOut(w.on(0))
			time.Sleep(500 * time.Millisecond)
			w.expect("slow", Healthy, Healthy, Healthy)
		}
		if n := w.servers["a:1"].Count(rangeMethod); n < 3 || n > 6 {
			t.Errorf("%d trials in 10 s", n)
		}
	})
}

// In an election nobody serves.
func TestNobodyFailsATrialWhenNobodyPasses(t *testing.T) {
	for name, handler := range map[string]scripted.Unary{
		"hang": scripted.Hang, "fail": scripted.Fail(rpctypes.ErrGRPCLeaderChanged),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTrialWard(t)
				for _, s := range w.servers {
					s.Handle(rangeMethod, handler)
				}
				for range 10 {
					w.TimedOut(w.on(0))
					time.Sleep(500 * time.Millisecond)
					w.expect("without leader", Healthy, Healthy, Healthy)
				}
			})
		})
	}
}

func TestReadsHaveToBeOvertakenOftenForATrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrialWard(t)
		tried := func() int {
			synctest.Wait()
			return w.servers["a:1"].Count(rangeMethod)
		}
		call := w.on(0)
		for range 5 {
			w.Overtaken(call)
			time.Sleep(3 * time.Second) // long ago is forgotten
		}
		w.Overtaken(call)
		w.Overtaken(call)
		if n := tried(); n > 0 {
			t.Errorf("%d trials too early", n)
		}
		w.Overtaken(call)
		w.TimedOut(call)
		if n := tried(); n != 1 {
			t.Errorf("%d trials, want 1", n)
		}
		serializable := w.on(1)
		serializable.Serializable()
		w.TimedOut(serializable)
		synctest.Wait()
		if n := w.servers["b:1"].Count(rangeMethod); n != 1 { // to compare a with
			t.Errorf("%d reads of the other, want 1", n)
		}
	})
}

// With nobody to compare it with, or whose connection is lost, an endpoint is not tried.
func TestTrialsEndWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrialWard(t)
		w.TimedOut(w.on(0))
		w.servers["a:1"].Cut()
		time.Sleep(time.Minute)
		w.expect("connected again", Healthy, Healthy, Healthy)

		alone := newWard(t, "d:1")
		alone.servers["d:1"].Handle(rangeMethod, scripted.Hang)
		alone.TimedOut(alone.on(0))
		synctest.Wait()
		if n := alone.servers["d:1"].Count(rangeMethod); n != 0 {
			t.Errorf("%d trials of a lone endpoint", n)
		}
	})
}

// With nobody else there is nobody to compare an endpoint with.
func TestStuckEndpointIsTakenInWhenItIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrialWard(t)
		w.TimedOut(w.on(0))
		time.Sleep(2 * time.Second)
		w.expect("failed", Leaderless, Healthy, Healthy)
		for _, addr := range []string{"b:1", "c:1"} {
			w.servers[addr].Stop()
		}
		done := make(chan error, 1)
		go func() { done <- w.WaitLeader(t.Context()) }()
		time.Sleep(5 * time.Second)
		w.expect("alone", Healthy, Down, Down)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
