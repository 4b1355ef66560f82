package coalesce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
)

// forbidden is the part of keys that nobody may touch.
const forbidden = "forbidden"

// FuzzMergedCallsAreAsSeparateOnes has a crowd make random calls, with cancellations, refusals and failures among them,
// and holds what each is told against the history of the store: a read shows what a read by itself would have shown at a
// revision between its begin and its end; a write happens once if it has succeeded, never if its error says so, and
// once at most if its error leaves it open; writes of one key come in the order in which they were asked for.
func FuzzMergedCallsAreAsSeparateOnes(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { newCrowd(t, seed).run() })
	})
}

// crowd is many callers of one NewKV and one NewWriter.
type crowd struct {
	t      *testing.T
	random *rand.Rand // of the one goroutine that begins calls
	server *server
	kv     clientv3.KV
	writer *Writer
	maxOps int // the server's
	values int

	mu     sync.Mutex
	fates  map[string]fate     // of values
	writes map[string][]string // values, by key and metadata in the order in which they were asked for
}

// fate is what a caller knows of its put.
type fate int

const (
	happened fate = iota + 1
	open
	never
)

func newCrowd(t *testing.T, seed uint64) *crowd {
	random := rand.New(rand.NewPCG(seed, 0))
	opts := []Option{WithInFlight(1 + random.IntN(3)), WithMaxBytes(200 + random.IntN(3000))}
	s := newServer()
	return &crowd{
		t: t, random: random, server: s, kv: NewKV(s, opts...), writer: NewWriter(s, opts...),
		maxOps: 2 + random.IntN(20), fates: make(map[string]fate), writes: make(map[string][]string),
	}
}

func (c *crowd) run() {
	stop := make(chan struct{})
	var answering, calling sync.WaitGroup
	random := rand.New(rand.NewPCG(c.random.Uint64(), 1))
	answering.Go(func() { c.answer(random, stop) })
	for range 400 {
		ctx := c.t.Context()
		if c.random.IntN(4) == 0 {
			ctx = metadata.AppendToOutgoingContext(ctx, "token", "1")
		}
		cancel := func() {}
		if c.random.IntN(5) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(c.random.IntN(20))*time.Millisecond)
		}
		call, isWrite := c.draw(ctx)
		calling.Go(func() {
			defer cancel()
			call()
		})
		if isWrite || c.random.IntN(3) == 0 {
			synctest.Wait() // so that writes are asked for in the order in which they are drawn
		}
		if c.random.IntN(20) == 0 {
			time.Sleep(time.Duration(c.random.IntN(10)) * time.Millisecond)
		}
	}
	calling.Wait()
	close(stop)
	answering.Wait()
	c.check()
}

func (c *crowd) key() string {
	if c.random.IntN(60) == 0 {
		return forbidden
	}
	return string(rune('a' + c.random.IntN(6)))
}

// draw returns a random call, and whether it is a write.
func (c *crowd) draw(ctx context.Context) (call func(), isWrite bool) {
	key := c.key()
	switch n := c.random.IntN(12); {
	case n < 6:
		var opts []clientv3.OpOption
		for _, opt := range []clientv3.OpOption{
			clientv3.WithKeysOnly(), clientv3.WithCountOnly(), clientv3.WithSerializable(),
		} {
			if c.random.IntN(5) == 0 {
				opts = append(opts, opt)
			}
		}
		if c.random.IntN(3) == 0 {
			opts = append(opts, clientv3.WithRange(key+"z"), clientv3.WithLimit(int64(c.random.IntN(5))))
		}
		return func() { c.read(ctx, clientv3.OpGet(key, opts...)) }, false
	case n < 10:
		c.values++
		value := fmt.Sprint(c.values, strings.Repeat("v", c.random.IntN(100)))
		return func() { c.put(ctx, key, value) }, true
	case n < 11:
		return func() { _, _ = c.writer.Delete(ctx, key) }, true
	default:
		return func() { _, _ = c.writer.Delete(ctx, key, clientv3.WithRange(key+"z")) }, true
	}
}

func (c *crowd) revision() int64 {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return c.server.store.revision()
}

func (c *crowd) read(ctx context.Context, op clientv3.Op) {
	before := c.revision()
	resp, err := c.kv.Do(ctx, op)
	after := c.revision()
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	refused := touchesForbidden(op)
	switch {
	case err == nil && refused:
		c.t.Errorf("a forbidden read of %q succeeded", op.KeyBytes())
	case err == nil:
		got := resp.Get()
		rev := got.Header.GetRevision()
		if rev < before || rev > after {
			c.t.Errorf("read at revision %d, want one from %d to %d", rev, before, after)
			return
		}
		past := &store{states: c.server.store.states[:rev+1]}
		if want := past.do(op).Get(); !proto.Equal((*pb.RangeResponse)(got), (*pb.RangeResponse)(want)) {
			c.t.Errorf("read of %q: %v, want %v", op.KeyBytes(), got, want)
		}
	case err == rpctypes.ErrPermissionDenied:
		if !refused {
			c.t.Errorf("a read of %q was refused with others", op.KeyBytes())
		}
	case err == ctx.Err() || status.Code(err) == codes.Unavailable:
	default:
		c.t.Errorf("read of %q: %v", op.KeyBytes(), err)
	}
}

func (c *crowd) put(ctx context.Context, key, value string) {
	md, _ := metadata.FromOutgoingContext(ctx)
	order := fmt.Sprint(key, len(md))
	c.mu.Lock()
	c.writes[order] = append(c.writes[order], value)
	c.mu.Unlock()
	resp, err := c.writer.Put(ctx, key, value)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.fates[value] = happened
		c.server.mu.Lock()
		kv := c.server.store.states[resp.Header.Revision][key]
		c.server.mu.Unlock()
		if string(kv.GetValue()) != value {
			c.t.Errorf("put of %q: not there at its revision %d, but %v", key, resp.Header.Revision, kv)
		}
	case clientv3.MayHaveApplied(err):
		c.fates[value] = open
		if err != ctx.Err() && status.Code(err) != codes.Unavailable {
			c.t.Errorf("put of %q: %v", key, err)
		}
	default:
		c.fates[value] = never
		if !errors.Is(err, rpctypes.ErrPermissionDenied) && (ctx.Err() == nil || !errors.Is(err, ctx.Err())) {
			c.t.Errorf("put of %q: %v", key, err)
		}
	}
	if (err == rpctypes.ErrPermissionDenied) != (key == forbidden) && (err == nil || err == rpctypes.ErrPermissionDenied) {
		c.t.Errorf("put of %q: %v", key, err)
	}
}

func touchesForbidden(op clientv3.Op) bool {
	key, end := string(op.KeyBytes()), string(op.RangeBytes())
	return key == forbidden || key <= forbidden && end > forbidden
}

// answer is the server: it answers requests in any order, late or never while it stays.
func (c *crowd) answer(random *rand.Rand, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(random.IntN(3)) * time.Millisecond):
		}
		c.server.mu.Lock()
		open := slices.Clone(c.server.open)
		c.server.mu.Unlock()
		for _, i := range random.Perm(len(open)) {
			if random.IntN(3) > 0 {
				c.answerOne(random, open[i])
			}
		}
	}
}

func (c *crowd) answerOne(random *rand.Rand, r *request) {
	if r.ctx.Err() != nil {
		return // given up, and gone
	}
	c.distinct(r)
	switch {
	case len(r.ops) > c.maxOps:
		r.fail(rpctypes.ErrTooManyOps)
	case slices.ContainsFunc(r.ops, touchesForbidden):
		r.fail(rpctypes.ErrPermissionDenied)
	case random.IntN(15) == 0:
		r.fail(status.Error(codes.Unavailable, "before it was done"))
	case random.IntN(15) == 0:
		r.s.mu.Lock()
		r.s.store.txn(r.ops)
		r.s.mu.Unlock()
		r.fail(status.Error(codes.Unavailable, "after it was done"))
	default:
		r.succeed()
	}
}

// distinct checks what a server refuses.
func (c *crowd) distinct(r *request) {
	written := make(map[string]bool)
	for _, op := range r.ops {
		if len(r.ops) > 1 && op.IsDelete() && op.RangeBytes() != nil {
			c.t.Error("the deletion of a range is in a request with others")
		}
		if !op.IsGet() && written[string(op.KeyBytes())] {
			c.t.Errorf("%q is twice in one request", op.KeyBytes())
		}
		written[string(op.KeyBytes())] = true
	}
}

// check holds the history against what the callers know.
func (c *crowd) check() {
	times := make(map[string]int)
	at := make(map[string]int)
	for rev, state := range c.server.store.states {
		for _, kv := range state {
			if kv.ModRevision == int64(rev) {
				times[string(kv.Value)]++
				at[string(kv.Value)] = rev
			}
		}
	}
	for value, fate := range c.fates {
		switch n := times[value]; {
		case n > 1, fate == happened && n == 0, fate == never && n > 0:
			c.t.Errorf("a put of %q has happened %d times, and its caller was told %d", value, n, fate)
		}
	}
	for order, values := range c.writes {
		last := 0
		for _, value := range values {
			if c.fates[value] != happened {
				continue
			}
			if at[value] < last {
				c.t.Errorf("%s: a write has passed one that was asked for before it", order)
			}
			last = at[value]
		}
	}
}
