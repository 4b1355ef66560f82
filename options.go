package clientv3

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// OpOption is an option of a Get, Put, Delete, Watch or MemberList, or of the Op… functions.
type OpOption func(*Op)

// noRangeEnd is etcd's way to write a range without an upper end: a range end of one zero byte.
const noRangeEnd = "\x00"

// WithLease attaches the lease to the key of a put: when the lease ends, the key is deleted. NoLease, the default,
// attaches none and takes away one that the key had.
func WithLease(leaseID LeaseID) OpOption {
	return func(op *Op) { op.leaseID = leaseID }
}

// WithLimit bounds the number of keys that a get returns. 0, the default, is no limit. Whether keys were left out is
// told by the response's More.
func WithLimit(n int64) OpOption {
	return func(op *Op) { op.limit = n }
}

// WithRev makes a get read the store as it was at the revision, and a watch start with the events of that revision. 0,
// the default, is the current revision for a get and "from now on" for a watch.
func WithRev(rev int64) OpOption {
	return func(op *Op) { op.rev = rev }
}

// WithSort orders the keys that a get returns. The default is ascending by key.
func WithSort(target SortTarget, order SortOrder) OpOption {
	return func(op *Op) {
		if target == SortByKey && order == SortAscend {
			// The server returns keys in this order anyway; asking it to sort them makes it collect the whole range
			// before it applies the limit.
			order = SortNone
		}
		op.sort = &SortOption{target, order}
	}
}

// GetPrefixRangeEnd returns the end of the range that holds exactly the keys with the prefix: the prefix with its last
// byte below 0xff raised by one and the bytes behind it cut. For a prefix without such a byte, the empty one too, it
// returns "\x00", which stands for no end.
func GetPrefixRangeEnd(prefix string) string {
	return string(prefixEnd([]byte(prefix)))
}

func prefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end := make([]byte, i+1)
			copy(end, prefix)
			end[i]++
			return end
		}
	}
	return []byte(noRangeEnd)
}

// WithPrefix makes the operation apply to all keys that begin with its key. With an empty key these are all keys.
func WithPrefix() OpOption {
	return func(op *Op) {
		op.isOptsWithPrefix = true
		if len(op.key) == 0 {
			op.key, op.end = []byte(noRangeEnd), []byte(noRangeEnd)
			return
		}
		op.end = prefixEnd(op.key)
	}
}

// WithRange makes the operation apply to the keys from its key up to, and without, endKey.
func WithRange(endKey string) OpOption {
	return func(op *Op) { op.end = []byte(endKey) }
}

// WithFromKey makes the operation apply to all keys from its key on. With an empty key these are all keys.
func WithFromKey() OpOption {
	return func(op *Op) {
		if len(op.key) == 0 {
			op.key = []byte(noRangeEnd)
		}
		op.end = []byte(noRangeEnd)
		op.isOptsWithFromKey = true
	}
}

// WithSerializable lets the member that is asked answer a get, or a MemberList, from its own state. That is faster and
// works without a leader, but may miss the latest writes. The default is a linearizable read.
func WithSerializable() OpOption {
	return func(op *Op) { op.serializable = true }
}

// WithKeysOnly makes a get return keys without their values.
func WithKeysOnly() OpOption {
	return func(op *Op) { op.keysOnly = true }
}

// WithCountOnly makes a get return only the number of keys in the range.
func WithCountOnly() OpOption {
	return func(op *Op) { op.countOnly = true }
}

// WithMinModRev leaves out of a get all keys last modified before the revision.
func WithMinModRev(rev int64) OpOption {
	return func(op *Op) { op.minModRev = rev }
}

// WithMaxModRev leaves out of a get all keys last modified after the revision. 0 is no bound.
func WithMaxModRev(rev int64) OpOption {
	return func(op *Op) { op.maxModRev = rev }
}

// WithMinCreateRev leaves out of a get all keys created before the revision.
func WithMinCreateRev(rev int64) OpOption {
	return func(op *Op) { op.minCreateRev = rev }
}

// WithMaxCreateRev leaves out of a get all keys created after the revision. 0 is no bound.
func WithMaxCreateRev(rev int64) OpOption {
	return func(op *Op) { op.maxCreateRev = rev }
}

// WithFirstCreate returns the options to get, of the keys with the given prefix, the one created first.
func WithFirstCreate() []OpOption { return withTop(SortByCreateRevision, SortAscend) }

// WithLastCreate returns the options to get, of the keys with the given prefix, the one created last.
func WithLastCreate() []OpOption { return withTop(SortByCreateRevision, SortDescend) }

// WithFirstKey returns the options to get the first of the keys with the given prefix.
func WithFirstKey() []OpOption { return withTop(SortByKey, SortAscend) }

// WithLastKey returns the options to get the last of the keys with the given prefix.
func WithLastKey() []OpOption { return withTop(SortByKey, SortDescend) }

// WithFirstRev returns the options to get, of the keys with the given prefix, the one modified first.
func WithFirstRev() []OpOption { return withTop(SortByModRevision, SortAscend) }

// WithLastRev returns the options to get, of the keys with the given prefix, the one modified last.
func WithLastRev() []OpOption { return withTop(SortByModRevision, SortDescend) }

func withTop(target SortTarget, order SortOrder) []OpOption {
	return []OpOption{WithPrefix(), WithSort(target, order), WithLimit(1)}
}

// WithPrevKV makes a put return the key-value pair that it replaced, a deletion those it deleted, and a watch carry
// with each event the pair as it was before.
func WithPrevKV() OpOption {
	return func(op *Op) { op.prevKV = true }
}

// WithIgnoreValue makes a put keep the value that the key has. The put must be given an empty value, and fails with
// rpctypes.ErrKeyNotFound if the key does not exist.
func WithIgnoreValue() OpOption {
	return func(op *Op) { op.ignoreValue = true }
}

// WithIgnoreLease makes a put keep the lease that the key has. The put must be given no lease, and fails with
// rpctypes.ErrKeyNotFound if the key does not exist.
func WithIgnoreLease() OpOption {
	return func(op *Op) { op.ignoreLease = true }
}

// WithFragment lets the server split a response to a watch that is larger than its limit on requests over several
// messages. They are put together again up to the bound of what is kept for a slow reader, and the events of one revision
// always. Without it such a response is one message, however large, and ends the watch if it is larger than
// Config.MaxCallRecvMsgSize.
func WithFragment() OpOption {
	return func(op *Op) { op.fragment = true }
}

// WithProgressNotify makes the server tell a watch without events, about every ten minutes, up to which revision it
// has seen everything. WatchResponse.IsProgressNotify recognises these responses.
func WithProgressNotify() OpOption {
	return func(op *Op) { op.progressNotify = true }
}

// WithCreatedNotify makes the first response of a watch one with Created set, sent when the server has the watch.
func WithCreatedNotify() OpOption {
	return func(op *Op) { op.createdNotify = true }
}

// WithFilterPut leaves puts out of a watch.
func WithFilterPut() OpOption {
	return func(op *Op) { op.filterPut = true }
}

// WithFilterDelete leaves deletions out of a watch.
func WithFilterDelete() OpOption {
	return func(op *Op) { op.filterDelete = true }
}

// WithWatchBufLog makes the client log a warning when the consumer of a watch falls behind, so that responses have to
// be kept for it, and when it has caught up again.
func WithWatchBufLog() OpOption {
	return func(op *Op) { op.bufLog = true }
}

// IsOptsWithPrefix reports whether WithPrefix is among the options.
func IsOptsWithPrefix(opts []OpOption) bool {
	op := Op{}.with(opts)
	return op.isOptsWithPrefix
}

// IsOptsWithFromKey reports whether WithFromKey is among the options.
func IsOptsWithFromKey(opts []OpOption) bool {
	op := Op{}.with(opts)
	return op.isOptsWithFromKey
}

// CompactOp is a compaction: what OpCompact makes.
type CompactOp struct {
	revision int64
	physical bool
}

// CompactOption is an option of a compaction.
type CompactOption func(*CompactOp)

// OpCompact returns the compaction of the history before the revision.
func OpCompact(rev int64, opts ...CompactOption) CompactOp {
	op := CompactOp{revision: rev}
	for _, opt := range opts {
		opt(&op)
	}
	return op
}

func (op CompactOp) toRequest() *pb.CompactionRequest {
	return &pb.CompactionRequest{Revision: op.revision, Physical: op.physical}
}

// WithCompactPhysical makes a compaction return only after the compacted revisions are gone from the database of the
// member that is asked.
func WithCompactPhysical() CompactOption {
	return func(op *CompactOp) { op.physical = true }
}
