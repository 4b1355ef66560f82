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

	avoid    []*Endpoint
	endpoint *Endpoint   // where the last attempt went; nil if it found none connected
	unsent   atomic.Bool // the last attempt's request was certainly not handed to a connection; atomic, since gRPC
	// ends a stream whose context ends from a goroutine of its own
}

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
	if v := c.Context.Value(key); v != nil || c.fallback == nil {
		return v
	}
	return c.fallback.Value(key)
}

// CallFrom returns the Call that ctx is or derives from, or nil.
func CallFrom(ctx context.Context) *Call {
	call, _ := ctx.Value(callKey{}).(*Call)
	return call
}

// done ends an attempt. BytesSent is false if gRPC never opened a stream for it on the connection.
func (c *Call) done(info balancer.DoneInfo) {
	c.endpoint.inFlight.Add(-1)
	c.unsent.Store(!info.BytesSent)
}

// Sent reports whether the last attempt's request may have been handed to a connection, so that a server may have seen
// it. It is true, too, if the attempt did not go through a Set.
func (c *Call) Sent() bool { return !c.unsent.Load() }

// String returns the endpoint of the last attempt, or an empty string.
func (c *Call) String() string {
	if c.endpoint == nil {
		return ""
	}
	return c.endpoint.String()
}

// Avoid makes further attempts pass over the endpoint of the last one, while another one is connected. It reports
// whether another attempt may go to an endpoint, of size in all, that has not been tried. If all have been it starts
// over: only the last one is avoided then. An attempt that went to an avoided endpoint found no other connected.
func (c *Call) Avoid(size int) bool {
	if c.endpoint == nil || slices.Contains(c.avoid, c.endpoint) {
		return false
	}
	c.avoid = append(c.avoid, c.endpoint)
	if len(c.avoid) < size {
		return true
	}
	c.avoid = append(c.avoid[:0], c.endpoint)
	return false
}

// Reset prepares the call for another attempt.
func (c *Call) Reset() {
	c.endpoint = nil
	c.unsent.Store(false)
}
