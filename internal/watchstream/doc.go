// Package watchstream is the watch engine: it keeps any number of watchers on a few gRPC streams, reopens them where
// they were when a stream breaks, and hands each consumer every event once, in order, whatever its pace.
//
// It knows the protocol (pb.WatchClient) and nothing of a Client. The type parameter R is what a consumer's channel
// carries; Config.Convert makes it.
//
// # Parts
//
//	Engine   the groups, one per outgoing metadata                              engine.go
//	group    the watchers that share a stream: opens, recovers, gives up        group.go
//	stream   one gRPC stream: watch ids, creates in flight, what to send next   stream.go
//	watcher  one watch: its next revision, fragments, its states                watcher.go
//	backlog  what a consumer that lags has yet to read, and the pump            backlog.go
//	verdict  what an error means for the watchers                               errors.go
//
// # Goroutines
//
//   - A group has one that opens streams and receives from them (group.run), and each open stream one that sends
//     (stream.send). The group's waits for the stream's before it opens another, and ends when the group has no watcher
//     left, when its watchers are ended by an error, or on Close.
//   - A watcher has none. Its context is followed by context.AfterFunc. A pump exists from the moment its consumer has
//     not taken a response when the next arrives, until the consumer has taken everything.
//   - Close waits for all of them. It can, because only the first two start pumps, so that none is started when they
//     have ended.
//
// # Locks
//
// Engine.mu guards the map of groups. group.mu guards all state of the group, its stream, its watchers and their
// backlogs. Order: Engine.mu, group.mu, then the locks inside contexts (AfterFunc and its stop). No lock is held while
// waiting, sending or receiving; a send to a consumer's channel under group.mu never blocks.
//
// # Invariants
//
//   - A watcher is in exactly one state: waiting (in group.waiting, to be created), creating (in stream.inflight), open
//     (in stream.open), paused (its consumer lags; the server does not know it) or ended. All but the ended ones are in
//     group.watchers. When a stream ends, creating and open ones are waiting again.
//   - watcher.next is the revision at which the watcher goes on: everything the server has below it was handed to the
//     consumer or is in its backlog, and nothing at or above it was. Therefore a resumed watcher neither skips nor
//     repeats, and to pause one is no more than to make the server forget it. 0 is "now": not yet created.
//   - Only the holder of group.mu sends to a consumer's channel or closes it while the watcher has no backlog; only the
//     pump does while it has one.
//   - A watch id is used once on a stream: whatever still arrives for a watcher that was cancelled finds no one.
//   - Nothing waits for a consumer: neither the receiving goroutine nor another watcher.
//
// # Bounds
//
//   - A backlog: Config.MaxPendingBytes and MaxPendingEvents, exceeded by at most the response that reaches them.
//   - What is to be sent is state, not a queue of messages: the waiting watchers, the ids to cancel (each was created
//     on this stream, and none is while the sender is stuck, so they are at most as many as it had watchers), and one
//     flag for progress. Creates that wait for their answer are at most maxInflight.
//   - Fragments being put together: as a backlog, and beyond it the events of one revision, which etcd does not limit,
//     but its transactions do.
package watchstream
