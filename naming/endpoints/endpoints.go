// Package endpoints keeps the network addresses at which a service can be reached, and tells those who use the service
// when they change.
//
// An endpoint is a key below the service's name, the target: "<target>/<whatever tells it from the others>". It is there
// as long as the key is; put it under a lease, and it goes when the program does:
//
//	em, err := endpoints.NewManager(cli, "foo/bar/my-service")
//	err = em.AddEndpoint(ctx, "foo/bar/my-service/10.0.0.5:8080", endpoints.Endpoint{Addr: "10.0.0.5:8080"},
//		clientv3.WithLease(lease))
//
// The value is JSON, {"Op":0,"Addr":"10.0.0.5:8080","Metadata":null}, as the official client writes it. Op is always 0.
//
// Package resolver finds the endpoints for gRPC.
package endpoints

import (
	"context"

	"github.com/seed-d18e112a/clientv3"
)

// Endpoint is where a service can be reached.
type Endpoint struct {
	// Addr is the address, such as "10.0.0.5:8080".
	Addr string

	// Metadata is what else there is to know of the endpoint, such as its weight. It is kept as JSON: what is a struct
	// when it is added is a map[string]any when it is read, and a number a float64.
	Metadata any
}

// Operation is what happens to an endpoint.
type Operation uint8

const (
	// Add is the adding of an endpoint, or the change of one that is there.
	Add Operation = iota
	// Delete is the end of an endpoint.
	Delete
)

// Update is the change of an endpoint.
type Update struct {
	Op Operation
	// Key is the endpoint's key, with the target: "<target>/<name>".
	Key string
	// Endpoint is what is added; empty if it is deleted.
	Endpoint Endpoint
}

// UpdateWithOpts is an Update to be made, with options of the put or the deletion that it is.
type UpdateWithOpts struct {
	Update
	Opts []clientv3.OpOption
}

// NewAddUpdateOpts returns the update that adds an endpoint, or changes it if the key is there.
func NewAddUpdateOpts(key string, endpoint Endpoint, opts ...clientv3.OpOption) *UpdateWithOpts {
	return &UpdateWithOpts{Update: Update{Op: Add, Key: key, Endpoint: endpoint}, Opts: opts}
}

// NewDeleteUpdateOpts returns the update that deletes an endpoint.
func NewDeleteUpdateOpts(key string, opts ...clientv3.OpOption) *UpdateWithOpts {
	return &UpdateWithOpts{Update: Update{Op: Delete, Key: key}, Opts: opts}
}

// WatchChannel delivers the changes of a target's endpoints, those made in one transaction together.
type WatchChannel <-chan []*Update

// Key2EndpointMap has the endpoints of a target by their keys.
type Key2EndpointMap map[string]Endpoint

// Manager manages the endpoints of one target. Its methods are safe for concurrent use.
type Manager interface {
	// Update makes all updates in one transaction, so that nobody sees some of them only. No key may be in it twice. An
	// update whose key is not below the target fails with code InvalidArgument, and none is made.
	Update(ctx context.Context, updates []*UpdateWithOpts) error

	// AddEndpoint adds an endpoint, or changes it if the key is there. The key must begin with the target and a slash.
	// With clientv3.WithLease the endpoint is deleted when the lease ends.
	AddEndpoint(ctx context.Context, key string, endpoint Endpoint, opts ...clientv3.OpOption) error

	// DeleteEndpoint deletes an endpoint. That there is none is no error.
	DeleteEndpoint(ctx context.Context, key string, opts ...clientv3.OpOption) error

	// List returns all endpoints, as the member that is asked knows them: it works without a leader, but may miss the
	// latest change. Keys with a value that is not an endpoint's are left out.
	List(ctx context.Context) (Key2EndpointMap, error)

	// NewWatchChannel returns a channel that delivers all endpoints there are, in one slice, unless there are none, and
	// then every change. If a change is missed, since its revision was compacted before it could be read, the
	// difference to what was delivered before is delivered instead; so whoever applies all updates always comes to have
	// the endpoints that are there.
	//
	// The channel is closed when ctx has ended or the client is closed; whatever else fails is tried again. It holds
	// one slice, and is not read ahead of by more than that: a reader that stops must end ctx.
	NewWatchChannel(ctx context.Context) (WatchChannel, error)
}
