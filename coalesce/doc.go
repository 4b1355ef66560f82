// Package coalesce lets many callers share requests. NewKV is a KV that merges gets, NewWriter an explicit form for puts
// and deletions:
//
//	cli.KV = coalesce.NewKV(cli.KV)
//	writer := coalesce.NewWriter(cli.KV)
//
// A request costs client, network and server much more than one more operation in it. So where hundreds of callers get
// or put small values at the same time, sharing requests is several times the throughput for a fraction of the CPU time.
// A caller who is alone pays nothing.
//
// # When calls share a request
//
// There are no timers, and no call waits for others to come. With nothing under way a call goes out at once, by itself, as
// a plain one under its caller's context. Else it queues, and as soon as a slot is free (WithInFlight) the queue leaves in
// one transaction, as much of it as the bounds of operations (WithMaxOps) and of bytes (WithMaxBytes) allow. So requests
// grow with the load. The queue needs no bound of its own: each call in it has a caller who waits.
//
// # Gets
//
// Results are exactly those of separate gets. A call joins only a request that has not been sent yet, so a linearizable
// get shows all that was written before it began. Linearizable and serializable gets share no request. Responses have
// the form of a plain get's, with its whole header. Merged are gets of a single key, and of ranges in key order with a
// limit of at most MaxLimit. All else goes straight to the KV below, beside the queue: ranges without a limit, sorted or
// filtered by revision, since the answers are large, or much work, and would hold up small ones; gets of a revision
// (WithRev); puts, deletions, transactions, compactions and streams. Writes are never merged unasked.
//
// As with the key-values of a range, the bytes of values read together share memory, in chunks of at most 64 KiB: clone
// one that is to be kept for long.
//
// # Writes
//
// A Writer puts many callers' writes into one transaction: they happen in one step, and share one revision, which is that
// of each response. Whoever watches sees them as one batch. A transaction has no key twice: a second write of the same
// key goes in a later one, sent when the first has been answered, so that writes of one key with the same metadata happen
// in the order in which they were asked for, and follow each other one round trip at a time. The deletion of a range goes
// out by itself, and passes and is passed by no other write. Each caller is told its own result: what it replaced or
// deleted, if it asked for that.
//
// # Errors, cancellation
//
// A failure that may be about one operation of a request (a permission, a lease that is not there) reaches only whom it
// concerns: all calls of that request are made once more, each by itself under its caller's context, before the slot is
// free again. Of writes that is done only if the failure proves that nothing was applied; if something may have been
// (clientv3.MayHaveApplied), or the failure is one of the connection, the member or the cluster, all callers get that
// error. So one caller who keeps asking for what it may not have slows down those who share its metadata: it had better
// use a KV without merging.
//
// A server that takes fewer operations or bytes in a request says so once; what it refused is sent again in smaller
// parts, and later requests keep to that.
//
// A caller whose context ends is released at once and disturbs nobody: the shared request has a context of its own,
// without a deadline, and is cancelled when all of its callers have gone. A get then returns the context's error. So does
// a write that has been sent; of a write that was still in the queue the error wraps the context's (errors.Is), and
// clientv3.MayHaveApplied is false of it.
//
// # Metadata, context values
//
// Only calls with equal outgoing metadata share a request, which carries that metadata; a token set by the caller and
// clientv3.WithRequireLeader are such. Other values of a context do not get into a shared request, since it belongs to
// several callers: a span that an interceptor looks for is not found there, and identities that per-RPC credentials take
// from the context would be missing. WithContextKeys names values that are to be treated as metadata are.
//
// # Concurrency
//
// All here is safe for concurrent use, and nothing has to be closed: a goroutine that sends exists only while calls wait
// or their request is under way, and both end when the callers have gone.
package coalesce
