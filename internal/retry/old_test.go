package retry

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestBareRefusalsOfOldServers(t *testing.T) {
	for text, want := range map[string]struct {
		err    error
		action Action
	}{
		"auth: invalid auth token":        {rpctypes.ErrInvalidAuthToken, Reauthenticate},
		"auth: revision in header is old": {rpctypes.ErrAuthOldRevision, Reauthenticate},
		"auth: user name is empty":        {rpctypes.ErrUserEmpty, Reauthenticate},
		"auth: permission denied":         {rpctypes.ErrPermissionDenied, GiveUp},
	} {
		sent := status.Error(codes.Unknown, text)
		if !MayHaveApplied(sent) {
			t.Errorf("%s: known by itself", text)
		}
		err := Canonical(sent)
		if got := rpctypes.Error(err); got != want.err || MayHaveApplied(err) || MayHaveApplied(got) { //nolint:errorlint // identity
			t.Errorf("%s: %v, want %v, which says that nothing was applied", text, got, want.err)
		}
		if got := Decide(Write, true, err); got != want.action {
			t.Errorf("%s: action %v, want %v", text, got, want.action)
		}
	}
	for _, err := range []error{
		nil, errors.New("auth: permission denied"), status.Error(codes.Unknown, "permission denied"),
		status.Error(codes.Unavailable, "auth: permission denied"), rpctypes.ErrGRPCInvalidAuthToken,
	} {
		if got := Canonical(err); got != err { //nolint:errorlint // identity
			t.Errorf("%v became %v", err, got)
		}
	}
}

func TestEndsOfContextsOfOldServers(t *testing.T) {
	for _, ended := range []error{context.DeadlineExceeded, context.Canceled} {
		want := status.FromContextError(ended)
		err := Canonical(status.Error(codes.Unknown, ended.Error()))
		if got := status.Convert(err); got.Code() != want.Code() || got.Message() != want.Message() {
			t.Errorf("%v, want %v", got, want)
		}
		if !MayHaveApplied(err) {
			t.Errorf("%v: it may have been applied", err)
		}
	}
}
