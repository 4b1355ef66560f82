// Package balance decides which endpoint a call goes to. A Set holds the endpoints of one client, with a record of
// each: its connection, the calls in flight on it, why it could not be reached. The Set is at once the resolver of the
// client's grpc.ClientConn, the state its balancing policy keeps, and what the client inspects.
//
// Every endpoint has one connection, kept up as long as the endpoint is in the set; a lost one is dialled again at
// once, and then with gRPC's backoff. A call goes to the less busy of two connected endpoints drawn at random ("the
// power of two choices", Mitzenmacher 2001), leaving out those that the call says to avoid, unless nothing else is
// connected. While no endpoint is connected and not every one has failed yet, calls wait under their context; once all
// have failed they fail at once, with the last error of each endpoint, and the client's retry loop waits for the next
// connection (Set.WaitReady).
//
// The package has no goroutines of its own. Policy and resolver callbacks run in gRPC's serializers, picks in their
// callers' goroutines. Set.mu is the only lock; it is held for bookkeeping only, never across a call into gRPC.
package balance
