package concurrency

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"

	v3 "github.com/seed-d18e112a/clientv3"
)

// STM is a transaction under way: what NewSTM gives to the function it runs. It is for that function only, while it
// runs, and not safe for concurrent use.
type STM interface {
	// Get returns the value of the first of the keys, or "" if it does not exist, and reads the others too: what is read
	// in one call costs one request. What the transaction has written is what it gets.
	//
	// If reading fails the transaction is aborted: Get does not return, the function's deferred calls are made, and
	// NewSTM returns the error. There is no panic that the function could recover from.
	Get(key ...string) string
	// Put writes a key when the transaction is committed. The options are those of clientv3.OpPut, which panics on
	// others.
	Put(key, val string, opts ...v3.OpOption)
	// Rev returns the revision in which the key was last modified as it was read, which it is if need be, or 0 if it did
	// not exist. What the transaction has written does not count.
	Rev(key string) int64
	// Del deletes a key when the transaction is committed.
	Del(key string)

	sealed()
}

// RangeSTM is an STM that knows ranges of keys. Every STM is one, so a type assertion has always a success:
//
//	stm.(concurrency.RangeSTM).GetRange(prefix, clientv3.GetPrefixRangeEnd(prefix))
//
// A range that was read is protected from phantoms as a key is from changes, where the isolation level protects these:
// the transaction is not committed if a key has come up in it, was changed or deleted.
//
// Ends of ranges are those of clientv3.WithRange: the range is that of the keys from key up to, and without, end;
// "\x00" as end stands for no end, and "" for key alone. To etcd each key that is read, found in a range that is read,
// or written counts towards the number of operations that a transaction may have, by default 128.
type RangeSTM interface {
	STM

	// GetRange returns the keys of the range in order, with what the transaction has written. Of keys it has written
	// only Key and Value are of use. Nothing of what is returned may be changed. Errors are as with Get.
	GetRange(key, end string) []*mvccpb.KeyValue
	// DelRange deletes the keys of the range that are there when the transaction is committed, and those that the
	// transaction has written up to now.
	DelRange(key, end string)
}

// Isolation is how far a transaction is kept apart from others.
type Isolation int

const (
	// SerializableSnapshot, the default, is Serializable, and besides a transaction is not committed if a key that it
	// writes was changed since its first read.
	SerializableSnapshot Isolation = iota
	// Serializable means that all reads of an attempt are of the revision of its first one, and that it is committed
	// only if nothing of what it has read has changed since.
	Serializable
	// RepeatableReads means that reads of an attempt always return the same for a key, and that it is committed only if
	// nothing of what it has read has changed since. Different keys may be read in different revisions, so a function
	// can see what never was at one time; but it is run again then.
	RepeatableReads
	// ReadCommitted means that reads return what was committed at some time. Changes of it do not keep the transaction
	// from being committed.
	ReadCommitted
)

type stmOptions struct {
	level    Isolation
	ctx      context.Context // an option's value
	prefetch []string
}

// STMOption is an option of NewSTM.
type STMOption func(*stmOptions)

// WithIsolation sets the isolation level. The default is SerializableSnapshot. NewSTM panics on a level that there is
// not.
func WithIsolation(lvl Isolation) STMOption {
	return func(o *stmOptions) { o.level = lvl }
}

// WithAbortContext sets the context of the transaction, which ends its requests and the waits between its attempts. The
// default is the client's.
func WithAbortContext(ctx context.Context) STMOption {
	return func(o *stmOptions) { o.ctx = ctx }
}

// WithPrefetch reads the keys before each attempt, in one request. It is of use for keys that the function reads
// anyway.
func WithPrefetch(keys ...string) STMOption {
	return func(o *stmOptions) { o.prefetch = append(o.prefetch, keys...) }
}

// NewSTM runs apply, which reads and writes keys by an STM, and commits what it has written in one transaction. If
// others have changed meanwhile what the isolation level protects, apply is run again, after a wait that grows with
// each attempt; so apply should do nothing but what can be done again.
//
// An error of apply ends the transaction without a commit and is returned as it is. So is an error of a read, and of
// the commit; after the latter clientv3.MayHaveApplied tells whether the transaction may have been carried out all the
// same. The response is that of the commit.
//
// Apply is run in a goroutine of its own. A panic there becomes one of NewSTM.
func NewSTM(c *v3.Client, apply func(STM) error, so ...STMOption) (*v3.TxnResponse, error) {
	o := stmOptions{ctx: c.Ctx()}
	for _, opt := range so {
		opt(&o)
	}
	if o.level < SerializableSnapshot || o.level > ReadCommitted {
		panic("unsupported stm")
	}
	t := &attempts{client: c, options: o}
	for _, key := range o.prefetch {
		t.spans = append(t.spans, span{key: key})
	}
	for n := 0; ; n++ {
		resp, err := t.try(apply, n)
		if resp != nil || err != nil {
			return resp, err
		}
	}
}

// NewSTMRepeatable is NewSTM with RepeatableReads under the context.
//
// Deprecated: use NewSTM with WithIsolation and WithAbortContext.
func NewSTMRepeatable(ctx context.Context, c *v3.Client, apply func(STM) error) (*v3.TxnResponse, error) {
	return NewSTM(c, apply, WithAbortContext(ctx), WithIsolation(RepeatableReads))
}

// NewSTMSerializable is NewSTM with Serializable under the context.
//
// Deprecated: use NewSTM with WithIsolation and WithAbortContext.
func NewSTMSerializable(ctx context.Context, c *v3.Client, apply func(STM) error) (*v3.TxnResponse, error) {
	return NewSTM(c, apply, WithAbortContext(ctx), WithIsolation(Serializable))
}

// NewSTMReadCommitted is NewSTM with ReadCommitted under the context.
//
// Deprecated: use NewSTM with WithIsolation and WithAbortContext.
func NewSTMReadCommitted(ctx context.Context, c *v3.Client, apply func(STM) error) (*v3.TxnResponse, error) {
	return NewSTM(c, apply, WithAbortContext(ctx), WithIsolation(ReadCommitted))
}
