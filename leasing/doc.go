// Package leasing is a KV with a cache that does not show old values: what is read again and again is answered from
// memory, without a round trip, and still is what a linearizable read would have answered.
//
//	kv, closeKV, err := leasing.NewKV(cli, "leasing/")
//	if err != nil {
//		return err
//	}
//	defer closeKV()
//	resp, err := kv.Get(ctx, "abc") // asks the cluster, and takes ownership of the key
//	resp, err = kv.Get(ctx, "abc")  // is answered from memory
//
// # How it works
//
// Who reads a key takes ownership of it, if nobody has it: a leasing key, the prefix with the key behind it, attached to
// a session's lease. Only the owner caches the key. Everyone who writes it through a KV of this package, with the same
// prefix, does so under the condition that the leasing key is not there, or is their own. If it is another's they write
// "REVOKE" to it, which asks the owner to give up the key, and wait until the leasing key is gone. So a write comes
// either from the owner, who knows of it, or after the owner has stopped to answer from memory. The layout is that of
// the official client, so programs with either work together.
//
// It pays where keys are read much more often than written, and mostly by one program each. The first read of a key is a
// write to the cluster; so is giving it up.
//
// # How exact it is
//
// Reads are linearizable with all writes that are made through KVs with the same prefix, under whatever happens to
// connections, members and programs. In particular nothing is answered from memory after the lease may have ended,
// reckoned from when its last renewal was sent: a program that is cut off asks the cluster, and fails, while others
// write. A write to a key of an owner that is cut off waits until that owner is back or its lease has ended.
//
// All who write must therefore use this package. Writes that are made without it, and the revoking of a lease by hand,
// do not wait for the owner. It watches its keys, and so learns of such a write, or that it has lost a key, as soon as
// the event arrives, and until then answers with what was there before.
//
// Keys that are attached to a lease of their own are not cached, since they end without a write. Ranges, and reads of a
// past revision, go to the cluster. The revision in the header of an answer from memory is one at which the key was as
// the answer says, not the cluster's latest: a watch of the key from the next one on misses nothing.
//
// # What it costs
//
// A goroutine and a watch for each key that is owned, of which there are at most 16,384 (another one is given up for one
// more); one watch of all leasing keys with the prefix. A transaction carries a comparison for each key that it may
// write, which count towards the server's limit of operations; so do reads of the owned ones among them, without which
// it is tried again if they are too many.
package leasing
