package retry

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// bare are errors that older servers send without the code and text that current ones give them: the refusals of the
// Maintenance service, before 3.6, as the server's own errors (authMaintenanceServer; the texts are those of its package
// auth); and the end of the call's context at the server, before 3.5 (whose gRPC made Unknown of all errors of Go's).
var bare = map[string]error{
	"auth: invalid auth token":        rpctypes.ErrGRPCInvalidAuthToken,
	"auth: revision in header is old": rpctypes.ErrGRPCAuthOldRevision,
	"auth: user name is empty":        rpctypes.ErrGRPCUserEmpty,
	"auth: permission denied":         rpctypes.ErrGRPCPermissionDenied,
	"context deadline exceeded":       status.FromContextError(context.DeadlineExceeded).Err(),
	"context canceled":                status.FromContextError(context.Canceled).Err(),
}

// Canonical returns err as a current server would have sent it.
func Canonical(err error) error {
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unknown {
		if known, ok := bare[s.Message()]; ok {
			return known
		}
	}
	return err
}
