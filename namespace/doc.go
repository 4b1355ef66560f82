// Package namespace confines a KV, a Watcher and a Lease to the keys that begin with a prefix. Whoever uses the result
// sees those keys without the prefix, as if they were all that the cluster has, and cannot reach any other:
//
//	cli.KV = namespace.NewKV(cli.KV, "my-prefix/")
//	cli.Watcher = namespace.NewWatcher(cli.Watcher, "my-prefix/")
//	cli.Lease = namespace.NewLease(cli.Lease, "my-prefix/")
//
// From then on a Put of "abc" writes "my-prefix/abc", and a Get of it returns a key-value pair with the key "abc". All
// that names keys is translated: on the way in keys, ends of ranges, comparisons and nested transactions; on the way
// out the keys of what was read, deleted, replaced and watched, and those attached to a lease. All keys, written
// WithPrefix or WithFromKey of the empty key or as a range up to "\x00", are all keys of the namespace.
//
// Revisions, compactions and leases are the cluster's, and shared with everybody. The key that is the prefix itself
// belongs to the namespace of no one, as it would be the empty key there, which etcd does not have: where the empty key
// is used as a single key the error is rpctypes.ErrEmptyKey. The empty prefix is allowed and changes nothing.
//
// Operations and responses that pass through are never changed: they are copied, without the bytes of keys and values.
// So they may be shared, with a cache below or by a caller who sends one operation several times.
package namespace
