package linearizability

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/seed-d18e112a/clientv3"
)

// The search for an order takes time that grows with the number of calls that overlap, of which one without a known
// outcome overlaps all that follow. So a group is left for a new one after so many calls, or so many such.
const (
	slots       = 3
	groupCalls  = 200
	groupOpen   = 5
	callers     = 9
	callTimeout = 2 * time.Second
	callPause   = 8 * time.Millisecond // on average
)

// groups hands out groups of keys.
type groups struct {
	mu      sync.Mutex
	current [slots]*group
	made    int
}

// group is a few keys with a common prefix.
type group struct {
	prefix      string
	seen        [keys]atomic.Int64 // a value that a key had a moment ago, for conditions that may hold
	calls, open int                // guarded by groups.mu
}

// pick returns the group of the slot.
func (g *groups) pick(slot int) *group {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.current[slot]
	if now == nil || now.calls >= groupCalls || now.open >= groupOpen {
		g.made++
		now = &group{prefix: fmt.Sprintf("%s%d/%d/", prefix, slot, g.made)}
		g.current[slot] = now
	}
	now.calls++
	return now
}

// unknown counts a call of the group that may have been applied.
func (g *groups) unknown(of *group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	of.open++
}

// store is what a caller makes its calls on.
type store struct {
	clientv3.KV
	writer // of puts and deletions outside of transactions
}

type writer interface {
	Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error)
	Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error)
}

// caller makes calls, and records them.
type caller struct {
	id      int
	store   store
	pause   time.Duration // between calls, on average
	random  *rand.Rand
	groups  *groups
	started time.Time
	values  *atomic.Int64 // the last value that anybody has written

	records    []record
	impossible []error
}

func (c *caller) run(ctx context.Context) {
	for ctx.Err() == nil {
		c.call(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(c.random.Int64N(int64(2 * c.pause)))):
		}
	}
}

func (c *caller) call(ctx context.Context) {
	g := c.groups.pick(c.random.IntN(slots))
	r := record{Caller: c.id, Op: c.draw(g)}
	timeout := callTimeout
	if c.random.IntN(50) == 0 {
		timeout = time.Duration(c.random.Int64N(int64(5 * time.Millisecond))) // so that many are given up on the way
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r.Call = time.Since(c.started)
	out, err := do(ctx, c.store, r.Op)
	r.Return = time.Since(c.started)
	r.Outcome = out
	switch {
	case errors.Is(err, errResult):
		c.impossible = append(c.impossible, err)
		return
	case err == nil:
		for i, concerned := range r.Op.Keys {
			switch {
			case concerned && r.Op.Write && out.Held:
				g.seen[i].Store(r.Op.New[i])
			case concerned:
				g.seen[i].Store(out.Old[i])
			}
		}
	default:
		r.Err = err.Error()
		if r.Op.Write && clientv3.MayHaveApplied(err) {
			r.MayHaveApplied = true
			c.groups.unknown(g)
		}
	}
	c.records = append(c.records, r)
}

// draw returns a random call on the group.
func (c *caller) draw(g *group) op {
	one := c.random.IntN(keys)
	o := op{Group: g.prefix, Guard: -1}
	o.Keys[one] = true
	all := func() {
		for i := range o.Keys {
			o.Keys[i] = true
		}
	}
	write := func() {
		o.Write = true
		for i, concerned := range o.Keys {
			if concerned {
				o.New[i] = c.values.Add(1)
			}
		}
	}
	switch n := c.random.IntN(20); {
	case n < 6:
		o.Kind = "get"
	case n < 8:
		o.Kind = "range"
		all()
	case n < 12:
		o.Kind = "put"
		write()
	case n < 13:
		o.Kind, o.Write = "delete", true
	case n < 14:
		o.Kind, o.Write = "delete range", true
		all()
	default:
		o.Kind = "txn"
		if n > 17 {
			all()
		}
		write()
		if n == 19 {
			o.New[one] = 0
		}
		o.Guard = c.random.IntN(keys)
		o.Expect = g.seen[o.Guard].Load()
	}
	return o
}

// do makes the call.
func do(ctx context.Context, s store, o op) (out outcome, err error) {
	one := 0
	for i, concerned := range o.Keys {
		if concerned {
			one = i
		}
	}
	out.Held = true
	switch o.Kind {
	case "get":
		resp, err := s.Get(ctx, keyOf(o.Group, one))
		if err != nil {
			return outcome{}, err
		}
		out.Revision = resp.Header.Revision
		err = out.add(o, resp.Kvs...)
		return out, err
	case "range":
		resp, err := s.Get(ctx, o.Group, clientv3.WithPrefix(), clientv3.WithLimit(10*keys))
		if err != nil {
			return outcome{}, err
		}
		out.Revision = resp.Header.Revision
		err = out.add(o, resp.Kvs...)
		return out, err
	case "put":
		resp, err := s.writer.Put(ctx, keyOf(o.Group, one), strconv.FormatInt(o.New[one], 10), clientv3.WithPrevKV())
		if err != nil {
			return outcome{}, err
		}
		out.Revision = resp.Header.Revision
		err = out.add(o, resp.PrevKv)
		return out, err
	case "delete", "delete range":
		key, opts := keyOf(o.Group, one), []clientv3.OpOption{clientv3.WithPrevKV()}
		if o.Kind == "delete range" {
			key, opts = o.Group, append(opts, clientv3.WithPrefix())
		}
		resp, err := s.writer.Delete(ctx, key, opts...)
		if err != nil {
			return outcome{}, err
		}
		out.Revision = resp.Header.Revision
		err = out.add(o, resp.PrevKvs...)
		return out, err
	default:
		return transact(ctx, s, o)
	}
}

// transact makes the call as a transaction.
func transact(ctx context.Context, s store, o op) (outcome, error) {
	var then, otherwise []clientv3.Op
	for i, concerned := range o.Keys {
		key := keyOf(o.Group, i)
		switch {
		case !concerned:
			continue
		case o.New[i] == 0:
			then = append(then, clientv3.OpDelete(key, clientv3.WithPrevKV()))
		default:
			then = append(then, clientv3.OpPut(key, strconv.FormatInt(o.New[i], 10), clientv3.WithPrevKV()))
		}
		otherwise = append(otherwise, clientv3.OpGet(key))
	}
	guard := keyOf(o.Group, o.Guard)
	condition := clientv3.Compare(clientv3.Value(guard), "=", strconv.FormatInt(o.Expect, 10))
	if o.Expect == 0 {
		condition = clientv3.Compare(clientv3.CreateRevision(guard), "=", 0)
	}
	resp, err := s.Txn(ctx).If(condition).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return outcome{}, err
	}
	out := outcome{Held: resp.Succeeded, Revision: resp.Header.Revision}
	for _, r := range resp.Responses {
		kvs := append(r.GetResponseRange().GetKvs(), r.GetResponseDeleteRange().GetPrevKvs()...)
		if err := out.add(o, append(kvs, r.GetResponsePut().GetPrevKv())...); err != nil {
			return outcome{}, err
		}
	}
	return out, nil
}

// errResult is a response that no order can explain.
var errResult = errors.New("impossible result")

// add takes over what a response says of keys. A nil key-value says nothing.
func (out *outcome) add(o op, kvs ...*mvccpb.KeyValue) error {
	for _, kv := range kvs {
		if kv == nil {
			continue
		}
		value, err := strconv.ParseInt(string(kv.Value), 10, 64)
		if err != nil {
			return fmt.Errorf("%w: a value that nobody wrote: %v", errResult, kv)
		}
		known := false
		for i, concerned := range o.Keys {
			if concerned && string(kv.Key) == keyOf(o.Group, i) {
				known, out.Old[i] = true, value
			}
		}
		if !known {
			return fmt.Errorf("%w: a key that was not asked for: %v", errResult, kv)
		}
	}
	return nil
}
