package retry

import (
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// bare are the refusals that the Maintenance service of servers before 3.6 sends as the server's own errors, without
// the code and text that they have from everybody else (authMaintenanceServer; the texts are those of its package auth).
var bare = map[string]error{
	"auth: invalid auth token":        rpctypes.ErrGRPCInvalidAuthToken,
	"auth: revision in header is old": rpctypes.ErrGRPCAuthOldRevision,
	"auth: user name is empty":        rpctypes.ErrGRPCUserEmpty,
	"auth: permission denied":         rpctypes.ErrGRPCPermissionDenied,
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
