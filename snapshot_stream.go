package clientv3

import (
	"context"
	"errors"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// SnapshotResponse is a snapshot of a member's database, to be read from Snapshot and closed there.
type SnapshotResponse struct {
	// Header is the header of the stream's first message; servers may leave it out.
	Header *pb.ResponseHeader
	// Snapshot is the database, followed by its SHA-256 sum.
	Snapshot io.ReadCloser
	// Version is the version of the database, such as "3.6.0"; empty from servers before 3.6.
	Version string
	// Size is the number of bytes that Snapshot has in all: the database, by the stream's first message, and its sum.
	Size int64
}

func (m *maintenance) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	resp, err := m.SnapshotWithVersion(ctx)
	if err != nil {
		return nil, err
	}
	return resp.Snapshot, nil
}

func (m *maintenance) SnapshotWithVersion(ctx context.Context) (*SnapshotResponse, error) {
	streamCtx, cancel := context.WithCancel(ctx)
	var (
		stream pb.Maintenance_SnapshotClient
		first  *pb.SnapshotResponse
	)
	open := func(ctx context.Context) (err error) {
		if stream, err = m.remote.Snapshot(ctx, &pb.SnapshotRequest{}, m.callOpts...); err != nil {
			return err
		}
		first, err = stream.Recv()
		return err
	}
	// Until the first message has come, another member may be asked: what comes is of one database.
	if err := m.client.retryStream(streamCtx, pb.Maintenance_Snapshot_FullMethodName, false, open); err != nil {
		cancel()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, ContextError(ctx, err)
	}
	r := &snapshotReader{ctx: ctx, cancel: cancel, stream: stream}
	r.take(first)
	r.total = first.GetRemainingBytes() + uint64(len(first.GetBlob()))
	return &SnapshotResponse{
		Header: first.GetHeader(), Snapshot: r, Version: first.GetVersion(), Size: int64(r.total + sha256Size),
	}, nil
}

// sha256Size is the length of the sum that follows the database.
const sha256Size = 32

// snapshotReader reads a snapshot as it arrives. It needs no goroutine: a message is received when its bytes are asked
// for.
type snapshotReader struct {
	ctx    context.Context //nolint:containedctx // the caller's, to tell its end from other errors
	cancel context.CancelFunc
	stream pb.Maintenance_SnapshotClient

	chunk    []byte // received and not yet read
	received uint64 // bytes of all messages
	total    uint64 // size of the database, by the first message
	err      error  // why nothing more will come
}

func (r *snapshotReader) take(resp *pb.SnapshotResponse) {
	r.chunk = resp.GetBlob()
	r.received += uint64(len(r.chunk))
}

// Read reads the next bytes. At the end it returns io.EOF only if the whole database and its sum have come.
func (r *snapshotReader) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 && len(p) > 0 {
		if r.err != nil {
			return 0, r.err
		}
		resp, err := r.stream.Recv()
		if err != nil {
			r.err = r.ending(err)
			continue
		}
		r.take(resp)
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

// ending turns the error that ended the stream into the one to return.
func (r *snapshotReader) ending(err error) error {
	if !errors.Is(err, io.EOF) {
		awaitDeadline(r.ctx, err)
		return ContextError(r.ctx, err)
	}
	if r.received != r.total+sha256Size {
		return fmt.Errorf("etcdclient: snapshot ended after %d bytes of %d: %w",
			r.received, r.total+sha256Size, io.ErrUnexpectedEOF)
	}
	return io.EOF
}

// Close ends the stream. Bytes not yet read are lost.
func (r *snapshotReader) Close() error {
	r.cancel()
	return nil
}
