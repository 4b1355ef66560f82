// Package endpoint parses the addresses of etcd members as clients are given them.
package endpoint

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"
)

// TLSNeed is what an endpoint says about TLS.
type TLSNeed int

const (
	// TLSOptional leaves it to the configuration.
	TLSOptional TLSNeed = iota
	// TLSForbidden is a plain connection, whatever is configured.
	TLSForbidden
	// TLSRequired is TLS, with the default configuration if there is no other.
	TLSRequired
)

// Endpoint is a parsed endpoint. It is comparable.
type Endpoint struct {
	Raw       string // as it was given
	Network   string // "tcp" or "unix"
	Address   string // what to dial: host:port, or the path of a socket
	Authority string // the :authority of requests
	TLS       TLSNeed
}

// DialAddress returns the address in the form that gRPC dials.
func (e Endpoint) DialAddress() string {
	if e.Network == "unix" {
		return "unix:" + e.Address
	}
	return e.Address
}

// ServerName returns the name by which the server is addressed and, without its port, verified.
func (e Endpoint) ServerName() string { return e.Authority }

// Parse parses an endpoint. It is only as strict as it must be to refuse what can never be dialled.
func Parse(s string) (Endpoint, error) {
	e := Endpoint{Raw: s, Network: "tcp"}
	if strings.TrimSpace(s) == "" {
		return e, fmt.Errorf("etcdclient: endpoint %q is empty", s)
	}
	scheme, rest, hasScheme := strings.Cut(s, ":")
	switch scheme := strings.ToLower(scheme); {
	case hasScheme && (scheme == "unix" || scheme == "unixs"):
		e.Network = "unix"
		e.Address = strings.TrimPrefix(rest, "//")
		e.Authority = path.Base(e.Address)
		if scheme == "unixs" {
			e.TLS = TLSRequired
		}
		if e.Address == "" {
			return e, fmt.Errorf("etcdclient: endpoint %q has no path", s)
		}
		return e, nil
	case hasScheme && strings.HasPrefix(rest, "//"):
		u, err := url.Parse(s)
		if err != nil {
			return e, fmt.Errorf("etcdclient: endpoint %q: %w", s, err)
		}
		switch scheme {
		case "http":
			e.TLS = TLSForbidden
		case "https":
			e.TLS = TLSRequired
		default:
			return e, fmt.Errorf("etcdclient: endpoint %q has the unknown scheme %q", s, scheme)
		}
		e.Address, e.Authority = u.Host, u.Host
		if u.Host == "" {
			return e, fmt.Errorf("etcdclient: endpoint %q has no host", s)
		}
		return e, nil
	}
	if _, _, err := net.SplitHostPort(s); err != nil && strings.ContainsAny(s, " /") {
		return e, fmt.Errorf("etcdclient: endpoint %q: %w", s, err)
	}
	e.Address, e.Authority = s, s
	return e, nil
}
