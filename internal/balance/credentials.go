package balance

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/seed-d18e112a/clientv3/internal/endpoint"
)

// Credentials secures each connection as its endpoint wants it: TLS for https and unixs, plaintext for http, and for
// the forms that leave it open TLS if TLS is configured. So endpoints of both kinds can stand in one list.
type Credentials struct {
	secure     credentials.TransportCredentials // for endpoints that need TLS
	unsettled  credentials.TransportCredentials // for endpoints that leave it open
	plaintext  credentials.TransportCredentials
	anySecured bool
}

// NewCredentials returns credentials that use secure where TLS is needed. Configured tells whether the user asked for
// TLS, so that endpoints which leave it open use it too.
func NewCredentials(secure credentials.TransportCredentials, configured bool) *Credentials {
	c := &Credentials{secure: secure, plaintext: insecure.NewCredentials(), anySecured: true}
	c.unsettled = c.plaintext
	if configured {
		c.unsettled = secure
	}
	return c
}

// ClientHandshake finds the endpoint in the address's attributes, which gRPC puts into the handshake's context.
func (c *Credentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	creds := c.unsettled
	if e, ok := credentials.ClientHandshakeInfoFromContext(ctx).Attributes.Value(endpointKey{}).(*Endpoint); ok {
		switch e.target.TLS {
		case endpoint.TLSRequired:
			creds = c.secure
		case endpoint.TLSForbidden:
			creds = c.plaintext
		case endpoint.TLSOptional:
		}
	}
	if name := creds.Info().ServerName; name != "" { //nolint:staticcheck // deprecated for setting, not for asking
		// gRPC's TLS credentials verify the endpoint's name whatever their configuration names.
		authority = name
	}
	return creds.ClientHandshake(ctx, authority, conn)
}

// ServerHandshake is not for clients; it fails as the TLS credentials do.
func (c *Credentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.secure.ServerHandshake(conn)
}

// Info describes the strongest protection in use, by which gRPC decides whether per-call credentials that need a
// secure transport may be configured. Each connection is checked for them again.
func (c *Credentials) Info() credentials.ProtocolInfo { return c.secure.Info() }

// Clone returns an independent copy.
func (c *Credentials) Clone() credentials.TransportCredentials {
	return NewCredentials(c.secure.Clone(), c.unsettled != c.plaintext)
}

// OverrideServerName is part of the interface; grpc.WithAuthority is what clients use.
func (c *Credentials) OverrideServerName(name string) error {
	return c.secure.OverrideServerName(name) //nolint:staticcheck // deprecated, but delegated as long as it exists
}
