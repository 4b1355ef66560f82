package ordering

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/stub"
)

// member answers with the revisions it is given, one after the other, and with the last one from then on. An operation
// at a revision beyond it is refused as members do.
type member struct {
	stub.KV
	revs []int64
}

func newMember(revs ...int64) *member {
	m := &member{revs: revs}
	m.Answer = func(op clientv3.Op) (clientv3.OpResponse, error) {
		rev := m.revs[0]
		if len(m.revs) > 1 {
			m.revs = m.revs[1:]
		}
		if op.Rev() > rev {
			return clientv3.OpResponse{}, rpctypes.ErrFutureRev
		}
		header := &pb.ResponseHeader{Revision: rev}
		switch {
		case op.IsGet():
			kvs := []*mvccpb.KeyValue{{Key: []byte("a")}, {Key: []byte("b")}}
			return (&clientv3.GetResponse{Header: header, Kvs: kvs}).OpResponse(), nil
		case op.IsPut():
			return (&clientv3.PutResponse{Header: header}).OpResponse(), nil
		case op.IsDelete():
			return (&clientv3.DeleteResponse{Header: header}).OpResponse(), nil
		default:
			return (&clientv3.TxnResponse{Header: header}).OpResponse(), nil
		}
	}
	return m
}

var errBehind = errors.New("behind")

// allow returns a function that lets a read be repeated n times, and what it was called with.
func allow(n int) (OrderViolationFunc, *[]string) {
	var calls []string
	return func(op clientv3.Op, resp clientv3.OpResponse, prevRev int64) error {
		calls = append(calls, fmt.Sprintf("txn %t, at %d, before %d", op.IsTxn(), headerOf(resp).GetRevision(), prevRev))
		if len(calls) > n {
			return errBehind
		}
		return nil
	}, &calls
}

// reads are the ways to read. Each returns the revision it shows.
var reads = map[string]func(context.Context, clientv3.KV) (int64, error){
	"get": func(ctx context.Context, kv clientv3.KV) (int64, error) {
		resp, err := kv.Get(ctx, "a", clientv3.WithSerializable())
		if err != nil {
			return 0, err
		}
		return resp.Header.Revision, nil
	},
	"do": func(ctx context.Context, kv clientv3.KV) (int64, error) {
		resp, err := kv.Do(ctx, clientv3.OpGet("a", clientv3.WithSerializable()))
		return headerOf(resp).GetRevision(), err
	},
	"transaction": func(ctx context.Context, kv clientv3.KV) (int64, error) {
		resp, err := kv.Txn(ctx).
			If(clientv3.Compare(clientv3.Version("a"), "=", 0)).
			Then(clientv3.OpGet("a"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("b")}, nil)).
			Else(clientv3.OpGet("c")).
			Commit()
		if err != nil {
			return 0, err
		}
		return resp.Header.Revision, nil
	},
	"stream": func(ctx context.Context, kv clientv3.KV) (int64, error) {
		stream, err := kv.GetStream(ctx, "a", clientv3.WithPrefix(), clientv3.WithSerializable())
		if err != nil {
			return 0, err
		}
		resp, err := clientv3.GetStreamToGetResponse(stream)
		if err != nil {
			return 0, err
		}
		if len(resp.Kvs) != 2 {
			return 0, fmt.Errorf("%d keys", len(resp.Kvs))
		}
		return resp.Header.Revision, nil
	},
}

func TestReadsNeverShowAnOlderRevision(t *testing.T) {
	for name, read := range reads {
		t.Run(name, func(t *testing.T) {
			revs := []int64{5, 9, 7, 8, 9}
			if name == "stream" {
				revs = []int64{5, 9, 9, 7, 8, 9, 9} // once the first has shown a revision, each asks twice
			}
			violation, calls := allow(2)
			kv := NewKV(newMember(revs...), violation)
			for _, want := range []int64{5, 9, 9} {
				if rev, err := read(t.Context(), kv); err != nil || rev != want {
					t.Fatalf("revision %d, %v; want %d", rev, err, want)
				}
			}
			if len(*calls) != 2 {
				t.Errorf("calls %v, want 2", *calls)
			}
		})
	}
}

func TestReadFailsAsTheFunctionSays(t *testing.T) {
	for name, read := range reads {
		m := newMember(9, 8)
		violation, calls := allow(3)
		kv := NewKV(m, violation)
		if _, err := kv.Get(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if _, err := read(t.Context(), kv); !errors.Is(err, errBehind) {
			t.Errorf("%s: error %v", name, err)
		}
		if want := fmt.Sprintf("txn %t, at 8, before 9", name == "transaction"); len(*calls) != 4 || (*calls)[3] != want {
			t.Errorf("%s: calls %v, want 4 times %q", name, *calls, want)
		}
	}
}

func TestEveryResponseCounts(t *testing.T) {
	ctx := context.Background()
	for name, call := range map[string]func(kv clientv3.KV) error{
		"put":    func(kv clientv3.KV) error { _, err := kv.Put(ctx, "a", ""); return err },
		"delete": func(kv clientv3.KV) error { _, err := kv.Delete(ctx, "a"); return err },
		"do":     func(kv clientv3.KV) error { _, err := kv.Do(ctx, clientv3.OpPut("a", "")); return err },
		"transaction": func(kv clientv3.KV) error {
			_, err := kv.Txn(ctx).Then(clientv3.OpDelete("a")).Commit()
			return err
		},
		"stream": func(kv clientv3.KV) error {
			stream, err := kv.GetStream(ctx, "a")
			if err != nil {
				return err
			}
			_, err = clientv3.GetStreamToGetResponse(stream)
			return err
		},
	} {
		violation, _ := allow(0)
		kv := NewKV(newMember(9, 8), violation)
		if err := call(kv); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := kv.Get(ctx, "a", clientv3.WithSerializable()); !errors.Is(err, errBehind) {
			t.Errorf("after %s: error %v", name, err)
		}
	}
}

// What was written is written: to send it again, because the response looks old, would write it twice.
func TestWritesAreNotRepeated(t *testing.T) {
	for name, op := range map[string]clientv3.Op{
		"put":    clientv3.OpPut("a", ""),
		"delete": clientv3.OpDelete("a"),
		"txn":    clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("a")}, []clientv3.Op{clientv3.OpPut("a", "")}),
		"nested": clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpDelete("a")}, nil)}, nil),
	} {
		violation, calls := allow(3)
		m := newMember(9, 8)
		kv := NewKV(m, violation)
		if _, err := kv.Get(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		m.Ops()
		if _, err := kv.Do(t.Context(), op); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if sent := len(m.Ops()); sent != 1 || len(*calls) != 0 {
			t.Errorf("%s: sent %d times, %d violations", name, sent, len(*calls))
		}
	}
}

// The probe comes to a member that is up to date, the stream to one that is not. So it is begun anew, as long as a probe
// finds such a member.
func TestStreamFromAMemberThatIsBehindIsRepeated(t *testing.T) {
	violation, calls := allow(0)
	kv := NewKV(newMember(9, 9, 8, 9, 8, 9, 9, 9, 8), violation)
	if _, err := kv.Get(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	rev, err := reads["stream"](t.Context(), kv)
	if err != nil || rev != 9 || len(*calls) != 0 {
		t.Errorf("revision %d, %v; calls %v", rev, err, *calls)
	}
	if _, err := reads["stream"](t.Context(), kv); !errors.Is(err, errBehind) {
		t.Errorf("error %v", err)
	}
}

// The store is compacted between the probe and the stream.
func TestStreamOutlivesCompaction(t *testing.T) {
	m := newMember(9)
	inner := m.Answer
	streams := 0
	m.Answer = func(op clientv3.Op) (clientv3.OpResponse, error) {
		if op.Rev() > 0 {
			if streams++; streams == 1 {
				return clientv3.OpResponse{}, rpctypes.ErrCompacted
			}
		}
		return inner(op)
	}
	violation, calls := allow(0)
	kv := NewKV(m, violation)
	if _, err := kv.Get(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if rev, err := reads["stream"](t.Context(), kv); err != nil || rev != 9 || streams != 2 || len(*calls) != 0 {
		t.Errorf("revision %d, %v; %d streams, calls %v", rev, err, streams, *calls)
	}
	// A compacted revision that the caller has asked for is an error.
	streams = 0
	stream, err := kv.GetStream(t.Context(), "a", clientv3.WithRev(3), clientv3.WithSerializable())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clientv3.GetStreamToGetResponse(stream); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("error %v", err)
	}
}

func TestErrorsArePassedOn(t *testing.T) {
	kv := NewKV(&stub.KV{Answer: func(clientv3.Op) (clientv3.OpResponse, error) {
		return clientv3.OpResponse{}, rpctypes.ErrNoSpace
	}}, nil)
	for name, read := range reads {
		if _, err := read(t.Context(), kv); !errors.Is(err, rpctypes.ErrNoSpace) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := kv.Put(t.Context(), "a", ""); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("put: error %v", err)
	}
	if _, err := kv.Delete(t.Context(), "a"); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("delete: error %v", err)
	}
}

func client(t *testing.T, endpoints int) *clientv3.Client {
	t.Helper()
	cli := clientv3.NewCtxClient(t.Context())
	t.Cleanup(func() { cli.Close() })
	eps := make([]string, endpoints)
	for i := range eps {
		eps[i] = fmt.Sprintf("127.0.0.1:%d", i+1)
	}
	cli.SetEndpoints(eps...)
	return cli
}

// answer is a response at no revision of a member; 0 leaves the member out.
func answer(member uint64) clientv3.OpResponse {
	return (&clientv3.GetResponse{Header: &pb.ResponseHeader{MemberId: member}}).OpResponse()
}

func TestSwitchingGivesUpWhenAllAreBehind(t *testing.T) {
	for _, members := range [][]uint64{{0}, {1, 2}, {1, 2, 3}} {
		violation := NewOrderViolationSwitchEndpointClosure(client(t, 2))
		for round := range 2 { // it counts anew after giving up
			n := 0
			for violation(clientv3.Op{}, answer(members[n%len(members)]), 7) == nil {
				n++
			}
			if n != 11 {
				t.Errorf("members %d, round %d: gave up after %d attempts, want 11", members, round, n)
			}
		}
	}
}

// One member is behind for good, the others are not: reads come to it again and again, now and then another revision is
// seen, and none of them may fail.
func TestSwitchingDoesNotGiveUpOnOneMember(t *testing.T) {
	violation := NewOrderViolationSwitchEndpointClosure(client(t, 3))
	for rev := range int64(100) {
		for range 100 {
			if err := violation(clientv3.Op{}, answer(1), rev); err != nil {
				t.Fatalf("revision %d: %v", rev, err)
			}
		}
	}
}

// Somebody who waits for a member to catch up does not ask it without a pause.
func TestRepeatsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := NewKV(newMember(9, 8), func(clientv3.Op, clientv3.OpResponse, int64) error { return nil })
		if _, err := kv.Get(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		for name, read := range reads {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			inner := kv.(*kvOrdering).KV.(*member)
			inner.Ops()
			if _, err := read(ctx, kv); err != context.DeadlineExceeded {
				t.Errorf("%s: error %v", name, err)
			}
			if n := len(inner.Ops()); n < 20 || n > 130 {
				t.Errorf("%s: %d attempts in 10 s", name, n)
			}
			cancel()
		}
	})
}
