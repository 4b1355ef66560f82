// Package credentials has the two kinds of credentials that etcd's connections use: TLS, and a token that goes with
// each call.
package credentials

import (
	"context"
	"crypto/tls"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	grpccredentials "google.golang.org/grpc/credentials"
)

// NewTransportCredential returns credentials that secure connections with TLS as cfg says. The configuration is
// copied; nil is the default one.
func NewTransportCredential(cfg *tls.Config) grpccredentials.TransportCredentials {
	return grpccredentials.NewTLS(cfg)
}

// PerRPCCredentialsBundle attaches an authentication token, which may change at any time, to every call.
type PerRPCCredentialsBundle interface {
	// UpdateAuthToken replaces the token. Calls that begin from now on carry it; with an empty one they carry none.
	UpdateAuthToken(token string)
	// PerRPCCredentials returns the credentials to dial with. They do not require a secure transport, since etcd
	// leaves that to its operator.
	PerRPCCredentials() grpccredentials.PerRPCCredentials
}

// NewPerRPCCredentialBundle returns a bundle without a token. It is safe for concurrent use.
func NewPerRPCCredentialBundle() PerRPCCredentialsBundle {
	return &tokenCredentials{}
}

// tokenCredentials is both the bundle and the credentials. It keeps the metadata ready made, so that a call costs one
// atomic load.
type tokenCredentials struct {
	metadata atomic.Pointer[map[string]string]
}

func (c *tokenCredentials) UpdateAuthToken(token string) {
	if token == "" {
		c.metadata.Store(nil)
		return
	}
	c.metadata.Store(&map[string]string{rpctypes.TokenFieldNameGRPC: token})
}

func (c *tokenCredentials) PerRPCCredentials() grpccredentials.PerRPCCredentials { return c }

// GetRequestMetadata returns the token as metadata. gRPC does not change the map.
func (c *tokenCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if md := c.metadata.Load(); md != nil {
		return *md, nil
	}
	return nil, nil
}

// RequireTransportSecurity is false: tokens go over plain connections too.
func (c *tokenCredentials) RequireTransportSecurity() bool { return false }
