package clientv3

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

func TestCompareRequests(t *testing.T) {
	k := []byte("k")
	for name, tt := range map[string]struct {
		cmp  Cmp
		want *pb.Compare
	}{
		"value": {Compare(Value("k"), "=", "v"),
			&pb.Compare{Key: k, Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("v")}}},
		"not equal": {Compare(Value("k"), "!=", ""),
			&pb.Compare{Key: k, Target: pb.Compare_VALUE, Result: pb.Compare_NOT_EQUAL,
				TargetUnion: &pb.Compare_Value{Value: []byte{}}}},
		"version": {Compare(Version("k"), ">", 3),
			&pb.Compare{Key: k, Target: pb.Compare_VERSION, Result: pb.Compare_GREATER,
				TargetUnion: &pb.Compare_Version{Version: 3}}},
		"create revision": {Compare(CreateRevision("k"), "<", int64(4)),
			&pb.Compare{Key: k, Target: pb.Compare_CREATE, Result: pb.Compare_LESS,
				TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 4}}},
		"mod revision": {Compare(ModRevision("k"), "=", -5),
			&pb.Compare{Key: k, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: -5}}},
		"lease": {Compare(LeaseValue("k"), "=", LeaseID(6)),
			&pb.Compare{Key: k, Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: 6}}},
		"lease as int": {Compare(LeaseValue("k"), "=", 6),
			&pb.Compare{Key: k, Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: 6}}},
		"prefix": {Compare(Version("k"), "=", 0).WithPrefix(),
			&pb.Compare{Key: k, RangeEnd: []byte("l"), TargetUnion: &pb.Compare_Version{}}},
		"prefix of all": {Compare(Version(""), "=", 0).WithPrefix(),
			&pb.Compare{RangeEnd: []byte{0}, TargetUnion: &pb.Compare_Version{}}},
		"prefix of 0xff": {Compare(Version("\xff"), "=", 0).WithPrefix(),
			&pb.Compare{Key: []byte{0xff}, RangeEnd: []byte{0}, TargetUnion: &pb.Compare_Version{}}},
		"range": {Compare(Version("k"), "=", 0).WithRange("m"),
			&pb.Compare{Key: k, RangeEnd: []byte("m"), TargetUnion: &pb.Compare_Version{}}},
		"range before the comparison": {Compare(Version("k").WithRange("m"), "=", 0),
			&pb.Compare{Key: k, RangeEnd: []byte("m"), TargetUnion: &pb.Compare_Version{}}},
		"no range": {Compare(Version("k"), "=", 0).WithRange(""),
			&pb.Compare{Key: k, TargetUnion: &pb.Compare_Version{}}},
		"zero": {Cmp{}, &pb.Compare{}},
	} {
		if got := tt.cmp.GetCompare(); !proto.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestComparePanics(t *testing.T) {
	type number int
	for name, tt := range map[string]struct {
		f    func()
		want any // nil: any panic will do
	}{
		"relation":               {func() { Compare(Value("k"), "==", "v") }, "Unknown result op"},
		"no relation":            {func() { Compare(Value("k"), "", "v") }, "Unknown result op"},
		"value as bytes":         {func() { Compare(Value("k"), "=", []byte("v")) }, "bad compare value"},
		"value as number":        {func() { Compare(Value("k"), "=", 1) }, "bad compare value"},
		"value as nil":           {func() { Compare(Value("k"), "=", nil) }, "bad compare value"},
		"version as string":      {func() { Compare(Version("k"), "=", "1") }, "bad value"},
		"version as uint":        {func() { Compare(Version("k"), "=", uint(1)) }, "bad value"},
		"version as int32":       {func() { Compare(Version("k"), "=", int32(1)) }, "bad value"},
		"version as named type":  {func() { Compare(Version("k"), "=", number(1)) }, "bad value"},
		"version as lease":       {func() { Compare(Version("k"), "=", LeaseID(1)) }, "bad value"},
		"revision as nil":        {func() { Compare(ModRevision("k"), "=", nil) }, "bad value"},
		"lease as string":        {func() { Compare(LeaseValue("k"), "=", "1") }, "bad value"},
		"zero Cmp":               {func() { Compare(Cmp{}, "=", "v") }, "bad value"},
		"value bytes of another": {func() { c := Compare(Version("k"), "=", 1); c.WithValueBytes(nil) }, nil},
		"value bytes of nothing": {func() { var c Cmp; c.WithValueBytes(nil) }, nil},
	} {
		got := panicOf(tt.f)
		if got == nil || (tt.want != nil && got != tt.want) {
			t.Errorf("%s: panic %v, want %v", name, got, tt.want)
		}
	}
}

func TestCompareLeavesItsArgumentAlone(t *testing.T) {
	base := Version("k")
	one, two := Compare(base, "=", 1), Compare(base, ">", 2)
	ranged, prefixed := one.WithRange("m"), one.WithPrefix()
	for name, tt := range map[string]struct {
		cmp  Cmp
		want *pb.Compare
	}{
		"base":     {base, &pb.Compare{Key: []byte("k")}},
		"one":      {one, &pb.Compare{Key: []byte("k"), TargetUnion: &pb.Compare_Version{Version: 1}}},
		"two":      {two, &pb.Compare{Key: []byte("k"), Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{Version: 2}}},
		"ranged":   {ranged, &pb.Compare{Key: []byte("k"), RangeEnd: []byte("m"), TargetUnion: &pb.Compare_Version{Version: 1}}},
		"prefixed": {prefixed, &pb.Compare{Key: []byte("k"), RangeEnd: []byte("l"), TargetUnion: &pb.Compare_Version{Version: 1}}},
	} {
		if got := tt.cmp.GetCompare(); !proto.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestCmpBytes(t *testing.T) {
	c := Compare(Value("k"), "=", "v")
	copied := c
	c.WithKeyBytes([]byte("a"))
	c.WithValueBytes([]byte("b"))
	if string(c.KeyBytes()) != "a" || string(c.ValueBytes()) != "b" {
		t.Errorf("key %q, value %q", c.KeyBytes(), c.ValueBytes())
	}
	if string(copied.KeyBytes()) != "k" || string(copied.ValueBytes()) != "v" {
		t.Errorf("the copy has changed: key %q, value %q", copied.KeyBytes(), copied.ValueBytes())
	}
	var zero Cmp
	if len(zero.KeyBytes()) != 0 || zero.ValueBytes() != nil {
		t.Errorf("zero: key %q, value %q", zero.KeyBytes(), zero.ValueBytes())
	}
	zero.WithKeyBytes([]byte("k"))
	if string(zero.KeyBytes()) != "k" {
		t.Errorf("zero with a key: %q", zero.KeyBytes())
	}
}

func TestFromCompareAndCloneShareNothing(t *testing.T) {
	message := &pb.Compare{Key: []byte("k"), TargetUnion: &pb.Compare_Version{Version: 1}}
	from := FromCompare(message)
	clone := from.Clone()
	message.Key[0] = 'x'
	from.GetCompare().Key[0] = 'y'
	if string(from.KeyBytes()) != "y" || string(clone.KeyBytes()) != "k" {
		t.Errorf("from %q, clone %q", from.KeyBytes(), clone.KeyBytes())
	}
	none := FromCompare(nil)
	if !proto.Equal(none.GetCompare(), &pb.Compare{}) {
		t.Errorf("of nil: %v", none.GetCompare())
	}
	var zero Cmp
	if c := zero.Clone(); !proto.Equal(c.GetCompare(), &pb.Compare{}) {
		t.Errorf("clone of the zero Cmp: %v", c.GetCompare())
	}
}
