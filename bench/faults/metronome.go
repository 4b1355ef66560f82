package main

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3/etcdtest"
)

const (
	beatPrefix  = "beat/"
	beatEnd     = "beat0"
	beatEvery   = 20 * time.Millisecond
	beatTimeout = 500 * time.Millisecond
)

// metronome writes a new key all the time, by no client but straight to a member that no fault hits. So what a watch sees
// does not hang on how well its own client's writes go, and a pause in it that the metronome has not is the watch's.
type metronome struct {
	conn  *grpc.ClientConn
	kv    pb.KVClient
	lease pb.LeaseClient
	wrote []time.Time
}

func newMetronome(m *etcdtest.Member) (*metronome, error) {
	conn, err := m.Dial()
	if err != nil {
		return nil, err
	}
	return &metronome{conn: conn, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn)}, nil
}

func (m *metronome) close() { _ = m.conn.Close() }

// run writes until ctx ends. A write that fails may have happened: what counts is what is there in the end.
func (m *metronome) run(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		writing, cancel := context.WithTimeout(ctx, beatTimeout)
		_, err := m.kv.Put(writing, &pb.PutRequest{Key: fmt.Appendf(nil, "%s%06d", beatPrefix, n)})
		cancel()
		if err == nil {
			m.wrote = append(m.wrote, time.Now())
		}
	}
}

// revision returns the store's revision.
func (m *metronome) revision(ctx context.Context) (int64, error) {
	resp, err := m.kv.Range(ctx, &pb.RangeRequest{Key: []byte(beatPrefix)})
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

// last writes a key that comes after all others, and returns all that were written.
func (m *metronome) last(ctx context.Context) ([]string, error) {
	if _, err := m.kv.Put(ctx, &pb.PutRequest{Key: []byte(lastBeat)}); err != nil {
		return nil, err
	}
	resp, err := m.kv.Range(ctx, &pb.RangeRequest{
		Key: []byte(beatPrefix), RangeEnd: []byte(beatEnd), KeysOnly: true,
		SortTarget: pb.RangeRequest_MOD, SortOrder: pb.RangeRequest_ASCEND,
	})
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys, nil
}

// lastBeat is the key that ends the metronome's run.
const lastBeat = beatPrefix + "last"

// alive reports whether the lease has not expired.
func (m *metronome) alive(ctx context.Context, lease int64) (bool, error) {
	resp, err := m.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease})
	if err != nil {
		return false, err
	}
	return resp.TTL > 0, nil
}
