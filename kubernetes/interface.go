package kubernetes

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/seed-d18e112a/clientv3"
)

// Interface is what Kubernetes needs of etcd. Methods are safe for concurrent use; errors and retries are those of
// clientv3.KV. Reads are linearizable.
type Interface interface {
	// Get reads a key. That there is no such key is no error: the response has no KV.
	Get(ctx context.Context, key string, opts GetOptions) (GetResponse, error)

	// List reads the keys that begin with a prefix, in ascending order; the empty prefix is that of all keys. To read
	// page by page, set Limit, and for the following pages Revision to the first response's and Continue to the key
	// right after the last one of the page before: that key with a zero byte appended.
	List(ctx context.Context, prefix string, opts ListOptions) (ListResponse, error)

	// Count counts the keys that begin with a prefix; the empty prefix is that of all keys.
	Count(ctx context.Context, prefix string, opts CountOptions) (int64, error)

	// OptimisticPut writes a key if its mod revision is expectedRevision, which is 0 for a key that does not exist.
	// That it is another one is no error: the response has Succeeded false.
	OptimisticPut(ctx context.Context, key string, value []byte, expectedRevision int64, opts PutOptions,
	) (PutResponse, error)

	// OptimisticDelete deletes a key if its mod revision is expectedRevision. That it is another one is no error: the
	// response has Succeeded false.
	OptimisticDelete(ctx context.Context, key string, expectedRevision int64, opts DeleteOptions,
	) (DeleteResponse, error)
}

// GetOptions are the options of Get.
type GetOptions struct {
	// Revision is the revision to read at; 0 is the current one. If it is compacted the error is
	// rpctypes.ErrCompacted.
	Revision int64
}

// ListOptions are the options of List.
type ListOptions struct {
	// Revision is the revision to read at; 0 is the current one. If it is compacted the error is
	// rpctypes.ErrCompacted.
	Revision int64

	// Limit is the largest number of keys to return; 0 is no limit.
	Limit int64

	// Continue is the key to begin with, itself included, instead of the first with the prefix. It must begin with the
	// prefix. Empty is the beginning.
	Continue string
}

// CountOptions are the options of Count. There are none.
type CountOptions struct{}

// PutOptions are the options of OptimisticPut.
type PutOptions struct {
	// GetOnFailure makes the response have the key as it is, if it has changed.
	GetOnFailure bool

	// LeaseID is the lease to attach to the key. clientv3.NoLease, the default, attaches none.
	LeaseID clientv3.LeaseID
}

// DeleteOptions are the options of OptimisticDelete.
type DeleteOptions struct {
	// GetOnFailure makes the response have the key as it is, if it has changed.
	GetOnFailure bool
}

// GetResponse is the response to a Get.
type GetResponse struct {
	// KV is the key with its value; nil if it does not exist.
	KV *mvccpb.KeyValue

	// Revision is the store's revision when the key was read.
	Revision int64
}

// ListResponse is the response to a List.
type ListResponse struct {
	// Kvs are the keys with their values.
	Kvs []*mvccpb.KeyValue

	// Count is the number of keys from where the list begins to the end of the prefix, whatever the limit.
	Count int64

	// Revision is the store's revision when the keys were read. It is not that of the ListOptions.
	Revision int64
}

// PutResponse is the response to an OptimisticPut.
type PutResponse struct {
	// KV is the key as it is if it had changed and PutOptions.GetOnFailure was set; nil otherwise, and if the key does
	// not exist.
	KV *mvccpb.KeyValue

	// Succeeded tells whether the key was written.
	Succeeded bool

	// Revision is the store's revision after the operation: if it succeeded, the key's mod revision.
	Revision int64
}

// DeleteResponse is the response to an OptimisticDelete.
type DeleteResponse struct {
	// KV is the key as it is if it had changed and DeleteOptions.GetOnFailure was set; nil otherwise, and if the key
	// does not exist.
	KV *mvccpb.KeyValue

	// Succeeded tells whether the key was deleted. It is true for a key that did not exist and was expected not to.
	Succeeded bool

	// Revision is the store's revision after the operation.
	Revision int64
}
