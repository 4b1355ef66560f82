package retry

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Action is what to do about a failed attempt.
type Action uint8

const (
	// GiveUp returns the error: another attempt is not safe, or would fare no better.
	GiveUp Action = iota
	// Again makes another attempt, on another endpoint if there is one, after backoff and within the retry budget.
	Again
	// Reconnect makes another attempt once an endpoint is connected. The last one never left the client, so it put
	// no load on anyone and takes nothing from the budget.
	Reconnect
	// Reauthenticate makes another attempt with a fresh token.
	Reauthenticate
	// FindLeader makes another attempt at a member that has a leader.
	FindLeader
)

// proposalDropped is raft's refusal to take a proposal (raft.ErrProposalDropped), which the server passes on as it is.
const proposalDropped = "raft proposal dropped"

// Decide says what to do about err, with which an attempt of a call failed. Sent tells whether the request was handed
// to a connection. The caller's own context has not ended: that is the loop's to check first.
func Decide(kind Kind, sent bool, err error) Action {
	if Closing(err) {
		return GiveUp
	}
	if !sent {
		if status.Code(err) == codes.Unavailable {
			return Reconnect
		}
		return GiveUp
	}
	switch errorText(err) {
	case textInvalidToken, textOldRevision, textUserEmpty:
		// The token is checked before the proposal and once more, by its revision, before the entry is applied: a
		// refused write has changed nothing (server: AuthInfoFromCtx, authApplierV3). "User name is empty" is how
		// the server answers a call without a token.
		return Reauthenticate
	case textTooManyRequests:
		// Too many entries are waiting to be applied; checked before the proposal (processInternalRaftRequestOnce).
		return Again
	case textLearner:
		// A learner serves almost nothing, and says so before it looks at the request (newUnaryInterceptor).
		return Again
	case textNoLeader:
		// Said by the interceptor of require-leader calls, before it looks at the request.
		if kind == ForwardedWrite {
			return GiveUp
		}
		return FindLeader
	case proposalDropped:
		// This member's raft has not taken the entry. A leader that drops a forwarded entry says nothing at all.
		return Again
	}
	if kind == Read {
		switch status.Code(err) {
		case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
			// Lost connections, members that stop, elections, timeouts on the way to the leader, a server that gives
			// up while the caller has not: another endpoint, or this one a little later, may well do better, and a
			// read harms nobody.
			return Again
		}
	}
	// What is left may have reached raft, and a write must never be applied twice.
	return GiveUp
}

// Elsewhere reports whether err speaks of the member that answered rather than of the cluster: another endpoint can be
// tried at once, without backoff.
func Elsewhere(err error) bool {
	switch errorText(err) {
	case textLearner, textNoLeader, textStopped:
		return true
	case textTooManyRequests:
		return false
	}
	_, known := rpctypes.Error(err).(rpctypes.EtcdError)
	return !known
}

// FromLearner reports whether err is a learner's refusal to serve the call.
func FromLearner(err error) bool { return errorText(err) == textLearner }

// TimedOut reports whether err says that a server has waited in vain for the other members.
func TimedOut(err error) bool {
	switch errorText(err) {
	case textTimeout, textTimeoutLeader, textTimeoutConnection:
		return true
	}
	return false
}

// Closing reports whether err says that the client's own connection was closed under the call.
func Closing(err error) bool {
	return status.Code(err) == codes.Canceled && errorText(err) == textClosing
}

// MayHaveApplied reports whether a write that failed with err may have been, or may still be, applied. It is false
// only where the error proves that it was not: the request never left the client, or the server refused it before
// consensus or at apply. A bare context error proves nothing and counts as true; nil is false.
func MayHaveApplied(err error) bool {
	if err == nil {
		return false
	}
	if _, ok := errors.AsType[*UnsentError](err); ok {
		return false
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	if Closing(err) {
		// gRPC says this of a unary call only before it has a connection for it. A call that is under way when its
		// connection is closed fails as any other whose connection is lost.
		return false
	}
	text := errorText(err)
	switch text {
	case textNoLeader, textTooManyRequests, textUnhealthy, textNotEnoughStarted, proposalDropped:
		// Refused before the proposal. The codes of some of these say less than their text does.
		return false
	case textNoSpace:
		// Said of a request that is refused, and also of one that was carried out while the space ran out (quotaApplierV3).
		return true
	}
	switch code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition,
		codes.OutOfRange, codes.Unimplemented, codes.Unauthenticated, codes.DataLoss:
		// The server looked at the request and refused it; DataLoss is its alarm for a corrupt cluster, which
		// refuses every request at apply.
		return false
	case codes.ResourceExhausted:
		// A request over a size limit. But a response over the client's limit is the answer to a
		// request that was carried out.
		return strings.Contains(text, "received message")
	}
	return true
}

// UnsentError is the failure of a call whose request never left the client.
type UnsentError struct {
	Err error // what gRPC said
}

// Error returns the message of the failure.
func (e *UnsentError) Error() string { return e.Err.Error() }

// Unwrap returns what gRPC said.
func (e *UnsentError) Unwrap() error { return e.Err }

// GRPCStatus makes status.FromError find the status of the failure itself.
func (e *UnsentError) GRPCStatus() *status.Status { return status.Convert(e.Err) }

var (
	textInvalidToken      = rpctypes.ErrorDesc(rpctypes.ErrGRPCInvalidAuthToken)
	textOldRevision       = rpctypes.ErrorDesc(rpctypes.ErrGRPCAuthOldRevision)
	textUserEmpty         = rpctypes.ErrorDesc(rpctypes.ErrGRPCUserEmpty)
	textTooManyRequests   = rpctypes.ErrorDesc(rpctypes.ErrGRPCRequestTooManyRequests)
	textLearner           = rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner)
	textNoLeader          = rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader)
	textStopped           = rpctypes.ErrorDesc(rpctypes.ErrGRPCStopped)
	textUnhealthy         = rpctypes.ErrorDesc(rpctypes.ErrGRPCUnhealthy)
	textNotEnoughStarted  = rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberNotEnoughStarted)
	textTimeout           = rpctypes.ErrorDesc(rpctypes.ErrGRPCTimeout)
	textTimeoutLeader     = rpctypes.ErrorDesc(rpctypes.ErrGRPCTimeoutDueToLeaderFail)
	textTimeoutConnection = rpctypes.ErrorDesc(rpctypes.ErrGRPCTimeoutDueToConnectionLost)
	textNoSpace           = rpctypes.ErrorDesc(rpctypes.ErrGRPCNoSpace)
	textClosing           = "grpc: the client connection is closing"
)

// errorText returns the message of an error as the server sent it. Etcd's errors are told apart by it and not by
// their code: some are sent as Unknown (the server's toGRPCErrorMap).
func errorText(err error) string {
	if etcdErr, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return etcdErr.Error()
	}
	return rpctypes.ErrorDesc(err)
}

// code is status.Code, and knows the codes of etcd's errors too.
func code(err error) codes.Code {
	if etcdErr, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return etcdErr.Code()
	}
	return status.Code(err)
}
