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
	set       *Set
	secure    credentials.TransportCredentials // for endpoints that need TLS
	unsettled credentials.TransportCredentials // for endpoints that leave it open
	plaintext credentials.TransportCredentials
}

// Credentials returns the credentials of the set's connections, which use secure where TLS is needed. Configured tells
// whether the user asked for TLS, so that endpoints which leave it open use it too.
func (s *Set) Credentials(secure credentials.TransportCredentials, configured bool) *Credentials {
	c := &Credentials{set: s, secure: secure, plaintext: insecure.NewCredentials()}
	c.unsettled = c.plaintext
	if configured {
		c.unsettled = secure
	}
	return c
}

// of returns the credentials of connections to an endpoint.
func (c *Credentials) of(e *Endpoint) credentials.TransportCredentials {
	switch e.target.TLS {
	case endpoint.TLSRequired:
		return c.secure
	case endpoint.TLSForbidden:
		return c.plaintext
	default:
		return c.unsettled
	}
}

// ClientHandshake finds the endpoint in the address's attributes, which gRPC puts into the handshake's context. It is the
// place where connections can be got hold of whatever dialer makes them: gRPC itself lets calls run on that are under
// way on a connection it is told to close.
func (c *Credentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	creds := c.unsettled
	if e, ok := credentials.ClientHandshakeInfoFromContext(ctx).Attributes.Value(endpointKey{}).(*Endpoint); ok {
		creds = c.of(e)
		cuttable, wrapped := wrap(conn)
		e.lines.connected(cuttable)
		conn = wrapped
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

// Info describes the strongest protection that an endpoint of the set has. gRPC asks for it to decide whether per-call
// credentials that need a secure transport may be configured (each connection is checked for them again), and names the
// scheme of calls, http or https, after it.
func (c *Credentials) Info() credentials.ProtocolInfo {
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	for _, e := range c.set.endpoints {
		if c.of(e) == c.secure {
			return c.secure.Info()
		}
	}
	return c.plaintext.Info()
}

// Clone returns a copy for the same set.
func (c *Credentials) Clone() credentials.TransportCredentials {
	return c.set.Credentials(c.secure.Clone(), c.unsettled != c.plaintext)
}

// OverrideServerName is part of the interface; grpc.WithAuthority is what clients use.
func (c *Credentials) OverrideServerName(name string) error {
	return c.secure.OverrideServerName(name) //nolint:staticcheck // deprecated, but delegated as long as it exists
}
