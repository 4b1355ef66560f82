// Package mirror copies the keys with a prefix and keeps the copy up to date: first all keys as they are at one
// revision, then every change from there on, none missed and none twice.
//
//	syncer := mirror.NewSyncer(cli, "config/", 0)
//	pages, errs := syncer.SyncBase(ctx)
//	for page := range pages {
//		// store page.Kvs
//	}
//	if err := <-errs; err != nil {
//		return err
//	}
//	for resp := range syncer.SyncUpdates(ctx) {
//		if err := resp.Err(); err != nil {
//			return err
//		}
//		// apply resp.Events
//	}
//
// If the program is away for so long that the revision it has come to is compacted, SyncUpdates ends with
// rpctypes.ErrCompacted, and the copy has to be made anew by another Syncer.
package mirror

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/seed-d18e112a/clientv3"
)

// Syncer copies the keys with a prefix. Its methods are to be called one after the other.
type Syncer interface {
	// SyncBase reads all keys as they are at the Syncer's revision, page by page; if it has none yet, it takes the
	// current one before it returns. The pages are read as they are taken from the channel, no more than two ahead of
	// its reader. Their headers have the revision of the store when a page was read, which may be a later one.
	//
	// The first channel is closed after the last page, or when reading fails. The second then gives the error, if there
	// is one, and is closed. It must not be waited for before the first is read to its end. A reader that stops early
	// must end ctx.
	SyncBase(ctx context.Context) (<-chan *clientv3.GetResponse, chan error)

	// SyncUpdates watches all keys from the Syncer's revision on, without that itself. It panics if there is none yet:
	// SyncBase is to be called first. The channel is that of Watcher.Watch; the last response's Err says why it ends.
	SyncUpdates(ctx context.Context) clientv3.WatchChan
}

// NewSyncer returns a Syncer of the keys with the prefix, which may be empty for all keys. Rev is the revision to copy;
// 0 is the one that is current when SyncBase is called. With the revision of a copy that is there already, SyncUpdates
// can go on from it.
func NewSyncer(c *clientv3.Client, prefix string, rev int64) Syncer {
	return &syncer{client: c, prefix: prefix, rev: rev}
}

type syncer struct {
	client *clientv3.Client
	prefix string
	rev    int64
}

func (s *syncer) SyncBase(ctx context.Context) (<-chan *clientv3.GetResponse, chan error) {
	pages := make(chan *clientv3.GetResponse, 1)
	errs := make(chan error, 1)
	if err := s.fixRevision(ctx); err != nil {
		errs <- err
		close(errs)
		close(pages)
		return pages, errs
	}
	rev := s.rev
	go func() {
		defer close(pages)
		defer close(errs)
		if err := s.read(ctx, rev, pages); err != nil {
			errs <- err
		}
	}()
	return pages, errs
}

// fixRevision takes the current revision if there is none yet.
func (s *syncer) fixRevision(ctx context.Context) error {
	if s.rev != 0 {
		return nil
	}
	resp, err := s.client.Get(ctx, s.begin(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	s.rev = resp.Header.GetRevision()
	return nil
}

// begin returns the first key of the range.
func (s *syncer) begin() string {
	if s.prefix == "" {
		return "\x00"
	}
	return s.prefix
}

// How large pages are. The number of keys is adapted so that a page has about pageBytes.
const (
	firstPageKeys = 100
	maxPageKeys   = 1000
	pageBytes     = 1 << 20
)

// read reads all keys at the revision.
func (s *syncer) read(ctx context.Context, rev int64, pages chan<- *clientv3.GetResponse) error {
	from, end := s.begin(), clientv3.GetPrefixRangeEnd(s.prefix)
	for limit := firstPageKeys; ; {
		page, err := s.client.Get(ctx, from,
			clientv3.WithRange(end), clientv3.WithRev(rev), clientv3.WithLimit(int64(limit)))
		if err != nil {
			return err
		}
		select {
		case pages <- page:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !page.More || len(page.Kvs) == 0 {
			return nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		limit = nextLimit(limit, page.Kvs)
	}
}

// nextLimit adapts the number of keys of a page to the size of the one before.
func nextLimit(limit int, page []*mvccpb.KeyValue) int {
	size := 0
	for _, kv := range page {
		size += len(kv.Key) + len(kv.Value)
	}
	switch {
	case size < pageBytes/2:
		return min(limit*2, maxPageKeys)
	case size > pageBytes*2:
		return max(limit/2, 1)
	}
	return limit
}

func (s *syncer) SyncUpdates(ctx context.Context) clientv3.WatchChan {
	if s.rev == 0 {
		panic("unexpected revision = 0. Calling SyncUpdates before SyncBase finishes?")
	}
	return s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(s.rev+1))
}
