package watchstream

import (
	"errors"
	"io"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrClosed is the Err of the last response of watchers that Engine.Close ended, and of those opened afterwards.
var ErrClosed = errors.New("etcd client: watcher closed")

// errCreateRejected ends a stream whose transport refused to send one create. The watcher is gone, the others resume.
var errCreateRejected = errors.New("watchstream: a create request could not be sent")

// errTokenRefused ends a stream on which the server refused a create for its token, which belongs to the stream.
var errTokenRefused = errors.New("watchstream: the stream's auth token was refused")

// verdict is what the end of a stream means for its watchers.
type verdict int

const (
	transient       verdict = iota // the stream may come back: reopen it, and the watchers where they were
	leaderless                     // the member has no leader: others may
	unauthenticated                // the token is not valid: get another
	fatal                          // the same would happen again: the watchers end with the error
)

// judge tells what the error that ended a stream means. Unavailable and Internal are what etcd and gRPC answer when
// something will be right again: a member stops, a connection breaks, a frame is malformed. Most other codes are an
// opinion about the request, which would be the same the next time; the exceptions are those below.
func judge(err error) verdict {
	if errors.Is(err, errTokenRefused) {
		return unauthenticated
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errCreateRejected) {
		return transient
	}
	code, desc := describe(err)
	switch desc {
	case rpctypes.ErrNoLeader.Error():
		return leaderless
	case rpctypes.ErrInvalidAuthToken.Error(), rpctypes.ErrAuthOldRevision.Error(), rpctypes.ErrUserEmpty.Error():
		return unauthenticated
	case rpctypes.ErrorDesc(rpctypes.ErrGRPCWatchCanceled):
		// The server's end of the stream was cancelled, and not by this one, whose context is alive.
		return transient
	case rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner):
		return transient // the next stream may meet a voting member
	}
	switch code {
	case codes.Unavailable, codes.Internal:
		return transient
	case codes.Unauthenticated:
		return unauthenticated
	case codes.Canceled:
		// A proxy in between that resets the stream reads as Canceled too, by gRPC's mapping of HTTP/2 error codes.
		// What is left is the closing of the connection by its owner.
		if strings.Contains(desc, "RST_STREAM") {
			return transient
		}
	}
	return fatal
}

// describe returns the code and text of an error in either of etcd's forms, gRPC status or rpctypes.EtcdError.
func describe(err error) (codes.Code, string) {
	if known, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return known.Code(), known.Error()
	}
	return status.Code(err), rpctypes.ErrorDesc(err)
}

// reasonError returns the rpctypes error that a cancel reason names, or nil when it names none. Servers give reasons
// as the text of either form: "etcdserver: …" or "rpc error: code = PermissionDenied desc = etcdserver: …".
func reasonError(reason string) error {
	if _, desc, ok := strings.Cut(reason, " desc = "); ok && strings.HasPrefix(reason, "rpc error: code = ") {
		reason = desc
	}
	var known rpctypes.EtcdError
	if err := rpctypes.Error(errors.New(reason)); errors.As(err, &known) {
		return known
	}
	return nil
}
