package balance

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc/balancer"

	"github.com/seed-d18e112a/clientv3/internal/endpoint"
)

// endpointsWithLoad returns endpoints with so many calls in flight.
func endpointsWithLoad(loads ...int64) []*Endpoint {
	endpoints := make([]*Endpoint, len(loads))
	for i, load := range loads {
		endpoints[i] = newEndpoint(endpoint.Endpoint{Raw: string(rune('a' + i))})
		endpoints[i].traffic.word.Store(uint64(load))
	}
	return endpoints
}

// choices counts how often each endpoint is chosen.
func choices(p *picker, n int, avoid ...*Endpoint) map[*Endpoint]int {
	counts := make(map[*Endpoint]int)
	for range n {
		counts[p.choose(&Call{avoid: avoid})]++
	}
	return counts
}

func TestPickTakesTheLessBusyOfTwo(t *testing.T) {
	e := endpointsWithLoad(0, 5, 10)
	counts := choices(&picker{ready: e}, 3000)
	// Of the three pairs the first endpoint wins two, the second one, and the last none.
	if counts[e[2]] != 0 {
		t.Errorf("the busiest was picked %d times", counts[e[2]])
	}
	if got := counts[e[0]]; got < 1800 || got > 2200 {
		t.Errorf("the least busy was picked %d times of 3000, want about 2000", got)
	}
	if got := counts[e[1]]; got < 800 || got > 1200 {
		t.Errorf("the one between was picked %d times of 3000, want about 1000", got)
	}
}

func TestPickSpreadsCallsOverEndpointsThatAreEquallyBusy(t *testing.T) {
	e := endpointsWithLoad(3, 3, 3, 3)
	for e, n := range choices(&picker{ready: e}, 4000) {
		if n < 800 || n > 1200 {
			t.Errorf("%v was picked %d times of 4000, want about 1000", e, n)
		}
	}
}

func TestPickOfOne(t *testing.T) {
	e := endpointsWithLoad(100)
	if got := (&picker{ready: e}).choose(nil); got != e[0] {
		t.Errorf("picked %v", got)
	}
}

func TestPickPassesOverThoseToAvoid(t *testing.T) {
	e := endpointsWithLoad(0, 0, 100)
	counts := choices(&picker{ready: e}, 100, e[0], e[1])
	if counts[e[2]] != 100 {
		t.Errorf("the one that is left was picked %d times of 100", counts[e[2]])
	}
	counts = choices(&picker{ready: e}, 100, e[0])
	if counts[e[1]] != 100 {
		t.Errorf("the less busy of the two that are left was picked %d times of 100", counts[e[1]])
	}
}

func TestPickFailsOpenIfAllAreToBeAvoided(t *testing.T) {
	e := endpointsWithLoad(0, 0)
	counts := choices(&picker{ready: e}, 100, e...)
	if counts[e[0]] == 0 || counts[e[1]] == 0 {
		t.Errorf("picks %v, want both", counts)
	}
}

func TestPickCountsCallsInFlight(t *testing.T) {
	e := endpointsWithLoad(0)
	p := &picker{ready: e}
	call := NewCall(t.Context(), nil)
	result, err := p.Pick(balancer.PickInfo{Ctx: call})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := p.Pick(balancer.PickInfo{Ctx: t.Context()})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := e[0].traffic.load(); got != 2 {
		t.Errorf("%d in flight after two picks", got)
	}
	result.Done(balancer.DoneInfo{BytesSent: true})
	plain.Done(balancer.DoneInfo{})
	if got, _ := e[0].traffic.load(); got != 0 {
		t.Errorf("%d in flight after both are done", got)
	}
}

func TestCallTellsWhetherItWasSent(t *testing.T) {
	e := endpointsWithLoad(0)
	p := &picker{ready: e}
	pick := func(call *Call, sent bool) {
		result, err := p.Pick(balancer.PickInfo{Ctx: call})
		if err != nil {
			t.Fatal(err)
		}
		result.Done(balancer.DoneInfo{BytesSent: sent})
	}
	call := NewCall(t.Context(), nil)
	if !call.Sent() {
		t.Error("a call that has not met a Set counts as unsent")
	}
	pick(call, false)
	if call.Sent() {
		t.Error("a call whose connection was gone counts as sent")
	}
	pick(call, true)
	if !call.Sent() {
		t.Error("a call that was sent counts as unsent")
	}
	if _, err := (failingPicker{NewSet(nil)}).Pick(balancer.PickInfo{Ctx: call}); err == nil || call.Sent() {
		t.Errorf("a call that found no endpoint: error %v, sent %t", err, call.Sent())
	}
	call.Reset()
	if !call.Sent() {
		t.Error("after Reset a call counts as unsent")
	}
}

func TestCallAvoidsWhereItHasBeen(t *testing.T) {
	e := endpointsWithLoad(0, 0, 0)
	call := NewCall(t.Context(), nil)
	if call.Avoid(3) {
		t.Error("a call that was nowhere has something left to try")
	}
	for i, wantLeft := range []bool{true, true, false} {
		call.endpoint.Store(e[i])
		if left := call.Avoid(3); left != wantLeft {
			t.Errorf("after endpoint %d: something left %t, want %t", i, left, wantLeft)
		}
	}
	// All have been tried: it starts over with the last one.
	if !slices.Equal(call.avoid, e[2:]) {
		t.Errorf("avoids %v, want the last one", call.avoid)
	}
	call.endpoint.Store(e[2])
	if call.Avoid(3) || len(call.avoid) != 1 {
		t.Errorf("the same endpoint twice, for want of another: avoids %v", call.avoid)
	}
	alone := NewCall(t.Context(), nil)
	alone.endpoint.Store(e[0])
	if alone.Avoid(1) {
		t.Error("with one endpoint there is another one to try")
	}
}

func TestCallNamesItsEndpoint(t *testing.T) {
	call := NewCall(t.Context(), nil)
	if got := call.String(); got != "" {
		t.Errorf("before a pick: %q", got)
	}
	call.endpoint.Store(newEndpoint(endpoint.Endpoint{Raw: "http://member:2379"}))
	if got := call.String(); got != "http://member:2379" {
		t.Errorf("after a pick: %q", got)
	}
}

type ctxKey string

func TestCallHasTheValuesOfItsContextThenOfTheFallback(t *testing.T) {
	ctx := context.WithValue(t.Context(), ctxKey("a"), 1)
	fallback := context.WithValue(context.WithValue(context.Background(), ctxKey("a"), 2), ctxKey("b"), 2)
	call := NewCall(ctx, fallback)
	if got := call.Value(ctxKey("a")); got != 1 {
		t.Errorf("a value of both is %v, want the context's", got)
	}
	if got := call.Value(ctxKey("b")); got != 2 {
		t.Errorf("a value of the fallback is %v", got)
	}
	if got := NewCall(ctx, nil).Value(ctxKey("b")); got != nil {
		t.Errorf("a value of none is %v", got)
	}
	derived, cancel := context.WithCancel(call)
	defer cancel()
	if CallFrom(derived) != call {
		t.Error("a derived context does not find the call")
	}
	if CallFrom(ctx) != nil {
		t.Error("a context without a call finds one")
	}
}

func TestTrailLeadsAwayFromWhereStreamsEnded(t *testing.T) {
	e := endpointsWithLoad(0, 0, 0)
	ended := func(trail *Trail, e *Endpoint) {
		call := NewCall(t.Context(), nil)
		call.endpoint.Store(e)
		trail.Ended(call)
	}
	avoided := func(trail *Trail) []*Endpoint {
		call := NewCall(t.Context(), nil)
		trail.Lead(call)
		return call.avoid
	}
	var trail Trail
	if got := avoided(&trail); len(got) != 0 {
		t.Errorf("a new trail avoids %v", got)
	}
	ended(&trail, e[0])
	ended(&trail, e[1])
	ended(&trail, e[1])
	ended(&trail, nil) // a stream that found no endpoint
	if got := avoided(&trail); !slices.Equal(got, e[:2]) {
		t.Errorf("avoids %v, want the first two", got)
	}
	trail.Working()
	if got := avoided(&trail); len(got) != 0 {
		t.Errorf("once a stream works, avoids %v", got)
	}
	ended(&trail, e[2])
	if got := avoided(&trail); !slices.Equal(got, e[2:]) {
		t.Errorf("after the one that worked has ended, avoids %v, want it alone", got)
	}
}

func TestTrailDoesNotShareItsListWithCalls(t *testing.T) {
	e := endpointsWithLoad(0, 0)
	var trail Trail
	first := NewCall(t.Context(), nil)
	first.endpoint.Store(e[0])
	trail.Ended(first)
	trail.Lead(first)
	trail.Working()
	first.endpoint.Store(e[1])
	trail.Ended(first)
	if !slices.Equal(first.avoid, e[:1]) {
		t.Errorf("the call's list has changed to %v", first.avoid)
	}
}
