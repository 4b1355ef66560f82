package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-d18e112a/clientv3"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func (t *tour) server(ctx context.Context) error {
	for _, ep := range t.cli.Endpoints() {
		status, err := t.cli.Status(ctx, ep)
		if err != nil {
			return err
		}
		say(ep, "etcd %s, member %x, revision %d", status.Version, status.Header.MemberId, status.Header.Revision)
	}
	return nil
}

func (t *tour) putAndGet(ctx context.Context) error {
	put, err := t.cli.Put(ctx, t.key("greeting"), "hello")
	if err != nil {
		return err
	}
	say(`put greeting = "hello"`, "revision %d", put.Header.Revision)

	put, err = t.cli.Put(ctx, t.key("greeting"), "hello, etcd", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	say(`put greeting = "hello, etcd"`, "revision %d, before: %q", put.Header.Revision, put.PrevKv.Value)

	get, err := t.cli.Get(ctx, t.key("greeting"))
	if err != nil {
		return err
	}
	kv := get.Kvs[0]
	say("get greeting", "%q, created at %d, modified at %d, version %d",
		kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version)

	get, err = t.cli.Get(ctx, t.key("nothing"))
	if err != nil {
		return err
	}
	say("get nothing", "%d keys: that a key does not exist is no error", len(get.Kvs))
	return nil
}

func (t *tour) ranges(ctx context.Context) error {
	for i, fruit := range []string{"cherry", "apple", "banana", "date"} {
		if _, err := t.cli.Put(ctx, t.key("fruit/"+fruit), fmt.Sprint(10-i)); err != nil {
			return err
		}
	}
	get, err := t.cli.Get(ctx, t.key("fruit/"), clientv3.WithPrefix())
	if err != nil {
		return err
	}
	say("get fruit/ by prefix", "%s", t.list(get))

	get, err = t.cli.Get(ctx, t.key("fruit/"), clientv3.WithPrefix(),
		clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(2))
	if err != nil {
		return err
	}
	say("… the two written last", "%s (of %d, more: %v)", t.list(get), get.Count, get.More)

	get, err = t.cli.Get(ctx, t.key("fruit/"), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	say("… only their number", "%d", get.Count)
	return nil
}

// list prints the keys and values of a response.
func (t *tour) list(get *clientv3.GetResponse) string {
	var s strings.Builder
	for _, kv := range get.Kvs {
		fmt.Fprintf(&s, "%s=%s ", t.name(kv.Key), kv.Value)
	}
	return s.String()
}

func (t *tour) revisions(ctx context.Context) error {
	first, err := t.cli.Put(ctx, t.key("counter"), "1")
	if err != nil {
		return err
	}
	if _, err := t.cli.Put(ctx, t.key("counter"), "2"); err != nil {
		return err
	}
	now, err := t.cli.Get(ctx, t.key("counter"))
	if err != nil {
		return err
	}
	say("get counter", "%s, at revision %d", now.Kvs[0].Value, now.Header.Revision)
	then, err := t.cli.Get(ctx, t.key("counter"), clientv3.WithRev(first.Header.Revision))
	if err != nil {
		return err
	}
	say(fmt.Sprintf("get counter as of revision %d", first.Header.Revision), "%s", then.Kvs[0].Value)
	return nil
}

func (t *tour) compareAndSwap(ctx context.Context) error {
	get, err := t.cli.Get(ctx, t.key("counter"))
	if err != nil {
		return err
	}
	seen := get.Kvs[0].ModRevision
	for attempt := 1; attempt <= 2; attempt++ {
		resp, err := t.cli.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(t.key("counter")), "=", seen)).
			Then(clientv3.OpPut(t.key("counter"), "3")).
			Else(clientv3.OpGet(t.key("counter"))).
			Commit()
		if err != nil {
			return err
		}
		step := fmt.Sprintf("if counter is as of revision %d, put 3", seen)
		if resp.Succeeded {
			say(step, "done, revision %d", resp.Header.Revision)
		} else {
			kv := resp.Responses[0].GetResponseRange().Kvs[0]
			say("… and once more", "refused: it is %s, as of revision %d", kv.Value, kv.ModRevision)
		}
	}
	return nil
}

func (t *tour) nested(ctx context.Context) error {
	resp, err := t.cli.Txn(ctx).
		If(clientv3.Compare(clientv3.Value(t.key("counter")), "=", "3")).
		Then(
			clientv3.OpPut(t.key("outer"), "written"),
			clientv3.OpTxn(
				[]clientv3.Cmp{clientv3.Compare(clientv3.Version(t.key("inner")), "=", 0)},
				[]clientv3.Op{clientv3.OpPut(t.key("inner"), "written")},
				nil),
		).
		Commit()
	if err != nil {
		return err
	}
	inner := resp.Responses[1].GetResponseTxn()
	say("if counter is 3, put; within, if none, put",
		"outer: %v, inner: %v, one revision: %d", resp.Succeeded, inner.Succeeded, resp.Header.Revision)
	return nil
}

func (t *tour) stream(ctx context.Context) error {
	const keys = 300
	for i := 0; i < keys; i += 100 {
		puts := make([]clientv3.Op, 100)
		for j := range puts {
			puts[j] = clientv3.OpPut(t.key(fmt.Sprintf("many/%04d", i+j)), "x")
		}
		if _, err := t.cli.Txn(ctx).Then(puts...).Commit(); err != nil {
			return err
		}
	}
	stream, err := t.cli.GetStream(ctx, t.key("many/"), clientv3.WithPrefix())
	if err != nil {
		return err
	}
	chunks, got := 0, 0
	for chunk := range stream {
		if err := chunk.Err(); err != nil {
			return err
		}
		chunks++
		got += len(chunk.Kvs)
	}
	say("get many/ as a stream", "%d keys in %d chunks", got, chunks)
	return nil
}

func (t *tour) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the watch
	events := t.cli.Watch(ctx, t.key("watched/"), clientv3.WithPrefix(), clientv3.WithPrevKV())
	say("watch watched/ by prefix", "from now on")

	if _, err := t.cli.Put(ctx, t.key("watched/a"), "1"); err != nil {
		return err
	}
	if _, err := t.cli.Put(ctx, t.key("watched/a"), "2"); err != nil {
		return err
	}
	if _, err := t.cli.Delete(ctx, t.key("watched/a")); err != nil {
		return err
	}
	for seen := 0; seen < 3; {
		resp, ok := <-events
		if !ok {
			return ctx.Err()
		}
		if err := resp.Err(); err != nil {
			return err
		}
		for _, ev := range resp.Events {
			seen++
			before := "nothing"
			if ev.PrevKv != nil {
				before = fmt.Sprintf("%q", ev.PrevKv.Value)
			}
			say(fmt.Sprintf("%s %s %q", ev.Type, t.name(ev.Kv.Key), ev.Kv.Value),
				"revision %d, before: %s", ev.Kv.ModRevision, before)
		}
	}
	return nil
}

func (t *tour) lease(ctx context.Context) error {
	lease, err := t.cli.Grant(ctx, 5)
	if err != nil {
		return err
	}
	if _, err := t.cli.Put(ctx, t.key("session"), "alive", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	say("grant a lease, attach the key session", "lease %x, %d s", lease.ID, lease.TTL)

	keepAliveCtx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the renewals
	renewals, err := t.cli.KeepAlive(keepAliveCtx, lease.ID)
	if err != nil {
		return err
	}
	renewed := <-renewals
	if renewed == nil {
		return errors.New("the lease was not renewed")
	}
	say("keep it alive", "renewed for %d s, and again every third of it", renewed.TTL)

	left, err := t.cli.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	say("ask for it", "%d s left, %d key attached", left.TTL, len(left.Keys))

	if _, err := t.cli.Revoke(ctx, lease.ID); err != nil {
		return err
	}
	get, err := t.cli.Get(ctx, t.key("session"))
	if err != nil {
		return err
	}
	say("revoke it", "the key session is gone: %v", len(get.Kvs) == 0)
	return nil
}

func (t *tour) errors(ctx context.Context) error {
	_, err := t.cli.Put(ctx, "", "a key must not be empty")
	say("put without a key", "%v (err == rpctypes.ErrEmptyKey: %v)", err, err == rpctypes.ErrEmptyKey)

	_, err = t.cli.Get(ctx, t.key("greeting"), clientv3.WithRev(1<<60))
	say("get at a revision to come", "%v (ErrFutureRev: %v)", err, errors.Is(err, rpctypes.ErrFutureRev))

	short, cancel := context.WithTimeout(ctx, time.Nanosecond)
	defer cancel()
	_, err = t.cli.Put(short, t.key("late"), "x")
	say("put with no time left", "%v (may have been applied: %v)", err, clientv3.MayHaveApplied(err))
	return nil
}

func (t *tour) deletePrefix(ctx context.Context) error {
	resp, err := t.cli.Delete(ctx, t.prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	say("delete everything below "+t.prefix, "%d keys, revision %d", resp.Deleted, resp.Header.Revision)
	return nil
}
