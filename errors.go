package clientv3

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3/internal/retry"
)

var (
	// ErrNoAvailableEndpoints is what New returns without endpoints.
	ErrNoAvailableEndpoints = errors.New("etcdclient: no available endpoints")
	// ErrOldCluster is what New returns with Config.RejectOldCluster if a member is too old.
	ErrOldCluster = errors.New("etcdclient: old cluster version")
	// ErrMutuallyExclusiveCfg is what New returns if the configuration has a token and a user name or password.
	ErrMutuallyExclusiveCfg = errors.New("Username/Password and Token configurations are mutually exclusive")
)

// ContextError turns the error of a call into what callers of this package see. An error that etcd sent becomes its
// value in package rpctypes. An error that is there because ctx ended becomes ctx.Err(). Any other is returned as it
// is, nil too.
func ContextError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	err = rpctypes.Error(err)
	if _, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return err
	}
	switch status.Code(err) {
	case codes.DeadlineExceeded, codes.Canceled:
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

// MayHaveApplied reports whether a write that failed with err may have been applied all the same, or may still be: the
// request was on its way when the connection, the member or the caller's patience ended. It is false for nil, and
// where the error proves that the write was not applied and never will be: it did not leave the client, or the server
// refused it. Only then is it safe to do the same write again without looking.
//
// A bare context error counts as true, since it says nothing of how far the call had come.
func MayHaveApplied(err error) bool { return retry.MayHaveApplied(err) }

// IsConnCanceled reports whether err is that of a call whose context was cancelled, or whose client or connection was
// closed under it.
func IsConnCanceled(err error) bool {
	if err == nil {
		return false
	}
	if errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "grpc: the client connection is closing") {
		return true
	}
	s, ok := status.FromError(err)
	if !ok {
		return false
	}
	return s.Code() == codes.Canceled || (s.Code() == codes.Unavailable && s.Message() == "transport is closing")
}
