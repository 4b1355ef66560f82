package balance

import (
	"context"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
)

// Call is the context of a unary call made through a Set. It tells the picker which endpoints to avoid, and the caller
// which endpoint an attempt went to and whether its request was handed to the connection.
//
// It is one allocation for what would otherwise be three contexts. A Call belongs to one goroutine and makes its
// attempts one after the other.
type Call struct {
	context.Context
	fallback context.Context // values for keys that Context has none for; may be nil
	canceler context.Context // ends the call too, if it is not nil

	avoid  []*Endpoint
	target *Endpoint           // where the call must go; nil: anywhere
	leave  func(reason string) // ends the call, a long-lived stream, that is to move; nil for others

	serializable bool // it needs no leader
	elsewhere    bool // it must not go to an endpoint to avoid

	// Of the last attempt. Atomic, since gRPC ends a stream whose context ends from a goroutine of its own, and a hedge
	// looks at the attempt that it is for.
	endpoint atomic.Pointer[Endpoint] // where it went; nil if it found none connected
	answers  atomic.Uint32            // those of the endpoint, when the attempt began
	outcome  atomic.Uint32            // unsent, answered
}

// What is known of an attempt that has ended.
const (
	unsent   = 1 << iota // its request was certainly not handed to a connection
	answered             // something has come from the endpoint
)

// NewCall returns a call under ctx. Values that ctx does not have are looked up in fallback, if that is not nil: the
// outgoing metadata that every call of a client carries, made once.
func NewCall(ctx, fallback context.Context) *Call {
	return &Call{Context: ctx, fallback: fallback}
}

type callKey struct{}

// Value finds the call itself, then the values of its context, then those of the fallback.
func (c *Call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	if _, ok := key.(*int); ok && c.canceler != nil {
		// Package context asks so for the context that Done is of, to attach those derived from it without a goroutine.
		if v := c.canceler.Value(key); v != nil {
			return v
		}
	}
	if v := c.Context.Value(key); v != nil || c.fallback == nil {
		return v
	}
	return c.fallback.Value(key)
}

// CancelWith makes the call end with canceler instead of its own context, whose end the caller passes on to it. Canceler
// has no values. So a call can be ended by whoever made it, at no cost: canceler may serve any number of calls, one after
// the other, until it is used.
func (c *Call) CancelWith(canceler context.Context) { c.canceler = canceler }

// Done is that of the canceler, or of the call's context.
func (c *Call) Done() <-chan struct{} {
	if c.canceler != nil {
		return c.canceler.Done()
	}
	return c.Context.Done()
}

// Err tells of the end of the call's context, or of the canceler.
func (c *Call) Err() error {
	if err := c.Context.Err(); err != nil || c.canceler == nil {
		return err
	}
	return c.canceler.Err()
}

// Hedge returns a call that makes the attempt under way a second time, under ctx, at another endpoint.
func (c *Call) Hedge(ctx context.Context) *Call {
	h := &Call{Context: ctx, fallback: c.fallback, serializable: c.serializable, elsewhere: true}
	h.avoid = append(h.avoid, c.avoid...)
	if e := c.endpoint.Load(); e != nil {
		h.avoid = append(h.avoid, e)
	}
	return h
}

// Placed reports whether the attempt under way has found an endpoint.
func (c *Call) Placed() bool { return c.endpoint.Load() != nil }

// CallFrom returns the Call that ctx is or derives from, or nil.
func CallFrom(ctx context.Context) *Call {
	call, _ := ctx.Value(callKey{}).(*Call)
	return call
}

// IsProbe reports whether ctx is that of a probe, which is one attempt at one endpoint.
func IsProbe(ctx context.Context) bool {
	call := CallFrom(ctx)
	return call != nil && call.target != nil
}

// done ends an attempt. BytesSent is false if gRPC never opened a stream for it on the connection.
func (c *Call) done(info balancer.DoneInfo) {
	e := c.endpoint.Load()
	if c.target == nil { // a probe is not counted among the calls
		e.traffic.end(info.BytesReceived)
	}
	if c.leave != nil {
		e.lines.part(c)
	}
	var outcome uint32
	if !info.BytesSent {
		outcome |= unsent
	}
	if info.BytesReceived {
		outcome |= answered
	}
	c.outcome.Store(outcome)
}

// Sent reports whether the last attempt's request may have been handed to a connection, so that a server may have seen
// it. It is true, too, if the attempt did not go through a Set.
func (c *Call) Sent() bool { return c.outcome.Load()&unsent == 0 }

// Answered reports whether anything has come from the endpoint of the last attempt, an error too.
func (c *Call) Answered() bool { return c.outcome.Load()&answered != 0 }

// Progress counts a message that has come on a stream, as a sign of life of its endpoint.
func (c *Call) Progress() {
	if e := c.endpoint.Load(); e != nil {
		e.traffic.answer()
	}
}

// Serializable says that the call needs no leader, so that it may go to an endpoint without one.
func (c *Call) Serializable() { c.serializable = true }

// NeedsLeader takes Serializable back.
func (c *Call) NeedsLeader() { c.serializable = false }

// OnLeave makes the call a long-lived stream, which f ends when it is to move to another endpoint: its own has lost its
// leader, or is no longer one of the set. F may be called at any time, more than once, and must not wait.
func (c *Call) OnLeave(f func(reason string)) { c.leave = f }

// String returns the endpoint of the last attempt, or an empty string.
func (c *Call) String() string {
	if e := c.endpoint.Load(); e != nil {
		return e.String()
	}
	return ""
}

// Avoid makes further attempts pass over the endpoint of the last one, while another one is connected. It reports
// whether another attempt may go to an endpoint, of size in all, that has not been tried. If all have been it starts
// over: only the last one is avoided then. An attempt that went to an avoided endpoint found no other connected.
func (c *Call) Avoid(size int) bool {
	e := c.endpoint.Load()
	if e == nil || slices.Contains(c.avoid, e) {
		return false
	}
	c.avoid = append(c.avoid, e)
	if len(c.avoid) < size {
		return true
	}
	c.avoid = append(c.avoid[:0], e)
	return false
}

// Reset prepares the call for another attempt.
func (c *Call) Reset() {
	c.endpoint.Store(nil)
	c.outcome.Store(0)
}
