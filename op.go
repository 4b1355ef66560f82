package clientv3

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

type opType int

const (
	// The zero Op is none of the kinds below, so that Do refuses it instead of doing something unasked.
	tNone opType = iota
	tRange
	tPut
	tDeleteRange
	tTxn
	tWatch
)

// Op is an operation on keys: what OpGet, OpPut, OpDelete, OpTxn and OpWatch make, for Do, for transactions and for
// decorators that look at what passes through them. An Op is a value; copies may be changed independently, but share
// the bytes of key, range end and value.
type Op struct {
	t   opType
	key []byte
	end []byte

	// range
	limit        int64
	sort         *SortOption
	serializable bool
	keysOnly     bool
	countOnly    bool
	minModRev    int64
	maxModRev    int64
	minCreateRev int64
	maxCreateRev int64

	// range and watch
	rev int64

	// put, delete and watch
	prevKV bool

	// watch
	fragment       bool
	progressNotify bool
	createdNotify  bool
	filterPut      bool
	filterDelete   bool
	bufLog         bool

	// put
	val         []byte
	leaseID     LeaseID
	ignoreValue bool
	ignoreLease bool

	// txn
	cmps    []Cmp
	thenOps []Op
	elseOps []Op

	isOptsWithFromKey bool
	isOptsWithPrefix  bool
}

// NewOp returns an empty operation, for code that applies options to see what they do. Do refuses it.
func NewOp() *Op { return &Op{key: []byte{}} }

// OpGet returns the operation of KV.Get. It panics if WithPrefix and WithFromKey are combined.
func OpGet(key string, opts ...OpOption) Op {
	op := Op{t: tRange, key: []byte(key)}
	op = op.with(opts)
	op.requireOneRange()
	return op
}

// OpPut returns the operation of KV.Put. It panics on options that a put cannot have: a range, a limit, a revision or
// a filter by revision, sorting, serializable, count only, and those of watches.
func OpPut(key, val string, opts ...OpOption) Op {
	op := Op{t: tPut, key: []byte(key), val: []byte(val)}
	op = op.with(opts)
	refuse("put",
		unexpected{"range", op.end != nil},
		unexpected{"limit", op.limit != 0},
		unexpected{"revision", op.rev != 0},
		unexpected{"sort", op.sort != nil},
		unexpected{"serializable", op.serializable},
		unexpected{"countOnly", op.countOnly},
		unexpected{"mod revision filter", op.minModRev != 0 || op.maxModRev != 0},
		unexpected{"create revision filter", op.minCreateRev != 0 || op.maxCreateRev != 0},
		unexpected{"filter", op.filterPut || op.filterDelete},
		unexpected{"createdNotify", op.createdNotify},
	)
	return op
}

// OpDelete returns the operation of KV.Delete. It panics if WithPrefix and WithFromKey are combined, and on options
// that a deletion cannot have: a lease, a limit, a revision or a filter by revision, sorting, serializable, count
// only, and those of watches.
func OpDelete(key string, opts ...OpOption) Op {
	op := Op{t: tDeleteRange, key: []byte(key)}
	op = op.with(opts)
	op.requireOneRange()
	refuse("delete",
		unexpected{"lease", op.leaseID != 0},
		unexpected{"limit", op.limit != 0},
		unexpected{"revision", op.rev != 0},
		unexpected{"sort", op.sort != nil},
		unexpected{"serializable", op.serializable},
		unexpected{"countOnly", op.countOnly},
		unexpected{"mod revision filter", op.minModRev != 0 || op.maxModRev != 0},
		unexpected{"create revision filter", op.minCreateRev != 0 || op.maxCreateRev != 0},
		unexpected{"filter", op.filterPut || op.filterDelete},
		unexpected{"createdNotify", op.createdNotify},
	)
	return op
}

// OpWatch returns the operation of Watcher.Watch, for code that looks at what its options say. Do refuses it. It panics
// on options that a watch cannot have: a lease, a limit, sorting, serializable, count only, filters by revision.
func OpWatch(key string, opts ...OpOption) Op {
	op := Op{t: tRange, key: []byte(key)}
	op = op.with(opts)
	refuse("watch",
		unexpected{"lease", op.leaseID != 0},
		unexpected{"limit", op.limit != 0},
		unexpected{"sort", op.sort != nil},
		unexpected{"serializable", op.serializable},
		unexpected{"countOnly", op.countOnly},
		unexpected{"mod revision filter", op.minModRev != 0 || op.maxModRev != 0},
		unexpected{"create revision filter", op.minCreateRev != 0 || op.maxCreateRev != 0},
	)
	return op
}

// OpTxn returns a transaction as an operation, for Do and for nesting in other transactions. The slices are kept.
func OpTxn(cmps []Cmp, thenOps []Op, elseOps []Op) Op {
	return Op{t: tTxn, cmps: cmps, thenOps: thenOps, elseOps: elseOps}
}

// with returns the operation with the options applied. The one that options get a pointer to is another than the
// caller's, so that an operation without options stays on the stack.
func (op Op) with(opts []OpOption) Op {
	if len(opts) == 0 {
		return op
	}
	applied := op
	for _, opt := range opts {
		opt(&applied)
	}
	return applied
}

// requireOneRange panics if the options ask for two ranges at once.
func (op *Op) requireOneRange() {
	if op.isOptsWithPrefix && op.isOptsWithFromKey {
		panic("`WithPrefix` and `WithFromKey` cannot be set at the same time, choose one")
	}
}

// unexpected is an option that an operation cannot have, and whether it was given.
type unexpected struct {
	option string
	given  bool
}

// refuse panics if one of the options was given.
func refuse(operation string, options ...unexpected) {
	for _, u := range options {
		if u.given {
			panic("unexpected " + u.option + " in " + operation)
		}
	}
}

// IsTxn reports whether the operation is a transaction.
func (op Op) IsTxn() bool { return op.t == tTxn }

// IsGet reports whether the operation is a get.
func (op Op) IsGet() bool { return op.t == tRange }

// IsPut reports whether the operation is a put.
func (op Op) IsPut() bool { return op.t == tPut }

// IsDelete reports whether the operation is a deletion.
func (op Op) IsDelete() bool { return op.t == tDeleteRange }

// Txn returns the comparisons and the operations of both branches of a transaction.
func (op Op) Txn() ([]Cmp, []Op, []Op) { return op.cmps, op.thenOps, op.elseOps }

// KeyBytes returns the key, or the first key of the range. The bytes are not copied.
func (op Op) KeyBytes() []byte { return op.key }

// WithKeyBytes sets the key. The bytes are not copied.
func (op *Op) WithKeyBytes(key []byte) { op.key = key }

// RangeBytes returns the end of the range, which is not part of it, or nil if the operation is about a single key. The
// bytes are not copied.
func (op Op) RangeBytes() []byte { return op.end }

// WithRangeBytes sets the end of the range. The bytes are not copied.
func (op *Op) WithRangeBytes(end []byte) { op.end = end }

// ValueBytes returns the value of a put. The bytes are not copied.
func (op Op) ValueBytes() []byte { return op.val }

// WithValueBytes sets the value of a put. The bytes are not copied.
func (op *Op) WithValueBytes(v []byte) { op.val = v }

// Rev returns the revision to read or watch at; 0 means the current one.
func (op Op) Rev() int64 { return op.rev }

// Limit returns the largest number of keys to return; 0 means no limit.
func (op Op) Limit() int64 { return op.limit }

// MinModRev returns the lower bound of returned keys' modification revisions.
func (op Op) MinModRev() int64 { return op.minModRev }

// MaxModRev returns the upper bound of returned keys' modification revisions; 0 means none.
func (op Op) MaxModRev() int64 { return op.maxModRev }

// MinCreateRev returns the lower bound of returned keys' creation revisions.
func (op Op) MinCreateRev() int64 { return op.minCreateRev }

// MaxCreateRev returns the upper bound of returned keys' creation revisions; 0 means none.
func (op Op) MaxCreateRev() int64 { return op.maxCreateRev }

// IsSerializable reports whether the read may be answered from one member's own state.
func (op Op) IsSerializable() bool { return op.serializable }

// IsKeysOnly reports whether only keys are to be returned, without values.
func (op Op) IsKeysOnly() bool { return op.keysOnly }

// IsCountOnly reports whether only the number of keys is to be returned.
func (op Op) IsCountOnly() bool { return op.countOnly }

// IsPrevKV reports whether previous key-value pairs are to be returned.
func (op Op) IsPrevKV() bool { return op.prevKV }

// IsFragment reports whether the server may split responses to a watch over several messages.
func (op Op) IsFragment() bool { return op.fragment }

// IsProgressNotify reports whether the watch is to be told of progress while there are no events.
func (op Op) IsProgressNotify() bool { return op.progressNotify }

// IsCreatedNotify reports whether the watch is to be told that it was created.
func (op Op) IsCreatedNotify() bool { return op.createdNotify }

// IsFilterPut reports whether puts are left out of the watch.
func (op Op) IsFilterPut() bool { return op.filterPut }

// IsFilterDelete reports whether deletions are left out of the watch.
func (op Op) IsFilterDelete() bool { return op.filterDelete }

// IsOptsWithPrefix reports whether WithPrefix was among the options.
func (op Op) IsOptsWithPrefix() bool { return op.isOptsWithPrefix }

// IsOptsWithFromKey reports whether WithFromKey was among the options.
func (op Op) IsOptsWithFromKey() bool { return op.isOptsWithFromKey }

// IsSortSet reports whether the result is to be sorted.
func (op Op) IsSortSet() bool { return op.sort != nil }

// IsSortOptionValid reports whether the sort option is one that etcd knows, or none is set.
func (op Op) IsSortOptionValid() bool {
	if op.sort == nil {
		return true
	}
	_, orderKnown := pb.RangeRequest_SortOrder_name[int32(op.sort.Order)]
	_, targetKnown := pb.RangeRequest_SortTarget_name[int32(op.sort.Target)]
	return orderKnown && targetKnown
}

func (op Op) toRangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{
		Key:               op.key,
		RangeEnd:          op.end,
		Limit:             op.limit,
		Revision:          op.rev,
		Serializable:      op.serializable,
		KeysOnly:          op.keysOnly,
		CountOnly:         op.countOnly,
		MinModRevision:    op.minModRev,
		MaxModRevision:    op.maxModRev,
		MinCreateRevision: op.minCreateRev,
		MaxCreateRevision: op.maxCreateRev,
	}
	if op.sort != nil {
		r.SortOrder = pb.RangeRequest_SortOrder(op.sort.Order)
		r.SortTarget = pb.RangeRequest_SortTarget(op.sort.Target)
	}
	return r
}

func (op Op) toPutRequest() *pb.PutRequest {
	return &pb.PutRequest{
		Key:         op.key,
		Value:       op.val,
		Lease:       int64(op.leaseID),
		PrevKv:      op.prevKV,
		IgnoreValue: op.ignoreValue,
		IgnoreLease: op.ignoreLease,
	}
}

func (op Op) toDeleteRequest() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: op.key, RangeEnd: op.end, PrevKv: op.prevKV}
}

func (op Op) toTxnRequest() *pb.TxnRequest {
	return &pb.TxnRequest{
		Compare: toCompares(op.cmps),
		Success: toRequestOps(op.thenOps),
		Failure: toRequestOps(op.elseOps),
	}
}

func toCompares(cmps []Cmp) []*pb.Compare {
	compares := make([]*pb.Compare, len(cmps))
	for i := range cmps {
		compares[i] = cmps[i].GetCompare()
	}
	return compares
}

func toRequestOps(ops []Op) []*pb.RequestOp {
	requests := make([]*pb.RequestOp, len(ops))
	for i := range ops {
		requests[i] = ops[i].toRequestOp()
	}
	return requests
}

func (op Op) toRequestOp() *pb.RequestOp {
	switch op.t {
	case tRange:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: op.toRangeRequest()}}
	case tPut:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: op.toPutRequest()}}
	case tDeleteRange:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: op.toDeleteRequest()}}
	case tTxn:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: op.toTxnRequest()}}
	default:
		panic("Unknown Op")
	}
}
