package clientv3

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// panicOf returns what f panics with, or nil.
func panicOf(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func TestOptionsThatAnOperationCannotHavePanic(t *testing.T) {
	const twoRanges = "`WithPrefix` and `WithFromKey` cannot be set at the same time, choose one"
	put := func(opts ...OpOption) { OpPut("k", "v", opts...) }
	del := func(opts ...OpOption) { OpDelete("k", opts...) }
	get := func(opts ...OpOption) { OpGet("k", opts...) }
	watch := func(opts ...OpOption) { OpWatch("k", opts...) }
	tests := []struct {
		op   func(...OpOption)
		opts []OpOption
		want string
	}{
		{put, []OpOption{WithPrefix()}, "unexpected range in put"},
		{put, []OpOption{WithRange("z")}, "unexpected range in put"},
		{put, []OpOption{WithRange("")}, "unexpected range in put"},
		{put, []OpOption{WithFromKey()}, "unexpected range in put"},
		{put, []OpOption{WithPrefix(), WithFromKey()}, "unexpected range in put"},
		{put, []OpOption{WithLimit(1)}, "unexpected limit in put"},
		{put, []OpOption{WithLimit(-1)}, "unexpected limit in put"},
		{put, []OpOption{WithRev(1)}, "unexpected revision in put"},
		{put, []OpOption{WithSort(SortByKey, SortDescend)}, "unexpected sort in put"},
		{put, []OpOption{WithSort(SortByKey, SortNone)}, "unexpected sort in put"},
		{put, []OpOption{WithSerializable()}, "unexpected serializable in put"},
		{put, []OpOption{WithCountOnly()}, "unexpected countOnly in put"},
		{put, []OpOption{WithMinModRev(1)}, "unexpected mod revision filter in put"},
		{put, []OpOption{WithMaxModRev(1)}, "unexpected mod revision filter in put"},
		{put, []OpOption{WithMinCreateRev(1)}, "unexpected create revision filter in put"},
		{put, []OpOption{WithMaxCreateRev(1)}, "unexpected create revision filter in put"},
		{put, []OpOption{WithFilterPut()}, "unexpected filter in put"},
		{put, []OpOption{WithFilterDelete()}, "unexpected filter in put"},
		{put, []OpOption{WithCreatedNotify()}, "unexpected createdNotify in put"},
		// Of several, the first in a fixed order is named.
		{put, []OpOption{WithCreatedNotify(), WithFilterPut(), WithMinCreateRev(1), WithMinModRev(1), WithCountOnly(),
			WithSerializable(), WithSort(0, 0), WithRev(1), WithLimit(1), WithPrefix()}, "unexpected range in put"},
		{put, []OpOption{WithCreatedNotify(), WithFilterPut(), WithMinCreateRev(1), WithMinModRev(1), WithCountOnly(),
			WithSerializable(), WithSort(0, 0), WithRev(1)}, "unexpected revision in put"},
		{put, []OpOption{WithCreatedNotify(), WithFilterPut(), WithMinCreateRev(1)},
			"unexpected create revision filter in put"},

		{del, []OpOption{WithPrefix(), WithFromKey()}, twoRanges},
		{del, []OpOption{WithFromKey(), WithPrefix()}, twoRanges},
		{del, []OpOption{WithLease(1)}, "unexpected lease in delete"},
		{del, []OpOption{WithLimit(-1)}, "unexpected limit in delete"},
		{del, WithFirstKey(), "unexpected limit in delete"},
		{del, []OpOption{WithRev(1)}, "unexpected revision in delete"},
		{del, []OpOption{WithSort(SortByKey, SortNone)}, "unexpected sort in delete"},
		{del, []OpOption{WithSerializable()}, "unexpected serializable in delete"},
		{del, []OpOption{WithCountOnly()}, "unexpected countOnly in delete"},
		{del, []OpOption{WithMinModRev(1)}, "unexpected mod revision filter in delete"},
		{del, []OpOption{WithMaxModRev(1)}, "unexpected mod revision filter in delete"},
		{del, []OpOption{WithMinCreateRev(1)}, "unexpected create revision filter in delete"},
		{del, []OpOption{WithMaxCreateRev(1)}, "unexpected create revision filter in delete"},
		{del, []OpOption{WithFilterPut()}, "unexpected filter in delete"},
		{del, []OpOption{WithFilterDelete()}, "unexpected filter in delete"},
		{del, []OpOption{WithCreatedNotify()}, "unexpected createdNotify in delete"},
		{del, []OpOption{WithCreatedNotify(), WithLimit(1), WithLease(1)}, "unexpected lease in delete"},

		{get, []OpOption{WithPrefix(), WithFromKey()}, twoRanges},
		{get, []OpOption{WithFromKey(), WithPrefix()}, twoRanges},

		{watch, []OpOption{WithLease(1)}, "unexpected lease in watch"},
		{watch, []OpOption{WithLimit(1)}, "unexpected limit in watch"},
		{watch, []OpOption{WithSort(SortByKey, SortNone)}, "unexpected sort in watch"},
		{watch, []OpOption{WithSerializable()}, "unexpected serializable in watch"},
		{watch, []OpOption{WithCountOnly()}, "unexpected countOnly in watch"},
		{watch, []OpOption{WithMinModRev(1)}, "unexpected mod revision filter in watch"},
		{watch, []OpOption{WithMaxCreateRev(1)}, "unexpected create revision filter in watch"},
		{watch, []OpOption{WithMaxCreateRev(1), WithMinModRev(1), WithCountOnly(), WithLimit(1)},
			"unexpected limit in watch"},
	}
	for _, tt := range tests {
		if got := panicOf(func() { tt.op(tt.opts...) }); got != tt.want {
			t.Errorf("panic %q, want %q", got, tt.want)
		}
	}
}

func TestNilOptionsPanic(t *testing.T) {
	for name, f := range map[string]func(){
		"get":        func() { OpGet("k", nil) },
		"put":        func() { OpPut("k", "v", nil) },
		"delete":     func() { OpDelete("k", nil) },
		"watch":      func() { OpWatch("k", nil) },
		"compact":    func() { OpCompact(1, nil) },
		"has prefix": func() { IsOptsWithPrefix([]OpOption{nil}) },
	} {
		if panicOf(f) == nil {
			t.Errorf("%s: no panic", name)
		}
	}
}

func TestOptionsThatAnOperationHasNoUseForAreIgnored(t *testing.T) {
	zero := []OpOption{WithLimit(0), WithRev(0), WithMinModRev(0), WithMaxModRev(0), WithMinCreateRev(0), WithMaxCreateRev(0)}
	ignored := append(zero, WithKeysOnly(), WithFragment(), WithProgressNotify(), WithWatchBufLog())
	put := OpPut("k", "v", ignored...).toPutRequest()
	if want := (&pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); !proto.Equal(put, want) {
		t.Errorf("put %v, want %v", put, want)
	}
	del := OpDelete("k", append(ignored, WithIgnoreValue(), WithIgnoreLease())...).toDeleteRequest()
	if want := (&pb.DeleteRangeRequest{Key: []byte("k")}); !proto.Equal(del, want) {
		t.Errorf("delete %v, want %v", del, want)
	}
	get := OpGet("k", WithLease(1), WithPrevKV(), WithFilterPut(), WithFilterDelete(), WithProgressNotify(),
		WithCreatedNotify(), WithFragment(), WithIgnoreValue(), WithIgnoreLease(), WithWatchBufLog()).toRangeRequest()
	if want := (&pb.RangeRequest{Key: []byte("k")}); !proto.Equal(get, want) {
		t.Errorf("get %v, want %v", get, want)
	}
	if got := panicOf(func() { OpWatch("k", WithKeysOnly(), WithIgnoreValue(), WithIgnoreLease(), WithRev(-5)) }); got != nil {
		t.Errorf("watch panics with %v", got)
	}
	if got := panicOf(func() { OpWatch("k", WithPrefix(), WithFromKey()) }); got != nil {
		t.Errorf("watch of two ranges panics with %v; the last one is to win", got)
	}
}

func TestRangeRequests(t *testing.T) {
	b := func(s string) []byte { return []byte(s) }
	req := func(key string, change ...func(*pb.RangeRequest)) *pb.RangeRequest {
		r := &pb.RangeRequest{Key: b(key)}
		for _, f := range change {
			f(r)
		}
		return r
	}
	end := func(end string) func(*pb.RangeRequest) {
		return func(r *pb.RangeRequest) { r.RangeEnd = b(end) }
	}
	sort := func(order pb.RangeRequest_SortOrder, target pb.RangeRequest_SortTarget) func(*pb.RangeRequest) {
		return func(r *pb.RangeRequest) { r.SortOrder, r.SortTarget = order, target }
	}
	limit := func(n int64) func(*pb.RangeRequest) { return func(r *pb.RangeRequest) { r.Limit = n } }
	const (
		none, asc, desc            = pb.RangeRequest_NONE, pb.RangeRequest_ASCEND, pb.RangeRequest_DESCEND
		byKey, byVersion, byCreate = pb.RangeRequest_KEY, pb.RangeRequest_VERSION, pb.RangeRequest_CREATE
		byMod, byValue             = pb.RangeRequest_MOD, pb.RangeRequest_VALUE
	)
	tests := map[string]struct {
		op   Op
		want *pb.RangeRequest
	}{
		"key":                 {OpGet("k"), req("k")},
		"empty key":           {OpGet(""), req("")},
		"prefix":              {OpGet("k", WithPrefix()), req("k", end("l"))},
		"prefix of all":       {OpGet("", WithPrefix()), req("\x00", end("\x00"))},
		"prefix of all twice": {OpGet("", WithPrefix(), WithPrefix()), req("\x00", end("\x01"))},
		"prefix of 0xff":      {OpGet("\xff", WithPrefix()), req("\xff", end("\x00"))},
		"from key":            {OpGet("k", WithFromKey()), req("k", end("\x00"))},
		"from the first key":  {OpGet("", WithFromKey()), req("\x00", end("\x00"))},
		"range":               {OpGet("k", WithRange("m")), req("k", end("m"))},
		"range below its key": {OpGet("k", WithRange("a")), req("k", end("a"))},
		"empty range end":     {OpGet("k", WithRange("")), req("k")},
		"range after prefix":  {OpGet("k", WithPrefix(), WithRange("z")), req("k", end("z"))},
		"prefix after range":  {OpGet("k", WithRange("z"), WithPrefix()), req("k", end("l"))},
		"range after prefix of all": {
			OpGet("", WithPrefix(), WithRange("z")), req("\x00", end("z")),
		},
		"limit":             {OpGet("k", WithLimit(7)), req("k", limit(7))},
		"negative limit":    {OpGet("k", WithLimit(-1)), req("k", limit(-1))},
		"revision":          {OpGet("k", WithRev(9)), req("k", func(r *pb.RangeRequest) { r.Revision = 9 })},
		"negative revision": {OpGet("k", WithRev(-3)), req("k", func(r *pb.RangeRequest) { r.Revision = -3 })},
		"serializable":      {OpGet("k", WithSerializable()), req("k", func(r *pb.RangeRequest) { r.Serializable = true })},
		"keys only":         {OpGet("k", WithKeysOnly()), req("k", func(r *pb.RangeRequest) { r.KeysOnly = true })},
		"count only":        {OpGet("k", WithCountOnly()), req("k", func(r *pb.RangeRequest) { r.CountOnly = true })},
		"revision filters": {
			OpGet("k", WithMinModRev(1), WithMaxModRev(2), WithMinCreateRev(3), WithMaxCreateRev(4)),
			req("k", func(r *pb.RangeRequest) {
				r.MinModRevision, r.MaxModRevision, r.MinCreateRevision, r.MaxCreateRevision = 1, 2, 3, 4
			}),
		},
		"sort by key ascending":   {OpGet("k", WithSort(SortByKey, SortAscend)), req("k", sort(none, byKey))},
		"sort by key descending":  {OpGet("k", WithSort(SortByKey, SortDescend)), req("k", sort(desc, byKey))},
		"sort by key, unordered":  {OpGet("k", WithSort(SortByKey, SortNone)), req("k")},
		"sort by version":         {OpGet("k", WithSort(SortByVersion, SortAscend)), req("k", sort(asc, byVersion))},
		"by version, unordered":   {OpGet("k", WithSort(SortByVersion, SortNone)), req("k", sort(none, byVersion))},
		"sort by creation":        {OpGet("k", WithSort(SortByCreateRevision, SortDescend)), req("k", sort(desc, byCreate))},
		"sort by modification":    {OpGet("k", WithSort(SortByModRevision, SortAscend)), req("k", sort(asc, byMod))},
		"sort by value":           {OpGet("k", WithSort(SortByValue, SortDescend)), req("k", sort(desc, byValue))},
		"sort by something else":  {OpGet("k", WithSort(9, 9)), req("k", sort(9, 9))},
		"first created":           {OpGet("k", WithFirstCreate()...), req("k", end("l"), limit(1), sort(asc, byCreate))},
		"last created":            {OpGet("k", WithLastCreate()...), req("k", end("l"), limit(1), sort(desc, byCreate))},
		"first key":               {OpGet("k", WithFirstKey()...), req("k", end("l"), limit(1))},
		"last key":                {OpGet("k", WithLastKey()...), req("k", end("l"), limit(1), sort(desc, byKey))},
		"first modified":          {OpGet("k", WithFirstRev()...), req("k", end("l"), limit(1), sort(asc, byMod))},
		"last modified":           {OpGet("k", WithLastRev()...), req("k", end("l"), limit(1), sort(desc, byMod))},
		"watch sent as an action": {OpWatch("k", WithRev(5)), req("k", func(r *pb.RangeRequest) { r.Revision = 5 })},
	}
	for name, tt := range tests {
		if got := tt.op.toRangeRequest(); !proto.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestPutRequests(t *testing.T) {
	for name, tt := range map[string]struct {
		op   Op
		want *pb.PutRequest
	}{
		"plain":              {OpPut("k", "v"), &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}},
		"empty":              {OpPut("", ""), &pb.PutRequest{}},
		"lease":              {OpPut("k", "v", WithLease(7)), &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: 7}},
		"previous":           {OpPut("k", "v", WithPrevKV()), &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), PrevKv: true}},
		"ignore value":       {OpPut("k", "", WithIgnoreValue()), &pb.PutRequest{Key: []byte("k"), IgnoreValue: true}},
		"value and ignore":   {OpPut("k", "v", WithIgnoreValue()), &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), IgnoreValue: true}},
		"lease and ignoring": {OpPut("k", "", WithLease(7), WithIgnoreLease()), &pb.PutRequest{Key: []byte("k"), Lease: 7, IgnoreLease: true}},
	} {
		if got := tt.op.toPutRequest(); !proto.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestDeleteRequests(t *testing.T) {
	for name, tt := range map[string]struct {
		op   Op
		want *pb.DeleteRangeRequest
	}{
		"key":      {OpDelete("k"), &pb.DeleteRangeRequest{Key: []byte("k")}},
		"prefix":   {OpDelete("k", WithPrefix()), &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}},
		"all":      {OpDelete("", WithFromKey()), &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}},
		"range":    {OpDelete("k", WithRange("m")), &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("m")}},
		"previous": {OpDelete("k", WithPrevKV()), &pb.DeleteRangeRequest{Key: []byte("k"), PrevKv: true}},
	} {
		if got := tt.op.toDeleteRequest(); !proto.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestCompactRequests(t *testing.T) {
	if got, want := OpCompact(5).toRequest(), (&pb.CompactionRequest{Revision: 5}); !proto.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	got, want := OpCompact(5, WithCompactPhysical()).toRequest(), &pb.CompactionRequest{Revision: 5, Physical: true}
	if !proto.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestGetters(t *testing.T) {
	op := OpGet("k", WithPrefix(), WithLimit(1), WithRev(2), WithSort(SortByValue, SortDescend), WithSerializable(),
		WithKeysOnly(), WithCountOnly(), WithMinModRev(3), WithMaxModRev(4), WithMinCreateRev(5), WithMaxCreateRev(6))
	if string(op.KeyBytes()) != "k" || string(op.RangeBytes()) != "l" || op.ValueBytes() != nil {
		t.Errorf("key %q, end %q, value %q", op.KeyBytes(), op.RangeBytes(), op.ValueBytes())
	}
	got := []int64{op.Limit(), op.Rev(), op.MinModRev(), op.MaxModRev(), op.MinCreateRev(), op.MaxCreateRev()}
	if want := []int64{1, 2, 3, 4, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("numbers %v, want %v", got, want)
	}
	if !op.IsGet() || !op.IsSortSet() || !op.IsSortOptionValid() || !op.IsSerializable() || !op.IsKeysOnly() ||
		!op.IsCountOnly() || !op.IsOptsWithPrefix() || op.IsOptsWithFromKey() {
		t.Errorf("%+v: a getter is wrong", op)
	}
	watch := OpWatch("k", WithPrevKV(), WithFragment(), WithProgressNotify(), WithCreatedNotify(), WithFilterPut(),
		WithFilterDelete(), WithFromKey())
	if !watch.IsPrevKV() || !watch.IsFragment() || !watch.IsProgressNotify() || !watch.IsCreatedNotify() ||
		!watch.IsFilterPut() || !watch.IsFilterDelete() || !watch.IsOptsWithFromKey() {
		t.Errorf("%+v: a getter is wrong", watch)
	}
}

func TestKindOfOperation(t *testing.T) {
	for name, tt := range map[string]struct {
		op   Op
		want string
	}{
		"get":    {OpGet("k"), "get"},
		"put":    {OpPut("k", "v"), "put"},
		"delete": {OpDelete("k"), "delete"},
		"txn":    {OpTxn(nil, nil, nil), "txn"},
		"watch":  {OpWatch("k"), "get"},
		"zero":   {Op{}, ""},
		"new":    {*NewOp(), ""},
	} {
		var kinds []string
		for kind, is := range map[string]bool{
			"get": tt.op.IsGet(), "put": tt.op.IsPut(), "delete": tt.op.IsDelete(), "txn": tt.op.IsTxn(),
		} {
			if is {
				kinds = append(kinds, kind)
			}
		}
		if got := strings.Join(kinds, " "); got != tt.want {
			t.Errorf("%s: is %q, want %q", name, got, tt.want)
		}
	}
}

func TestBytesAreNilOnlyWhereThereAreNone(t *testing.T) {
	for name, tt := range map[string]struct {
		op              Op
		key, end, value bool // is nil
	}{
		"get":             {OpGet(""), false, true, true},
		"get of no range": {OpGet("k", WithRange("")), false, false, true},
		"put":             {OpPut("", ""), false, true, false},
		"delete":          {OpDelete(""), false, true, true},
		"watch":           {OpWatch(""), false, true, true},
		"new":             {*NewOp(), false, true, true},
		"zero":            {Op{}, true, true, true},
	} {
		if tt.op.KeyBytes() == nil != tt.key || tt.op.RangeBytes() == nil != tt.end || tt.op.ValueBytes() == nil != tt.value {
			t.Errorf("%s: key %#v, end %#v, value %#v", name, tt.op.KeyBytes(), tt.op.RangeBytes(), tt.op.ValueBytes())
		}
	}
}

func TestSettersReplaceTheBytes(t *testing.T) {
	op := OpPut("k", "v")
	op.WithKeyBytes([]byte("a"))
	op.WithRangeBytes([]byte("b"))
	op.WithValueBytes([]byte("c"))
	if got := fmt.Sprintf("%s %s %s", op.KeyBytes(), op.RangeBytes(), op.ValueBytes()); got != "a b c" {
		t.Errorf("bytes %q", got)
	}
}

func TestSortOptionIsValidIfEtcdKnowsIt(t *testing.T) {
	for _, tt := range []struct {
		op   Op
		want bool
	}{
		{OpGet("k"), true},
		{OpPut("k", "v"), true},
		{OpTxn(nil, nil, nil), true},
		{OpGet("k", WithSort(SortByValue, SortDescend)), true},
		{OpGet("k", WithSort(SortByValue+1, SortAscend)), false},
		{OpGet("k", WithSort(-1, SortAscend)), false},
		{OpGet("k", WithSort(SortByKey, SortDescend+1)), false},
		{OpGet("k", WithSort(SortByKey, -1)), false},
	} {
		if got := tt.op.IsSortOptionValid(); got != tt.want {
			t.Errorf("%v: %t, want %t", tt.op.sort, got, tt.want)
		}
	}
}

func TestRangeOptionsAreRememberedWhenOverridden(t *testing.T) {
	if op := OpGet("k", WithPrefix(), WithRange("z")); !op.IsOptsWithPrefix() {
		t.Error("the prefix is forgotten")
	}
	if op := OpGet("k", WithFromKey(), WithRange("z")); !op.IsOptsWithFromKey() {
		t.Error("the from key is forgotten")
	}
	if IsOptsWithPrefix(nil) || IsOptsWithFromKey(nil) {
		t.Error("no options have a range")
	}
	if !IsOptsWithPrefix(WithLastKey()) || IsOptsWithFromKey(WithLastKey()) {
		t.Error("the prefix among several options is not seen")
	}
	if !IsOptsWithFromKey([]OpOption{WithLimit(1), WithFromKey()}) {
		t.Error("the from key among several options is not seen")
	}
	if IsOptsWithFromKey([]OpOption{WithRange("\x00")}) {
		t.Error("a range to the end is taken for WithFromKey")
	}
}

func TestGetPrefixRangeEnd(t *testing.T) {
	for prefix, want := range map[string]string{
		"": "\x00", "a": "b", "ab": "ac", "\xff": "\x00", "a\xff": "b", "\xff\xff": "\x00", "a\xff\xff": "b",
		"\x00": "\x01", "\xfe": "\xff",
	} {
		if got := GetPrefixRangeEnd(prefix); got != want {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
}

func FuzzGetPrefixRangeEnd(f *testing.F) {
	for _, seed := range []string{"", "a", "a\xff", "\xff\xff"} {
		f.Add(seed, "suffix")
	}
	f.Fuzz(func(t *testing.T, prefix, other string) {
		end := GetPrefixRangeEnd(prefix)
		inRange := func(key string) bool { return key >= prefix && (end == "\x00" || key < end) }
		if key := prefix + other; !inRange(key) {
			t.Errorf("%q begins with %q and is not below %q", key, prefix, end)
		}
		// The other way round holds for prefixes that have an end. (One of 0xff only has none, and needs none: no key
		// is above it that does not begin with it, but shorter ones of 0xff are below.)
		if inRange(other) && end != "\x00" && !strings.HasPrefix(other, prefix) {
			t.Errorf("%q is between %q and %q without beginning with it", other, prefix, end)
		}
	})
}

func TestTxnOperation(t *testing.T) {
	cmps := []Cmp{Compare(Version("k"), "=", 0)}
	thens, elses := []Op{OpPut("k", "v")}, []Op{OpGet("k")}
	op := OpTxn(cmps, thens, elses)
	gotCmps, gotThens, gotElses := op.Txn()
	if !reflect.DeepEqual(gotCmps, cmps) || !reflect.DeepEqual(gotThens, thens) || !reflect.DeepEqual(gotElses, elses) {
		t.Error("Txn does not return what OpTxn was given")
	}
	if a, b, c := OpTxn(nil, nil, nil).Txn(); a != nil || b != nil || c != nil {
		t.Error("Txn makes something of nil")
	}
	if a, b, c := OpGet("k").Txn(); a != nil || b != nil || c != nil {
		t.Error("a get has parts of a transaction")
	}
	nested := OpTxn(nil, []Op{op, OpDelete("d")}, []Op{OpWatch("w")}).toTxnRequest()
	want := &pb.TxnRequest{
		Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{
				Compare: []*pb.Compare{{
					Target: pb.Compare_VERSION, Key: []byte("k"), TargetUnion: &pb.Compare_Version{},
				}},
				Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
					RequestPut: &pb.PutRequest{Key: []byte("k"), Value: []byte("v")},
				}}},
				Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}},
			}}},
			{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("d")}}},
		},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("w")}}}},
	}
	if !proto.Equal(nested, want) {
		t.Errorf("request %v, want %v", nested, want)
	}
}
