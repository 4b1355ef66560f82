package coalesce

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/stub"
)

// busy returns a server and a KV on it with one slot, which a get of "z" has.
func busy(t *testing.T, opts ...Option) (*server, clientv3.KV, *calling) {
	t.Helper()
	s := newServer()
	for _, key := range []string{"a", "b", "c", "d"} {
		s.store.do(clientv3.OpPut(key, "value of "+key))
	}
	kv := NewKV(s, append([]Option{WithInFlight(1)}, opts...)...)
	return s, kv, get(t.Context(), kv, "z")
}

// free lets the request that has the slot succeed.
func free(t *testing.T, s *server) {
	t.Helper()
	s.only(t).succeed()
}

func TestALoneCallerGoesOutByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		kv := NewKV(s)
		type mark struct{}
		ctx := context.WithValue(t.Context(), mark{}, true)
		for i := range 3 {
			c := get(ctx, kv, "a", clientv3.WithKeysOnly())
			r := s.only(t)
			if r.txn || !r.ops[0].IsKeysOnly() || r.ctx.Value(mark{}) == nil {
				t.Fatalf("get %d: went out as %+v", i, r)
			}
			r.succeed()
			if !c.ended() || c.err != nil {
				t.Fatalf("get %d: ended %v, %v", i, c.ended(), c.err)
			}
		}
		if n := s.requests(); n != 3 {
			t.Errorf("%d requests for 3 gets", n)
		}
	})
}

func TestCallsThatWaitShareOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, first := busy(t)
		var waiting []*calling
		keys := []string{"a", "c", "missing", "b"}
		for _, key := range keys {
			waiting = append(waiting, get(t.Context(), kv, key))
		}
		waiting = append(waiting,
			get(t.Context(), kv, "a", clientv3.WithRange("d"), clientv3.WithLimit(2)),
			get(t.Context(), kv, "a", clientv3.WithCountOnly()))
		if r := s.only(t); r.keys() != "z" {
			t.Fatalf("asked for %q while the slot was in use", r.keys())
		}
		free(t, s)
		r := s.only(t)
		if !r.txn || r.keys() != "acmissingbaa" {
			t.Fatalf("transaction %v of %q", r.txn, r.keys())
		}
		if !first.ended() {
			t.Error("the first call waits for the others")
		}
		r.succeed()
		for i, c := range waiting {
			if !c.ended() || c.err != nil {
				t.Fatalf("call %d: ended %v, %v", i, c.ended(), c.err)
			}
			want := s.store.do(r.ops[i]).Get()
			if !proto.Equal((*pb.RangeResponse)(c.resp.Get()), (*pb.RangeResponse)(want)) {
				t.Errorf("call %d: %v, want %v", i, c.resp.Get(), want)
			}
		}
		if n := s.requests(); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

func TestASingleCallThatWaitedIsAPlainGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		c := get(t.Context(), kv, "a")
		free(t, s)
		if r := s.only(t); r.txn {
			t.Error("a transaction of one operation")
		}
		free(t, s)
		if !c.ended() || len(c.resp.Get().Kvs) != 1 {
			t.Errorf("ended %v with %v", c.ended(), c.resp.Get())
		}
	})
}

// A linearizable read shows what was there when it began. A request that has been sent may be older.
func TestACallDoesNotJoinARequestThatHasBeenSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		early := []*calling{get(t.Context(), kv, "a"), get(t.Context(), kv, "b")}
		free(t, s)
		sent := s.only(t)
		late := get(t.Context(), kv, "a")
		sent.succeed()
		if !early[0].ended() || !early[1].ended() {
			t.Fatal("early callers wait")
		}
		if late.ended() {
			t.Fatal("the late caller has an answer that was asked for before")
		}
		s.drain()
		if !late.ended() || late.err != nil {
			t.Errorf("late caller: %v", late.err)
		}
	})
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	for _, bound := range []int{1, 2, 5} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()
			kv := NewKV(s, WithInFlight(bound), WithMaxOps(3))
			var all []*calling
			for range 40 {
				all = append(all, get(t.Context(), kv, "a"))
			}
			for requests := s.pending(); len(requests) > 0; requests = s.pending() {
				if len(requests) > bound {
					t.Fatalf("%d requests under way, want at most %d", len(requests), bound)
				}
				for _, r := range requests {
					if len(r.ops) > 3 {
						t.Fatalf("%d operations, want at most 3", len(r.ops))
					}
				}
				requests[len(requests)-1].succeed()
			}
			for _, c := range all {
				if !c.ended() || c.err != nil {
					t.Fatalf("ended %v, %v", c.ended(), c.err)
				}
			}
		})
	}
}

func TestBytesOfARequestAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t, WithMaxBytes(1000))
		long := strings.Repeat("k", 400)
		for range 5 {
			get(t.Context(), kv, long)
		}
		for _, want := range []int{1, 2, 2, 1} {
			if r := s.only(t); len(r.ops) != want {
				t.Fatalf("%d operations, want %d", len(r.ops), want)
			}
			free(t, s)
		}
	})
}

// What is expected of responses follows what they are like: up at once, down little by little.
func TestBytesOfAResponseAreBoundedByExperience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t, WithMaxBytes(10_000))
		s.store.do(clientv3.OpPut("big", strings.Repeat("v", 4000)))
		s.drain()
		batch := func(key string, opts ...clientv3.OpOption) int {
			get(t.Context(), kv, "missing")
			for range 8 {
				get(t.Context(), kv, key, opts...)
			}
			free(t, s)
			n := len(s.only(t).ops)
			s.drain()
			return n
		}
		if n := batch("big"); n != 8 {
			t.Errorf("%d gets in a request, want 8: nothing has been seen of their values", n)
		}
		if n := batch("big"); n != 2 {
			t.Errorf("%d gets of 4000 bytes in a request, want 2 of 10000", n)
		}
		batch("a")
		if n := batch("a"); n > 3 {
			t.Errorf("%d gets in a request, want few: values may be large again", n)
		}
		batch("big")
		if n := batch("big", clientv3.WithCountOnly()); n != 8 {
			t.Errorf("%d counts in a request, want 8", n)
		}
		if n := batch("a", clientv3.WithPrefix(), clientv3.WithLimit(2)); n != 1 {
			t.Errorf("%d gets of two keys in a request, want 1", n)
		}
		for range 100 {
			batch("a")
		}
		if n := batch("a"); n != 8 {
			t.Errorf("%d gets of small values in a request, want 8", n)
		}
	})
}

func TestSerializableReadsAreKeptApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		get(t.Context(), kv, "y", clientv3.WithSerializable())
		if n := len(s.pending()); n != 2 {
			t.Fatalf("%d requests, want 2: a serializable read waits for no linearizable one", n)
		}
		for range 2 {
			get(t.Context(), kv, "a")
			get(t.Context(), kv, "b", clientv3.WithSerializable())
		}
		for _, r := range s.pending() {
			r.succeed()
		}
		requests := s.pending()
		if len(requests) != 2 {
			t.Fatalf("%d requests, want 2", len(requests))
		}
		for _, r := range requests {
			if r.keys() != "aa" && r.keys() != "bb" {
				t.Errorf("a request of %q", r.keys())
			}
			for _, op := range r.ops {
				if op.IsSerializable() != (r.keys() == "bb") {
					t.Errorf("a request of %q: serializable %v", r.keys(), op.IsSerializable())
				}
			}
		}
		s.drain()
	})
}

func TestCallsWithDifferentMetadataAreKeptApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type user struct{}
		type other struct{}
		s := newServer()
		kv := NewKV(s, WithInFlight(1), WithContextKeys(user{}))
		token := func(token string) context.Context {
			return metadata.AppendToOutgoingContext(t.Context(), "token", token, "Extra", "x")
		}
		contexts := map[string]context.Context{
			"a": t.Context(),
			"b": token("1"),
			"c": token("2"),
			"d": clientv3.WithRequireLeader(token("1")),
			"e": clientv3.WithRequireLeader(t.Context()),
			"f": context.WithValue(t.Context(), user{}, "f"),
			"g": context.WithValue(token("1"), user{}, "g"),
			"h": metadata.AppendToOutgoingContext(token("1"), "token", "2"),
		}
		var all []*calling
		for round := range 3 { // one that goes out at once, and two that wait
			for key, ctx := range contexts {
				all = append(all, get(context.WithValue(ctx, other{}, round), kv, key))
			}
		}
		for _, r := range s.pending() {
			r.succeed()
		}
		requests := s.pending()
		if len(requests) != len(contexts) {
			t.Fatalf("%d requests, want one for each of %d contexts", len(requests), len(contexts))
		}
		for _, r := range requests {
			key := r.keys()[:1]
			if r.keys() != key+key {
				t.Fatalf("a request of %q", r.keys())
			}
			want, _ := metadata.FromOutgoingContext(contexts[key])
			got, _ := metadata.FromOutgoingContext(r.ctx)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: metadata %v, want %v", key, got, want)
			}
			if got, want := r.ctx.Value(user{}), contexts[key].Value(user{}); got != want {
				t.Errorf("%s: value %v, want %v", key, got, want)
			}
			if r.ctx.Value(other{}) != nil {
				t.Errorf("%s: a value of one call in the request of two", key)
			}
		}
		s.drain()
		for _, c := range all {
			if !c.ended() || c.err != nil {
				t.Errorf("ended %v, %v", c.ended(), c.err)
			}
		}
		if n := len(kv.(*reader).merger.others); n != 0 {
			t.Errorf("%d groups are kept that nobody uses", n)
		}
	})
}

func TestCallsWithAValueThatCannotBeComparedGoOutByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type user struct{}
		s, kv, _ := busy(t, WithContextKeys(user{}))
		for range 2 {
			get(context.WithValue(t.Context(), user{}, []string{"a"}), kv, "a")
		}
		if n := len(s.pending()); n != 3 {
			t.Errorf("%d requests, want 3", n)
		}
		s.drain()
	})
}

func TestEqualMetadataHaveOneForm(t *testing.T) {
	tests := []struct {
		a, b  metadata.MD
		equal bool
	}{
		{metadata.MD{}, nil, true},
		{metadata.Pairs("k", "1", "l", "2"), metadata.Pairs("l", "2", "k", "1"), true},
		{metadata.Pairs("k", "1", "k", "2"), metadata.Pairs("k", "2", "k", "1"), false},
		{metadata.Pairs("k", "1"), metadata.Pairs("k", "1", "k", "1"), false},
		{metadata.Pairs("k", "1", "l", "2"), metadata.Pairs("k", `1"l"="2`), false},
		{metadata.Pairs("k", ""), metadata.MD{"k": nil}, false},
		{metadata.Pairs("k", "\xff"), metadata.Pairs("k", "\xfe"), false},
	}
	for _, tt := range tests {
		if got := canonical(tt.a) == canonical(tt.b); got != tt.equal {
			t.Errorf("%v and %v: equal %v, want %v", tt.a, tt.b, got, tt.equal)
		}
	}
}

func TestWhoGivesUpInTheQueueIsNotAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, first := busy(t)
		waiting := []*calling{get(t.Context(), kv, "a"), get(t.Context(), kv, "b"), get(t.Context(), kv, "c")}
		waiting[1].cancel()
		if !waiting[1].ended() || waiting[1].err != context.Canceled {
			t.Fatalf("ended %v, %v", waiting[1].ended(), waiting[1].err)
		}
		free(t, s)
		if r := s.only(t); r.keys() != "ac" {
			t.Errorf("asked for %q, want ac", r.keys())
		}
		s.drain()
		for _, c := range []*calling{first, waiting[0], waiting[2]} {
			if !c.ended() || c.err != nil {
				t.Errorf("ended %v, %v", c.ended(), c.err)
			}
		}
	})
}

func TestWhoGivesUpUnderWayDoesNotDisturbTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		waiting := []*calling{get(t.Context(), kv, "a"), get(t.Context(), kv, "b"), get(t.Context(), kv, "c")}
		free(t, s)
		r := s.only(t)
		waiting[0].cancel()
		if !waiting[0].ended() || waiting[0].err != context.Canceled {
			t.Fatalf("ended %v, %v", waiting[0].ended(), waiting[0].err)
		}
		if r.ctx.Err() != nil {
			t.Fatal("the request was cancelled under the others")
		}
		if _, limited := r.ctx.Deadline(); limited {
			t.Error("the request has a deadline")
		}
		r.succeed()
		for i, key := range []string{"b", "c"} {
			if c := waiting[i+1]; !c.ended() || c.err != nil || string(c.resp.Get().Kvs[0].Key) != key {
				t.Errorf("%s: ended %v, %v, %v", key, c.ended(), c.err, c.resp.Get())
			}
		}
	})
}

func TestARequestOfNobodyIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		waiting := []*calling{get(t.Context(), kv, "a"), get(t.Context(), kv, "b")}
		free(t, s)
		r := s.only(t)
		later := []*calling{get(t.Context(), kv, "c"), get(t.Context(), kv, "d")}
		for _, c := range waiting {
			c.cancel()
		}
		synctest.Wait()
		if r.ctx.Err() == nil {
			t.Error("the request goes on for nobody")
		}
		if r := s.only(t); r.keys() != "cd" {
			t.Errorf("asked for %q, want cd", r.keys())
		}
		s.drain()
		for _, c := range later {
			if !c.ended() || c.err != nil {
				t.Errorf("ended %v, %v", c.ended(), c.err)
			}
		}
	})
}

func TestTheSlotOfARefusedRequestOfNobodyIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		s.deaf = true
		a, b := get(t.Context(), kv, "a"), get(t.Context(), kv, "b")
		free(t, s)
		r := s.only(t)
		a.cancel()
		b.cancel()
		synctest.Wait()
		r.fail(rpctypes.ErrPermissionDenied)
		if c := get(t.Context(), kv, "c"); s.only(t).keys() != "c" || c.ended() {
			t.Error("the next call waits")
		}
		s.drain()
	})
}

func TestARefusedCallThatWasByItselfIsNotMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		c := get(t.Context(), kv, "a")
		free(t, s)
		s.only(t).fail(rpctypes.ErrPermissionDenied)
		if n := s.requests(); n != 2 || !c.ended() || c.err != rpctypes.ErrPermissionDenied {
			t.Errorf("%d requests, ended %v, %v", n, c.ended(), c.err)
		}
	})
}

func TestAContextThatHasEndedIsNotQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := kv.Get(ctx, "a"); err != context.Canceled {
			t.Errorf("error %v, want %v", err, context.Canceled)
		}
		s.drain()
		if n := s.requests(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// errorsOfOne are failures of a request that may be about one of its operations, or about their being together.
var errorsOfOne = []error{
	rpctypes.ErrPermissionDenied, rpctypes.ErrEmptyKey, rpctypes.ErrCompacted,
	status.Error(codes.ResourceExhausted, "grpc: received message larger than max (4194305 vs. 4194304)"),
	errors.New("says a decorator"), rpctypes.ErrRequestTooLarge,
}

func TestAnErrorOfOneOperationReachesItsCallerOnly(t *testing.T) {
	for _, failure := range errorsOfOne {
		synctest.Test(t, func(t *testing.T) {
			s, kv, _ := busy(t)
			waiting := []*calling{get(t.Context(), kv, "a"), get(t.Context(), kv, "b"), get(t.Context(), kv, "c")}
			gone := get(t.Context(), kv, "d")
			free(t, s)
			r := s.only(t)
			gone.cancel()
			synctest.Wait()
			r.fail(failure)
			alone := s.pending()
			if len(alone) != 3 {
				t.Fatalf("%d requests after the failure, want 3", len(alone))
			}
			next := get(t.Context(), kv, "d")
			for i, r := range alone {
				if r.txn {
					t.Fatalf("asked again in a transaction, of %q", r.keys())
				}
				if len(s.pending()) != len(alone)-i {
					t.Error("another request goes out before all of these have been answered")
				}
				if r.keys() == "b" {
					r.fail(failure)
				} else {
					r.succeed()
				}
			}
			for i, want := range []error{nil, failure, nil} {
				if c := waiting[i]; !c.ended() || c.err != want {
					t.Errorf("call %d: ended %v, %v; want %v", i, c.ended(), c.err, want)
				}
			}
			s.drain()
			if !next.ended() || next.err != nil {
				t.Errorf("the next call: ended %v, %v", next.ended(), next.err)
			}
			if c := get(t.Context(), kv, "a"); s.only(t).keys() != "a" || c.ended() {
				t.Error("the slot was not given back")
			}
			s.drain()
		})
	}
}

func TestAFailureOfTheClusterIsEverybodys(t *testing.T) {
	for _, failure := range []error{
		status.Error(codes.Unavailable, "connection lost"), rpctypes.ErrNoLeader, rpctypes.ErrTimeout,
		rpctypes.ErrInvalidAuthToken, rpctypes.ErrTooManyRequests, rpctypes.ErrCorrupt,
	} {
		synctest.Test(t, func(t *testing.T) {
			s, kv, _ := busy(t)
			waiting := []*calling{get(t.Context(), kv, "a"), get(t.Context(), kv, "b")}
			free(t, s)
			s.only(t).fail(failure)
			if n := len(s.pending()); n != 0 {
				t.Errorf("%v: %d requests after it", failure, n)
			}
			for _, c := range waiting {
				if !c.ended() || c.err != failure {
					t.Errorf("ended %v, %v; want %v", c.ended(), c.err, failure)
				}
			}
			s.drain()
		})
	}
}

func TestTheServersBoundOfOperationsIsLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		round := func(calls int) (refused int) {
			var all []*calling
			for i := range calls {
				all = append(all, get(t.Context(), kv, []string{"a", "b", "c", "d"}[i%4]))
			}
			for requests := s.pending(); len(requests) > 0; requests = s.pending() {
				for _, r := range requests {
					if len(r.ops) > 20 {
						refused++
						r.fail(rpctypes.ErrTooManyOps)
					} else {
						r.succeed()
					}
				}
			}
			for i, c := range all {
				if !c.ended() || c.err != nil || string(c.resp.Get().Kvs[0].Key) != []string{"a", "b", "c", "d"}[i%4] {
					t.Fatalf("call %d: ended %v, %v, %v", i, c.ended(), c.err, c.resp.Get())
				}
			}
			return refused
		}
		if n := round(200); n == 0 || n > 3 {
			t.Errorf("%d refusals, want 3 at most", n)
		}
		if n := round(200); n != 0 {
			t.Errorf("%d refusals once the bound is known", n)
		}
	})
}

// A caller may give up while its call is on its way back into the queue.
func TestACallOfARefusedRequestCanBeGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		a, b, c := get(t.Context(), kv, "a"), get(t.Context(), kv, "b"), get(t.Context(), kv, "c")
		free(t, s)
		r := s.only(t)
		a.cancel()
		synctest.Wait()
		r.fail(rpctypes.ErrTooManyOps)
		if r := s.only(t); r.keys() != "b" {
			t.Fatalf("asked for %q, want b", r.keys())
		}
		c.cancel()
		s.drain()
		if !b.ended() || b.err != nil || !c.ended() || c.err != context.Canceled {
			t.Errorf("b: %v, c: %v", b.err, c.err)
		}
	})
}

func TestWithABoundOfOneNothingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t, WithMaxOps(1))
		get(t.Context(), kv, "a")
		get(t.Context(), kv, "b")
		if n := len(s.pending()); n != 3 {
			t.Errorf("%d requests, want 3", n)
		}
		s.drain()
	})
}

func TestWhatIsNotMergedGoesThroughAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, kv, _ := busy(t)
		ops := map[string]clientv3.Op{
			"a range without a limit":   clientv3.OpGet("a", clientv3.WithPrefix()),
			"a count of a whole range":  clientv3.OpGet("a", clientv3.WithPrefix(), clientv3.WithCountOnly()),
			"a range with a high limit": clientv3.OpGet("a", clientv3.WithPrefix(), clientv3.WithLimit(MaxLimit+1)),
			"a sorted range":            clientv3.OpGet("a", clientv3.WithFirstRev()...),
			"a filtered range": clientv3.OpGet("a", clientv3.WithPrefix(), clientv3.WithLimit(1),
				clientv3.WithMinModRev(3)),
			"an old revision":     clientv3.OpGet("a", clientv3.WithRev(1)),
			"an empty key":        clientv3.OpGet(""),
			"an order nobody has": clientv3.OpGet("a", clientv3.WithSort(7, 7)),
			"a put":               clientv3.OpPut("a", "b"),
			"a deletion":          clientv3.OpDelete("a"),
		}
		before := s.requests()
		for name, op := range ops {
			begin(t.Context(), func(ctx context.Context) (clientv3.OpResponse, error) { return kv.Do(ctx, op) })
			if n := s.requests(); n != before+1 {
				t.Errorf("%s waits", name)
			}
			before = s.requests()
		}
		s.drain()
	})
}

func TestTheRestOfAKVIsPassedOn(t *testing.T) {
	inner := &stub.KV{}
	kv := NewKV(inner)
	ctx := t.Context()
	if _, err := kv.Put(ctx, "a", "b"); err != nil {
		t.Error(err)
	}
	if _, err := kv.Delete(ctx, "a"); err != nil {
		t.Error(err)
	}
	if _, err := kv.Txn(ctx).Then(clientv3.OpGet("a")).Commit(); err != nil {
		t.Error(err)
	}
	stream, err := kv.GetStream(ctx, "a", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for range stream {
	}
	ops := inner.Ops()
	if len(ops) != 4 || !ops[0].IsPut() || !ops[1].IsDelete() || !ops[2].IsTxn() || !ops[3].IsGet() {
		t.Errorf("operations %v", ops)
	}
	if _, err := kv.Compact(ctx, 7); err != nil || len(inner.Compacted()) != 1 {
		t.Errorf("compacted %v, %v", inner.Compacted(), err)
	}
}

func TestAnAnswerThatDoesNotFitIsAnError(t *testing.T) {
	for name, resp := range map[string]*pb.TxnResponse{
		"too few responses": {Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponseRange{}}}},
		"empty responses":   {Responses: []*pb.ResponseOp{{}, {Response: &pb.ResponseOp_ResponseRange{}}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, kv, _ := busy(t)
			waiting := []*calling{get(t.Context(), kv, "a"), get(t.Context(), kv, "b")}
			free(t, s)
			s.only(t).end(func() (clientv3.OpResponse, error) { return (*clientv3.TxnResponse)(resp).OpResponse(), nil })
			for _, r := range s.pending() { // those that ask again by themselves
				r.fail(errMisfit)
			}
			for _, c := range waiting {
				if !c.ended() || !errors.Is(c.err, errMisfit) {
					t.Errorf("%s: ended %v, %v", name, c.ended(), c.err)
				}
			}
			s.drain()
		})
	}
}
