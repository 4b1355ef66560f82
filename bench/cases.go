package main

import (
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// benchCase is something that clients do, and against which server.
type benchCase struct {
	name      string // ends with the server's
	topic     topic
	server    serverKind
	operation string // what the costs are of
	// contenders are the names of those that can do it.
	contenders []string
	// rounds is the most rounds that are run, 0 for as many as are asked for.
	rounds int
	// fill puts what the case needs into an etcd. Nil if it needs nothing.
	fill func(ctx context.Context, kv pb.KVClient) error
	// run makes one measurement.
	run func(ctx context.Context, m *meter) error
}

// topic is a table of the report.
type topic string

// The report's tables.
const (
	topicCalls    topic = "Calls"
	topicRanges   topic = "Ranges and streams"
	topicStateful topic = "Watches, leases, locks and clients"
)

// topics are all, in the report's order.
var topics = []topic{topicCalls, topicRanges, topicStateful}

// scale is how much there is of everything. It is the same for all contenders.
type scale struct {
	Callers   []int         // of calls
	Ranges    []int         // keys of ranges
	Stream    int           // bytes of a stream
	Idle      int           // watches, and leases
	LeaseTTL  time.Duration // of leases that are kept alive
	Clients   int           // that are made and closed
	EventKeys int           // events that a watch finds on etcd
}

// fullScale is what the command runs.
var fullScale = scale{
	Callers:   []int{1, 16, 64, 256},
	Ranges:    []int{100, 10_000, 100_000},
	Stream:    1 << 30,
	Idle:      10_000,
	LeaseTTL:  30 * time.Second,
	Clients:   1000,
	EventKeys: 50_000,
}

// valueSize is the size of values, in bytes, where nothing else is said.
const valueSize = 256

// cases returns all cases of that scale.
func cases(s scale) []benchCase {
	return slices.Concat(callCases(s), rangeCases(s), watchCases(s), leaseCases(s), concurrencyCases(), clientCases(s))
}

// onBoth returns the case against each kind of server.
func onBoth(c benchCase) []benchCase {
	null, etcd := c, c
	null.server, etcd.server = nullKind, etcdKind
	null.name += ", null server"
	etcd.name += ", etcd"
	null.fill = nil
	return []benchCase{null, etcd}
}
