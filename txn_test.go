package clientv3

import (
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

func TestTxnPartsInTheWrongOrderPanic(t *testing.T) {
	m := newMembers(t, 0)
	c := newTestClient(t, Config{Endpoints: []string{"a:1"}, DialOptions: m.config().DialOptions})
	for name, tt := range map[string]struct {
		f    func(Txn)
		want any
	}{
		"If twice":        {func(x Txn) { x.If().If() }, "cannot call If twice!"},
		"If after Then":   {func(x Txn) { x.Then().If() }, "cannot call If after Then!"},
		"If after Else":   {func(x Txn) { x.Else().If() }, "cannot call If after Else!"},
		"Then twice":      {func(x Txn) { x.Then(OpGet("k")).Then(OpGet("k")) }, "cannot call Then twice!"},
		"Then after Else": {func(x Txn) { x.Else().Then() }, "cannot call Then after Else!"},
		"Else twice":      {func(x Txn) { x.Else().Else() }, "cannot call Else twice!"},
		"zero Op":         {func(x Txn) { x.Then(Op{}) }, "Unknown Op"},
		"new Op":          {func(x Txn) { x.Else(*NewOp()) }, "Unknown Op"},
		"right order":     {func(x Txn) { x.If().Then().Else() }, nil},
	} {
		if got := panicOf(func() { tt.f(c.Txn(t.Context())) }); got != tt.want {
			t.Errorf("%s: panic %v, want %v", name, got, tt.want)
		}
	}
	for name, op := range map[string]Op{"zero": {}, "new": *NewOp()} {
		if got := panicOf(func() { _, _ = c.Do(t.Context(), op) }); got != "Unknown op" {
			t.Errorf("Do of a %s Op: panic %v", name, got)
		}
	}
}

func TestTxnIsSentAsItWasPutTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		answer := &pb.TxnResponse{Succeeded: true, Responses: []*pb.ResponseOp{
			{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Count: 3}}},
		}}
		m.handle(pb.KV_Txn_FullMethodName, scripted.Answer(answer))
		cmps := []Cmp{Compare(Value("k"), "=", "v"), {}}
		thens, elses := []Op{OpGet("a"), OpPut("b", "1")}, []Op{OpDelete("c")}

		txn := c.Txn(t.Context()).If(cmps...).Then(thens...).Else(elses...)
		for range 2 { // it may be committed again
			resp, err := txn.Commit()
			if err != nil || !proto.Equal((*pb.TxnResponse)(resp), answer) {
				t.Errorf("response %v, error %v", resp, err)
			}
			want := OpTxn(cmps, thens, elses).toTxnRequest()
			if got := m.last(t, pb.KV_Txn_FullMethodName).Request; !proto.Equal(got, want) {
				t.Errorf("request %v, want %v", got, want)
			}
		}
		if n := m.count(pb.KV_Txn_FullMethodName); n != 2 {
			t.Errorf("sent %d times, want once for each Commit", n)
		}

		empty := c.Txn(t.Context())
		if _, err := empty.Commit(); err != nil {
			t.Errorf("empty: %v", err)
		}
		if got := m.last(t, pb.KV_Txn_FullMethodName).Request; !proto.Equal(got, &pb.TxnRequest{}) {
			t.Errorf("empty request %v", got)
		}
		if _, err := empty.Then(OpGet("k")).Commit(); err != nil {
			t.Errorf("Then after an empty Commit: %v", err)
		}
	})
}

func TestDoReturnsTheResponseOfItsKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		m.handle(pb.KV_Range_FullMethodName, scripted.Answer(&pb.RangeResponse{Count: 1}))
		m.handle(pb.KV_Put_FullMethodName, scripted.Answer(&pb.PutResponse{PrevKv: &mvccpb.KeyValue{Version: 2}}))
		m.handle(pb.KV_DeleteRange_FullMethodName, scripted.Answer(&pb.DeleteRangeResponse{Deleted: 3}))
		m.handle(pb.KV_Txn_FullMethodName, scripted.Answer(&pb.TxnResponse{Succeeded: true}))
		for name, tt := range map[string]struct {
			op    Op
			check func(OpResponse) bool
		}{
			"get": {OpGet("k"), func(r OpResponse) bool {
				return r.Get().Count == 1 && r.Put() == nil && r.Del() == nil && r.Txn() == nil
			}},
			"watch": {OpWatch("k"), func(r OpResponse) bool { return r.Get().Count == 1 }},
			"put": {OpPut("k", "v"), func(r OpResponse) bool {
				return r.Put().PrevKv.Version == 2 && r.Get() == nil && r.Del() == nil && r.Txn() == nil
			}},
			"delete": {OpDelete("k"), func(r OpResponse) bool {
				return r.Del().Deleted == 3 && r.Get() == nil && r.Put() == nil && r.Txn() == nil
			}},
			"txn": {OpTxn(nil, nil, nil), func(r OpResponse) bool {
				return r.Txn().Succeeded && r.Get() == nil && r.Put() == nil && r.Del() == nil
			}},
		} {
			resp, err := c.Do(t.Context(), tt.op)
			if err != nil || !tt.check(resp) {
				t.Errorf("%s: %+v, error %v", name, resp, err)
			}
		}
		for name, resp := range map[string]OpResponse{
			"put": (&PutResponse{}).OpResponse(), "get": (&GetResponse{}).OpResponse(),
			"delete": (&DeleteResponse{}).OpResponse(), "txn": (&TxnResponse{}).OpResponse(),
		} {
			has := map[string]bool{
				"put": resp.Put() != nil, "get": resp.Get() != nil, "delete": resp.Del() != nil, "txn": resp.Txn() != nil,
			}
			for kind, is := range has {
				if is != (kind == name) {
					t.Errorf("OpResponse of a %s has a %s: %t", name, kind, is)
				}
			}
		}
	})
}
