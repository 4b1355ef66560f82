package clientv3

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// CompareTarget is the property of a key that a comparison looks at.
type CompareTarget int

// CompareResult is the relation that a comparison asks for.
type CompareResult int

const (
	// CompareVersion looks at the number of times the key was written since it was created; 0 if it does not exist.
	CompareVersion CompareTarget = iota
	// CompareCreated looks at the revision in which the key was created; 0 if it does not exist.
	CompareCreated
	// CompareModified looks at the revision in which the key was last written; 0 if it does not exist.
	CompareModified
	// CompareValue looks at the value.
	CompareValue
)

// Cmp is a comparison, the condition of a transaction: made with Compare from Value, Version, CreateRevision,
// ModRevision or LeaseValue. Copies of a Cmp share what they hold; Clone makes an independent one.
type Cmp struct {
	compare *pb.Compare
}

// FromCompare returns the comparison that a request carries. The message is copied; nil is an empty one.
func FromCompare(c *pb.Compare) Cmp {
	if c == nil {
		return Cmp{}
	}
	return Cmp{compare: proto.CloneOf(c)}
}

// GetCompare returns the comparison as a request carries it. It is shared with cmp.
func (cmp *Cmp) GetCompare() *pb.Compare {
	if cmp.compare == nil {
		cmp.compare = &pb.Compare{}
	}
	return cmp.compare
}

// Clone returns a copy that shares nothing with cmp.
func (cmp *Cmp) Clone() Cmp { return FromCompare(cmp.compare) }

// Compare completes a comparison: result is one of "=", "!=", ">" and "<", v what the property is compared with: a
// string for Value, an integer (int or int64) for the others, and a LeaseID for LeaseValue as well. It panics on
// anything else.
func Compare(cmp Cmp, result string, v any) Cmp {
	c := cmp.message()
	switch result {
	case "=":
		c.Result = pb.Compare_EQUAL
	case "!=":
		c.Result = pb.Compare_NOT_EQUAL
	case ">":
		c.Result = pb.Compare_GREATER
	case "<":
		c.Result = pb.Compare_LESS
	default:
		panic("Unknown result op")
	}
	switch c.Target {
	case pb.Compare_VALUE:
		value, ok := v.(string)
		if !ok {
			panic("bad compare value")
		}
		c.TargetUnion = &pb.Compare_Value{Value: []byte(value)}
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: mustInt64(v)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: mustInt64(v)}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: mustInt64(v)}
	case pb.Compare_LEASE:
		if id, ok := v.(LeaseID); ok {
			v = int64(id)
		}
		c.TargetUnion = &pb.Compare_Lease{Lease: mustInt64(v)}
	default:
		panic("Unknown compare type")
	}
	return Cmp{compare: c}
}

// Value begins a comparison of the key's value. If the key does not exist it does not hold.
func Value(key string) Cmp { return newCmp(key, pb.Compare_VALUE) }

// Version begins a comparison of the number of times the key was written since it was created; 0 if it does not exist.
func Version(key string) Cmp { return newCmp(key, pb.Compare_VERSION) }

// CreateRevision begins a comparison of the revision in which the key was created; 0 if it does not exist.
func CreateRevision(key string) Cmp { return newCmp(key, pb.Compare_CREATE) }

// ModRevision begins a comparison of the revision in which the key was last written; 0 if it does not exist.
func ModRevision(key string) Cmp { return newCmp(key, pb.Compare_MOD) }

// LeaseValue begins a comparison of the lease attached to the key; 0 if there is none.
func LeaseValue(key string) Cmp { return newCmp(key, pb.Compare_LEASE) }

func newCmp(key string, target pb.Compare_CompareTarget) Cmp {
	return Cmp{compare: &pb.Compare{Key: []byte(key), Target: target}}
}

// KeyBytes returns the key. The bytes are not copied.
func (cmp *Cmp) KeyBytes() []byte { return cmp.compare.GetKey() }

// WithKeyBytes sets the key. The bytes are not copied.
func (cmp *Cmp) WithKeyBytes(key []byte) {
	cmp.compare = cmp.message()
	cmp.compare.Key = key
}

// ValueBytes returns the value that the key's value is compared with, or nil if the comparison is of something else.
// The bytes are not copied.
func (cmp *Cmp) ValueBytes() []byte { return cmp.compare.GetValue() }

// WithValueBytes replaces the value that the key's value is compared with. The bytes are not copied. It panics if the
// comparison is of something else.
func (cmp *Cmp) WithValueBytes(v []byte) {
	if cmp.compare.GetTarget() != pb.Compare_VALUE {
		panic("bad compare value")
	}
	cmp.compare = cmp.message()
	cmp.compare.TargetUnion = &pb.Compare_Value{Value: v}
}

// WithRange makes the comparison hold only if it holds for every key from its key up to, and without, end.
func (cmp Cmp) WithRange(end string) Cmp {
	c := cmp.message()
	c.RangeEnd = []byte(end)
	return Cmp{compare: c}
}

// WithPrefix makes the comparison hold only if it holds for every key that begins with its key.
func (cmp Cmp) WithPrefix() Cmp {
	c := cmp.message()
	c.RangeEnd = prefixEnd(c.GetKey())
	return Cmp{compare: c}
}

// message returns the message to change: a shallow copy, so that a comparison which is completed twice gives two.
func (cmp Cmp) message() *pb.Compare {
	c := cmp.compare
	return &pb.Compare{
		Result:      c.GetResult(),
		Target:      c.GetTarget(),
		Key:         c.GetKey(),
		TargetUnion: c.GetTargetUnion(),
		RangeEnd:    c.GetRangeEnd(),
	}
}

func mustInt64(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case int:
		return int64(n)
	default:
		panic("bad value")
	}
}
