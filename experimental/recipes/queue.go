package recipe

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	v3 "github.com/seed-d18e112a/clientv3"
)

// Queue is a queue of strings that many processes put in and take out: each is taken out once, in the order in which
// they were put in.
type Queue struct {
	client *v3.Client
	prefix string
}

// NewQueue returns the queue with the prefix. It does nothing yet.
func NewQueue(client *v3.Client, keyPrefix string) *Queue {
	return &Queue{client: client, prefix: keyPrefix}
}

// Enqueue puts in a value. If it fails, clientv3.MayHaveApplied tells whether the value may be in all the same.
func (q *Queue) Enqueue(val string) error {
	for {
		created, err := newKV(q.client, uniqueKey(q.prefix), val)
		if err != nil || created {
			return err
		}
	}
}

// Dequeue takes out the value that came first. If there is none it waits for one. If it fails, and
// clientv3.MayHaveApplied says so of the error, a value may have been taken out all the same, and is lost.
func (q *Queue) Dequeue() (string, error) {
	return dequeue(q.client, q.prefix+"/", v3.WithFirstRev())
}

// PriorityQueue is a Queue whose values come out in the order of their priorities: the lowest number first, and among
// equal ones what was put in first.
type PriorityQueue struct {
	client *v3.Client
	key    string
}

// NewPriorityQueue returns the queue with the key as its prefix. It does nothing yet.
func NewPriorityQueue(client *v3.Client, key string) *PriorityQueue {
	return &PriorityQueue{client: client, key: key}
}

// Enqueue puts in a value with a priority. If it fails, clientv3.MayHaveApplied tells whether the value may be in all
// the same.
func (q *PriorityQueue) Enqueue(val string, pr uint16) error {
	ctx := q.client.Ctx()
	prefix := fmt.Sprintf("%s/%05d", q.key, pr)
	// Values of one priority are numbered. Whoever takes a number writes this key, and only if nobody has since the last
	// number was read.
	numbered := "__" + prefix
	for attempt := 0; ; attempt++ {
		last, err := q.client.Get(ctx, prefix+"/", append(v3.WithLastKey(), v3.WithKeysOnly())...)
		if err != nil {
			return err
		}
		number := uint64(0)
		if len(last.Kvs) > 0 {
			digits := strings.TrimPrefix(string(last.Kvs[0].Key), prefix+"/")
			if number, err = strconv.ParseUint(digits, 10, 64); err != nil {
				return fmt.Errorf("recipe: a key of the queue has no number: %w", err)
			}
			number++
		}
		resp, err := q.client.Txn(ctx).
			If(v3.Compare(v3.ModRevision(numbered), "<", last.Header.Revision+1)).
			Then(v3.OpPut(numbered, ""), v3.OpPut(fmt.Sprintf("%s/%016d", prefix, number), val)).
			Commit()
		if err != nil || resp.Succeeded {
			return err
		}
		if err := pause(ctx, time.Millisecond, min(attempt, 5)); err != nil {
			return err
		}
	}
}

// Dequeue takes out the value with the lowest number as its priority that came first. If there is none it waits for
// one. Errors are as with Queue.Dequeue.
func (q *PriorityQueue) Dequeue() (string, error) {
	return dequeue(q.client, q.key+"/", v3.WithFirstKey())
}

// dequeue takes out the key with the prefix that the options choose, and returns its value.
func dequeue(client *v3.Client, prefix string, first []v3.OpOption) (string, error) {
	for {
		kv, err := awaitFirst(client, prefix, first)
		if err != nil {
			return "", err
		}
		key := string(kv.Key)
		resp, err := client.Txn(client.Ctx()).
			If(v3.Compare(v3.ModRevision(key), "=", kv.ModRevision)).
			Then(v3.OpDelete(key)).
			Commit()
		if err != nil {
			return "", err
		}
		if resp.Succeeded { // or else somebody else was faster
			return string(kv.Value), nil
		}
	}
}

// awaitFirst returns the key with the prefix that the options choose. If there is none it waits for one.
func awaitFirst(client *v3.Client, prefix string, first []v3.OpOption) (kv *mvccpb.KeyValue, err error) {
	err = until(client.Ctx(), client, func(ctx context.Context) (int64, []change, error) {
		resp, err := client.Get(ctx, prefix, first...)
		if err != nil {
			return 0, nil, err
		}
		if len(resp.Kvs) == 0 {
			return resp.Header.Revision, []change{putUnder(prefix)}, nil
		}
		kv = resp.Kvs[0]
		return 0, nil, nil
	})
	return kv, err
}
