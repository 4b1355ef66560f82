package namespace

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/stub"
)

// text writes an operation as tests compare it.
func text(op clientv3.Op) string {
	if op.IsTxn() {
		cmps, thenOps, elseOps := op.Txn()
		var b strings.Builder
		for i := range cmps {
			m := cmps[i].GetCompare()
			fmt.Fprintf(&b, "if %q-%q ", m.Key, m.RangeEnd)
		}
		for _, op := range thenOps {
			b.WriteString("then " + text(op) + " ")
		}
		for _, op := range elseOps {
			b.WriteString("else " + text(op) + " ")
		}
		return "txn(" + strings.TrimSpace(b.String()) + ")"
	}
	kind := "get"
	switch {
	case op.IsPut():
		kind = "put"
	case op.IsDelete():
		kind = "del"
	}
	return fmt.Sprintf("%s %q-%q", kind, op.KeyBytes(), op.RangeBytes())
}

func TestKeysAreTranslated(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		op     clientv3.Op
		want   string
	}{
		{"p/", clientv3.OpGet("a"), `get "p/a"-""`},
		{"p/", clientv3.OpPut("a", "x"), `put "p/a"-""`},
		{"p/", clientv3.OpDelete("a"), `del "p/a"-""`},
		{"p/", clientv3.OpGet("a", clientv3.WithRange("b")), `get "p/a"-"p/b"`},
		{"p/", clientv3.OpGet("a", clientv3.WithRange("")), `get "p/a"-""`},
		{"p/", clientv3.OpGet("a", clientv3.WithRange("\x00\x00")), `get "p/a"-"p/\x00\x00"`},
		{"p/", clientv3.OpGet("a", clientv3.WithPrefix()), `get "p/a"-"p/b"`},
		{"p/", clientv3.OpGet("a", clientv3.WithFromKey()), `get "p/a"-"p0"`},
		{"p/", clientv3.OpGet("a", clientv3.WithRange("\x00")), `get "p/a"-"p0"`},
		{"p/", clientv3.OpGet("", clientv3.WithPrefix()), `get "p/\x00"-"p0"`},
		{"p/", clientv3.OpGet("", clientv3.WithFromKey()), `get "p/\x00"-"p0"`},
		{"p/", clientv3.OpGet("\xff", clientv3.WithPrefix()), `get "p/\xff"-"p0"`},
		{"p/", clientv3.OpDelete("", clientv3.WithPrefix()), `del "p/\x00"-"p0"`},

		{"p\xff", clientv3.OpGet("", clientv3.WithPrefix()), `get "p\xff\x00"-"q"`},
		{"\xff", clientv3.OpGet("a", clientv3.WithFromKey()), `get "\xffa"-"\x00"`},
		{"\xff", clientv3.OpGet("\xff", clientv3.WithPrefix()), `get "\xff\xff"-"\x00"`},

		{"", clientv3.OpGet("a"), `get "a"-""`},
		{"", clientv3.OpGet("a", clientv3.WithFromKey()), `get "a"-"\x00"`},
		{"", clientv3.OpGet("", clientv3.WithPrefix()), `get "\x00"-"\x00"`},
		{"", clientv3.OpDelete("a", clientv3.WithPrefix()), `del "a"-"b"`},

		{"p/", clientv3.OpTxn(
			[]clientv3.Cmp{
				clientv3.Compare(clientv3.Value("a"), "=", "x"),
				clientv3.Compare(clientv3.Version("a"), "=", 0).WithRange("c"),
				clientv3.Compare(clientv3.Version("a"), "=", 0).WithPrefix(),
				clientv3.Compare(clientv3.Version(""), "=", 0).WithPrefix(),
			},
			[]clientv3.Op{
				clientv3.OpTxn(
					[]clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue("b"), "=", 0).WithRange("\x00")},
					[]clientv3.Op{clientv3.OpPut("c", "x")},
					[]clientv3.Op{clientv3.OpDelete("", clientv3.WithFromKey())},
				),
				clientv3.OpGet("d"),
			},
			[]clientv3.Op{clientv3.OpDelete("e", clientv3.WithPrefix())},
		), `txn(if "p/a"-"" if "p/a"-"p/c" if "p/a"-"p/b" if "p/\x00"-"p0" ` +
			`then txn(if "p/b"-"p0" then put "p/c"-"" else del "p/\x00"-"p0") then get "p/d"-"" else del "p/e"-"p/f")`},
	} {
		inner := &stub.KV{}
		kv := NewKV(inner, tt.prefix)
		before := text(tt.op)
		for range 2 { // the same operation twice: it must not have been changed
			if _, err := kv.Do(t.Context(), tt.op); err != nil {
				t.Errorf("prefix %q, %s: %v", tt.prefix, before, err)
				continue
			}
			if got := text(inner.Ops()[0]); got != tt.want {
				t.Errorf("prefix %q, %s: got  %s\nwant %s", tt.prefix, before, got, tt.want)
			}
		}
		if after := text(tt.op); after != before {
			t.Errorf("prefix %q: %s has become %s", tt.prefix, before, after)
		}
	}
}

// What is not a key is what the caller has set, in each of the ways in.
func TestOptionsAreKept(t *testing.T) {
	inner := &stub.KV{}
	kv := NewKV(inner, "p/")
	ctx := t.Context()
	opts := []clientv3.OpOption{
		clientv3.WithPrefix(), clientv3.WithLimit(7), clientv3.WithRev(9), clientv3.WithSerializable(),
		clientv3.WithKeysOnly(), clientv3.WithMinModRev(3), clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend),
	}
	if _, err := kv.Get(ctx, "a", opts...); err != nil {
		t.Fatal(err)
	}
	stream, err := kv.GetStream(ctx, "a", opts...)
	if err != nil {
		t.Fatal(err)
	}
	for range stream {
	}
	for _, op := range inner.Ops() {
		if got := text(op); got != `get "p/a"-"p/b"` {
			t.Errorf("operation %s", got)
		}
		if op.Limit() != 7 || op.Rev() != 9 || !op.IsSerializable() || !op.IsKeysOnly() || op.MinModRev() != 3 ||
			!op.IsSortSet() || !op.IsOptsWithPrefix() {
			t.Errorf("options lost: %+v", op)
		}
	}
	if _, err := kv.Put(ctx, "a", "v", clientv3.WithPrevKV()); err != nil {
		t.Fatal(err)
	}
	if op := inner.Ops()[0]; !op.IsPrevKV() || string(op.ValueBytes()) != "v" {
		t.Errorf("put %+v", op)
	}
	resp, err := kv.Compact(ctx, 5)
	if err != nil || resp.Header.Revision != 5 {
		t.Errorf("compaction %v, %v", resp, err)
	}
}

func TestTransactionsAreTranslated(t *testing.T) {
	inner := &stub.KV{}
	kv := NewKV(inner, "p/")
	_, err := kv.Txn(t.Context()).
		If(clientv3.Compare(clientv3.Version("a"), "=", 0)).
		Then(clientv3.OpPut("a", "x")).
		Else(clientv3.OpGet("", clientv3.WithPrefix())).
		Commit()
	if err != nil {
		t.Fatal(err)
	}
	const want = `txn(if "p/a"-"" then put "p/a"-"" else get "p/\x00"-"p0")`
	if got := text(inner.Ops()[0]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEmptyKeyIsRefused(t *testing.T) {
	inner := &stub.KV{}
	kv := NewKV(inner, "p/")
	ctx := t.Context()
	calls := map[string]func() error{
		"put":    func() error { _, err := kv.Put(ctx, "", "x"); return err },
		"get":    func() error { _, err := kv.Get(ctx, ""); return err },
		"range":  func() error { _, err := kv.Get(ctx, "", clientv3.WithRange("b")); return err },
		"stream": func() error { _, err := kv.GetStream(ctx, ""); return err },
		"delete": func() error { _, err := kv.Delete(ctx, ""); return err },
		"do":     func() error { _, err := kv.Do(ctx, clientv3.OpGet("")); return err },
		"then":   func() error { _, err := kv.Txn(ctx).Then(clientv3.OpPut("", "")).Commit(); return err },
		"else":   func() error { _, err := kv.Txn(ctx).Else(clientv3.OpGet("")).Commit(); return err },
		"if": func() error {
			_, err := kv.Txn(ctx).If(clientv3.Compare(clientv3.Version(""), "=", 0)).Commit()
			return err
		},
		"nested": func() error {
			_, err := kv.Do(ctx, clientv3.OpTxn(nil, []clientv3.Op{
				clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpDelete("")}),
			}, nil))
			return err
		},
	}
	for name, call := range calls {
		if err := call(); err != rpctypes.ErrEmptyKey {
			t.Errorf("%s: error %v, want %v", name, err, rpctypes.ErrEmptyKey)
		}
	}
	if ops := inner.Ops(); len(ops) != 0 {
		t.Errorf("%d operations were sent", len(ops))
	}
}

func TestErrorsKeepTheirCause(t *testing.T) {
	inner := &stub.KV{Answer: func(clientv3.Op) (clientv3.OpResponse, error) {
		return clientv3.OpResponse{}, rpctypes.ErrNoSpace
	}}
	kv := NewKV(inner, "p/")
	if _, err := kv.Get(t.Context(), "a"); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("get: %v", err)
	}
	if _, err := kv.Txn(t.Context()).Commit(); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("transaction: %v", err)
	}
	stream, err := kv.GetStream(t.Context(), "a")
	if err == nil {
		_, err = clientv3.GetStreamToGetResponse(stream)
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("stream: %v", err)
	}
}

// pair is a key-value pair with every field set.
func pair(key string) *mvccpb.KeyValue {
	kv := &mvccpb.KeyValue{}
	populate(kv.ProtoReflect())
	kv.Key = []byte(key)
	return kv
}

// populate sets every scalar field of a message to something.
func populate(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.IsList() || f.ContainingOneof() != nil {
			continue
		}
		switch f.Kind() {
		case protoreflect.BytesKind:
			m.Set(f, protoreflect.ValueOfBytes([]byte("bytes"+strconv.Itoa(i))))
		case protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString("text"))
		case protoreflect.BoolKind:
			m.Set(f, protoreflect.ValueOfBool(true))
		case protoreflect.Int64Kind:
			m.Set(f, protoreflect.ValueOfInt64(int64(i+1)))
		case protoreflect.Uint64Kind:
			m.Set(f, protoreflect.ValueOfUint64(uint64(i+1)))
		case protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(1))
		case protoreflect.MessageKind:
			populate(m.Mutable(f).Message())
		default:
			panic("unexpected kind " + f.Kind().String())
		}
	}
}

// full returns a message with all of its fields set and, as the lists among them, what fill sets.
func full[M proto.Message](m M, fill func(M)) M {
	populate(m.ProtoReflect())
	fill(m)
	return m
}

// responses returns responses of all kinds as seen under a prefix.
func responses(prefix string) map[string]proto.Message {
	key := func(name string) *mvccpb.KeyValue { return pair(prefix + name) }
	get := full(&pb.RangeResponse{}, func(r *pb.RangeResponse) {
		for i := range 3*slabSize + 1 {
			r.Kvs = append(r.Kvs, key(strconv.Itoa(i)))
		}
	})
	put := full(&pb.PutResponse{}, func(r *pb.PutResponse) { r.PrevKv = key("put") })
	del := full(&pb.DeleteRangeResponse{}, func(r *pb.DeleteRangeResponse) {
		r.PrevKvs = []*mvccpb.KeyValue{key("x"), key("y")}
	})
	txn := full(&pb.TxnResponse{}, func(r *pb.TxnResponse) {
		r.Responses = []*pb.ResponseOp{
			{Response: &pb.ResponseOp_ResponseRange{ResponseRange: get}},
			{Response: &pb.ResponseOp_ResponsePut{ResponsePut: put}},
			{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: del}},
			{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: &pb.TxnResponse{Responses: []*pb.ResponseOp{
				{Response: &pb.ResponseOp_ResponseRange{ResponseRange: get}},
			}}}},
			{},
		}
	})
	return map[string]proto.Message{"get": get, "put": put, "delete": del, "txn": txn, "empty": &pb.RangeResponse{}}
}

func opResponse(m proto.Message) clientv3.OpResponse {
	switch m := m.(type) {
	case *pb.RangeResponse:
		return (*clientv3.GetResponse)(m).OpResponse()
	case *pb.PutResponse:
		return (*clientv3.PutResponse)(m).OpResponse()
	case *pb.DeleteRangeResponse:
		return (*clientv3.DeleteResponse)(m).OpResponse()
	default:
		return (*clientv3.TxnResponse)(m.(*pb.TxnResponse)).OpResponse()
	}
}

func message(resp clientv3.OpResponse) proto.Message {
	switch {
	case resp.Get() != nil:
		return (*pb.RangeResponse)(resp.Get())
	case resp.Put() != nil:
		return (*pb.PutResponse)(resp.Put())
	case resp.Del() != nil:
		return (*pb.DeleteRangeResponse)(resp.Del())
	default:
		return (*pb.TxnResponse)(resp.Txn())
	}
}

// Every field of every response arrives, keys without the prefix, and the response below is left as it was: a second
// look at it, as of a cache, gives the same.
func TestResponsesAreTranslatedAndNotChanged(t *testing.T) {
	inside, outside := responses("p/"), responses("p/")
	for name, want := range responses("") {
		kv := NewKV(&stub.KV{Answer: func(clientv3.Op) (clientv3.OpResponse, error) {
			return opResponse(inside[name]), nil
		}}, "p/")
		for range 2 {
			resp, err := kv.Do(t.Context(), clientv3.OpGet("a"))
			if err != nil {
				t.Fatal(err)
			}
			if got := message(resp); !proto.Equal(got, want) {
				t.Errorf("%s: got  %v\nwant %v", name, got, want)
			}
		}
		if !proto.Equal(inside[name], outside[name]) {
			t.Errorf("%s: the response was changed", name)
		}
	}
}

// The typed methods return what Do does.
func TestMethodsReturnTheirResponse(t *testing.T) {
	inside, want := responses("p/"), responses("")
	kv := NewKV(&stub.KV{Answer: func(op clientv3.Op) (clientv3.OpResponse, error) {
		switch {
		case op.IsGet():
			return opResponse(inside["get"]), nil
		case op.IsPut():
			return opResponse(inside["put"]), nil
		case op.IsDelete():
			return opResponse(inside["delete"]), nil
		default:
			return opResponse(inside["txn"]), nil
		}
	}}, "p/")
	ctx := t.Context()
	equal := func(name string, got proto.Message, err error) {
		t.Helper()
		if err != nil || !proto.Equal(got, want[name]) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	get, err := kv.Get(ctx, "a")
	equal("get", (*pb.RangeResponse)(get), err)
	put, err := kv.Put(ctx, "a", "")
	equal("put", (*pb.PutResponse)(put), err)
	del, err := kv.Delete(ctx, "a")
	equal("delete", (*pb.DeleteRangeResponse)(del), err)
	txn, err := kv.Txn(ctx).Commit()
	equal("txn", (*pb.TxnResponse)(txn), err)
	stream, err := kv.GetStream(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	get, err = clientv3.GetStreamToGetResponse(stream)
	equal("get", (*pb.RangeResponse)(get), err)
}

func TestNamespacesNest(t *testing.T) {
	inner := &stub.KV{}
	kv := NewKV(NewKV(inner, "a/"), "b/")
	if _, err := kv.Get(context.Background(), "", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if got := text(inner.Ops()[0]); got != `get "a/b/\x00"-"a/b0"` {
		t.Errorf("got %s", got)
	}
}
