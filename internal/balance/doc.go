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
// A Set that Watch was called on looks after the health of its endpoints. One with calls or streams open that has been
// silent for a while is probed, with grpc.health.v1.Health/Check, which a member answers without disk or quorum; any
// answer, an error too, is a sign of life. Until it answers, calls pass it over; after a while its connection is cut, if
// another endpoint answers, so that calls and streams on it end now and not at their deadlines. Probes ask for a leader
// in passing: a member that has none, and one that refuses a call for want of one (Refused), is passed over by calls that
// need a leader, and its long-lived streams (Call.OnLeave) are moved, if another has one. A member that says that it has
// one, and does not serve what needs one, is found out by a trial (see trial).
//
// Nothing of this costs a call more than it pays anyway: signs of life are counted with the calls in flight, in one
// atomic word, and looked at four times per interval. Without open calls and streams nothing runs and nothing is asked.
//
// # Goroutines
//
// The monitor's, while there is something to watch, and one for each probe and for each read of a trial; all are waited
// for when gRPC closes the resolver, which ClientConn.Close waits for. Policy and resolver callbacks run in gRPC's
// serializers, picks in their callers' goroutines.
//
// # Locks
//
// Set.mu guards the endpoints' records; it is held for bookkeeping only, never across a call into gRPC. Endpoint.lines
// has a leaf of its own, which is never held across a call out either. Set.telling is taken before Set.mu is released and
// held while changes are told, which keeps them in order.
package balance
