// Package concurrency has what programs build on etcd to work together: sessions, locks, elections, and software
// transactional memory.
//
// A [Session] is a lease that is kept alive as long as the program is. What is put under it goes when the program does,
// or can no longer reach the cluster: a lock is free again, a leader is succeeded.
//
// # Locks and elections
//
// A [Mutex] is held by one session at a time, an [Election] has one leader at a time. Both are queues: everyone writes
// a key "<prefix>/<lease in hex>", attached to the session's lease, and the key with the lowest create revision is the
// holder's. The layout is that of etcd's own client, its lock and election services and etcdctl, so programs of all
// kinds contend with each other.
//
// The key belongs to the session, so a second Mutex on the same prefix and session is the same lock: it is held when
// the first one is, and one Unlock frees it for all. To have goroutines of one program exclude each other, give each a
// session, or a sync.Mutex beside this one.
//
// # What a lock is good for
//
// No lock in a network keeps its holder from running on after it has lost it: the machine is paused, the network is
// cut, the lease ends, another one holds the lock, and the first one does not know yet. Three things help.
//
//   - [Mutex.Context] and [Election.Context] return a context that ends when the lock or the leadership is lost. Work
//     done under it stops in time, though not at once.
//   - [Mutex.Txn] and [Election.Txn] make a transaction that etcd carries out only if the lock is still held then, so
//     there is no gap. Whatever a lock guards in etcd itself should be written so.
//   - [Mutex.Rev] and [Election.Rev] return a number that is larger for each later holder, a fencing token. A store
//     that refuses writes with a smaller token than it has seen is safe from holders of the past.
//
// # Transactions
//
// [NewSTM] runs a function that reads and writes keys as if it was alone, and runs it again if it was not. How much of
// that is promised is its [Isolation].
package concurrency
