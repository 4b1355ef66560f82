package namespace

import (
	"bytes"
	"context"

	"github.com/seed-d18e112a/clientv3"
)

// NewLease returns l with keys as those that use the prefix see them: of the keys attached to a lease, TimeToLive
// returns those that begin with the prefix, without it. Leases themselves have no namespace: all are shown, and can be
// revoked, with all their keys. Closing the result closes l.
func NewLease(l clientv3.Lease, prefix string) clientv3.Lease {
	return &leaseSpace{Lease: l, space: newSpace(prefix)}
}

type leaseSpace struct {
	clientv3.Lease
	space space
}

func (l *leaseSpace) TimeToLive(ctx context.Context, id clientv3.LeaseID, opts ...clientv3.LeaseOption,
) (*clientv3.LeaseTimeToLiveResponse, error) {
	resp, err := l.Lease.TimeToLive(ctx, id, opts...)
	if err != nil || resp.Keys == nil {
		return resp, err
	}
	translated := *resp
	translated.Keys = make([][]byte, 0, len(resp.Keys))
	for _, key := range resp.Keys {
		if own, ok := bytes.CutPrefix(key, l.space.prefix); ok && len(own) > 0 {
			translated.Keys = append(translated.Keys, own)
		}
	}
	return &translated, nil
}
