package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// contender is a kind of client under measurement.
type contender struct {
	name string
	dial func(endpoint string) (client, error)
}

// Names of contenders.
const (
	official     = "official"
	stub         = "gRPC stub"
	own          = "clientv3"
	ownCoalesced = "clientv3, coalesced"
)

// own.go and official.go are the same code with other imports, so that the contenders differ in nothing else.
//
//go:generate sh -c "sed -e s#github.com/seed-d18e112a/clientv3#go.etcd.io/etcd/client/v3# -e s#newOwn#newOfficial# -e s#ownClient#officialClient#g -e s#ownRenewals#officialRenewals#g -e s#ownSession#officialSession#g own.go > official.go"

// contenders are the clients with their default configuration. The official one is what the others are compared with.
var contenders = []contender{
	{official, func(endpoint string) (client, error) { return newOfficial(endpoint) }},
	{stub, func(endpoint string) (client, error) { return newStub(endpoint) }},
	{own, func(endpoint string) (client, error) { return newOwn(endpoint) }},
	{ownCoalesced, func(endpoint string) (client, error) { return newCoalesced(endpoint) }},
}

// everyClient are the contenders for calls, realClients those that are more than a stub.
var (
	everyClient = []string{official, stub, own}
	realClients = []string{official, own}
)

func contenderNamed(name string) (contender, bool) {
	i := slices.IndexFunc(contenders, func(c contender) bool { return c.name == name })
	if i < 0 {
		return contender{}, false
	}
	return contenders[i], true
}

// client is what every contender can do, whatever its types are.
type client interface {
	Get(ctx context.Context, key string) (keys int, err error)
	Put(ctx context.Context, key, value string) error
	Range(ctx context.Context, prefix string) (keys int, err error)
	// Txn compares each key's version, value and revision of creation with what they are not, and puts two of the keys
	// and gets the third since they are not.
	Txn(ctx context.Context, keys [3]string, value string) error
	// Stream reads the keys with the prefix as a stream.
	Stream(ctx context.Context, prefix string) (bytes int64, err error)
	// Watch watches the keys with the prefix from the revision on, 0 for the current one. The context ends it.
	Watch(ctx context.Context, prefix string, rev int64) (watch, error)
	Close() error
}

// watch is an open watch. It returns the number of events in the next response, which has none if it is the one that
// says that the watch is there.
type watch func() (events int, err error)

// statefulClient is what contenders can do that are more than a stub.
type statefulClient interface {
	client
	Grant(ctx context.Context, ttl int64) (id int64, err error)
	// KeepAlive keeps a lease alive until the context ends.
	KeepAlive(ctx context.Context, id int64) (renewals, error)
	// Session opens a session with a TTL in seconds.
	Session(ctx context.Context, ttl int) (session, error)
	// Increment adds one to the number that is the key's value, in a software transaction.
	Increment(ctx context.Context, key string) error
}

func asStateful(c client) (statefulClient, error) {
	if s, ok := c.(statefulClient); ok {
		return s, nil
	}
	return nil, errors.New("has neither leases nor locks nor software transactions")
}

// renewals are those of one lease.
type renewals interface {
	// first waits for the first of them.
	first() error
	// more returns how many there were since, as far as the client keeps them for its caller, and false if the lease is
	// lost.
	more() (int, bool)
}

// session is a session that can hold a lock.
type session interface {
	Lock(ctx context.Context) error
	Unlock(ctx context.Context) error
	Close() error
}

var (
	errWatchClosed = errors.New("the watch's channel was closed")
	errLeaseLost   = errors.New("the lease was lost")
)

// checkTxn returns an error if the response to Txn is not what it should be.
func checkTxn(succeeded bool, responses int) error {
	if !succeeded || responses != 3 {
		return fmt.Errorf("transaction: succeeded %v with %d responses", succeeded, responses)
	}
	return nil
}
