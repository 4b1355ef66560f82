// Package renew keeps leases alive: the engine behind Lease.KeepAlive.
//
// It knows no client and no connection, only a pb.LeaseClient on which it opens one LeaseKeepAlive stream at a time
// for all leases. What a caller gets is told to its Sink.
//
// # When a lease is renewed
//
// At once, and from then on after a third of its TTL, counted from the last answer and brought forward by a small
// random part. Of more than 64 leases, those due at about the same time are renewed together: due times are rounded
// down, so that leases of the same TTL form four groups. When many leases are first kept alive together, the second
// renewal of each is brought forward at random, which spreads them over the groups.
//
// # When a lease is lost
//
// The server counts a TTL anew when it handles the renewal, which is never before the renewal was sent. So a lease
// answered with a TTL is good until that TTL has passed since the answered renewal was sent, and the sinks are closed
// then, not a round trip later: a holder of a lock learns of its loss no later than the server can give the lock to
// another. (A new leader extends all leases, so the server may keep it longer.) The clock is Go's monotonic one;
// where that stands still while the machine sleeps, the first answer after waking tells the truth. A lease whose TTL
// is still unknown, because nothing has been answered yet, is given up FirstTimeout after KeepAlive.
//
// No error of a stream ends the engine or a lease by itself: a lease lives until the server says it is gone, by a TTL
// of 0 (servers never answer a renewal with "lease not found"), or until its time has passed. The one exception are
// callers who asked for a leader (rpctypes.MetadataRequireLeaderKey in the context's outgoing metadata): they are let
// go when the members say that there is none.
//
// # Streams
//
// Every stream asks for a leader, so that a member without one refuses instead of hanging. A server handles the
// renewals of a stream one after the other, and a follower hands each to the leader and waits, for up to its request
// timeout (7 s by default). One that hangs holds up all behind it, therefore:
//
//   - A stream with no answer for a sixth of the TTL of a lease waiting on it, at least 1 s, is dropped and another
//     opened. Config.StreamContext lets the connection choose another member.
//   - What is due goes out by nearest expiry first.
//   - Outstanding renewals are limited, and the limit shrinks while answers take long, so that what becomes urgent
//     does not queue behind what is not.
//   - A lease that broke streams, having been the oldest unanswered one when they ended (say because its keys are
//     forbidden to this user, which ends the stream with PermissionDenied), is held back behind all others until its
//     time has passed or it is answered.
//
// Streams are opened when something is due, after a backoff with full jitter if the last ones brought no answer.
// After a break renewals are paced at twice the rate that the leases need in the long run, until nothing is left to
// catch up with; only leases with less than a quarter of their TTL left are exempt.
//
// # Goroutines, locks, invariants
//
// An engine without leases has no goroutine. With leases it has three, however many leases there are:
//
//   - Engine.run, started by KeepAlive, decides what happens when; it never blocks except for its timer and wake-up.
//     It ends when no caller is left.
//   - stream.run, started by Engine.run: waits for the backoff, gets a new token if need be, opens the stream,
//     receives.
//   - The sender, started and awaited by stream.run: an injected client's Send may block, so nobody else calls it.
//
// Callers' contexts are followed with context.AfterFunc. All are counted in Engine.tasks, for which Close waits. A
// dropped stream's goroutines end by its context and do nothing any more, since they are no longer Engine.stream.
//
// There is one lock, Engine.mu. Sinks are called under it, so a sink must not call the engine; that is what makes "no
// Offer after Close" hold. Engine.mu is taken before a context's own lock (context.AfterFunc and its stop function);
// the reverse order does not happen, as AfterFunc's function runs in a goroutine of its own.
//
// Under the lock the following holds:
//
//   - A lease of Engine.leases is in exactly one queue: idle (until due), ready (due, waiting to be sent), held (the
//     same, but held back) or flight (sent on Engine.stream and not answered).
//   - A lease without callers is kept only in flight, so that a KeepAlive that follows shares the renewal under way
//     and no answer is ever taken for that of a later request. It is dropped with the answer or the stream.
//   - flight is empty if there is no open stream.
//   - Engine.run will look again at Engine.wakeAt or earlier; whoever makes something due before that wakes it.
package renew
