// Package endpoint reads the endpoints that etcd clients are given: what to dial, whether TLS is needed, and the name
// of the server there.
//
//	endpoint                     dials                 TLS          authority
//	host:2379, 10.0.0.1:2379     tcp                   optional     as written
//	[::1]:2379, :2379            tcp                   optional     as written
//	http://host:2379             tcp                   forbidden    host:2379
//	https://host:2379            tcp                   required     host:2379
//	unix:/run/e.sock             unix, absolute        optional     e.sock
//	unix:///run/e.sock           unix, absolute        optional     e.sock
//	unix:e.sock, unix://e.sock   unix, relative        optional     e.sock
//	unix://localhost:2379        unix, relative        optional     localhost:2379
//	unix:@name, unix://@name     unix, abstract        optional     @name
//	unixs:…                      as unix:…             required     as unix:…
//	anything else                tcp, as written       optional     as written, without its scheme
//
// Schemes are read without regard to case. User names, paths and queries of http and https endpoints are ignored.
// The last row is for dialers of the user's own, set with grpc.WithContextDialer, to which any name may mean
// something; the default dialer refuses what it cannot dial.
package endpoint

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"unicode"
)

// TLSNeed tells whether connections to an endpoint use TLS.
type TLSNeed int

const (
	// TLSOptional leaves it to the configuration: TLS is used if it is configured.
	TLSOptional TLSNeed = iota
	// TLSRequired means TLS, with the default configuration if there is none.
	TLSRequired
	// TLSForbidden means plaintext, whatever the configuration says.
	TLSForbidden
)

// Endpoint is an endpoint taken apart. Values can be compared with ==. The zero value is not an endpoint; Parse makes
// them.
type Endpoint struct {
	Raw       string  // as it was given
	Network   string  // "tcp" or "unix", as net.Dial takes it
	Address   string  // host:port, or the path of a socket, as net.Dial takes it
	Authority string  // the :authority of calls; its host is the name in the server's certificate
	TLS       TLSNeed // whether connections use TLS
}

// unixEscaper hides from gRPC what it would not take for part of an absolute path.
var unixEscaper = strings.NewReplacer("%", "%25", "?", "%3F", "#", "%23")

// Parse reads an endpoint. It refuses only what can never be dialled, with an error that names the endpoint.
func Parse(raw string) (Endpoint, error) {
	e, err := parse(raw)
	if err != nil {
		return Endpoint{}, fmt.Errorf("etcdclient: endpoint %q: %w", raw, err)
	}
	e.Raw = raw
	return e, nil
}

func parse(raw string) (Endpoint, error) {
	switch scheme, rest, _ := strings.Cut(raw, ":"); strings.ToLower(scheme) {
	case "http":
		// Without the slashes it is a host of that name.
		if strings.HasPrefix(rest, "//") {
			return parseURL(raw, TLSForbidden)
		}
	case "https":
		if strings.HasPrefix(rest, "//") {
			return parseURL(raw, TLSRequired)
		}
	case "unix":
		return parseUnix(rest, TLSOptional)
	case "unixs":
		return parseUnix(rest, TLSRequired)
	}
	return parseName(raw)
}

// parseURL reads an http or https endpoint.
func parseURL(raw string, tls TLSNeed) (Endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Endpoint{}, withoutURL(err)
	}
	if u.Host == "" {
		return Endpoint{}, errors.New("names no host")
	}
	return Endpoint{Network: "tcp", Address: u.Host, Authority: u.Host, TLS: tls}, nil
}

// parseUnix reads what follows the scheme of a unix or unixs endpoint. As in gRPC, an absolute path is that of a URL,
// with escapes and perhaps a query, and a relative one is taken as it is.
func parseUnix(rest string, tls TLSNeed) (Endpoint, error) {
	socket := strings.TrimPrefix(rest, "//")
	if socket == "" {
		return Endpoint{}, errors.New("names no socket")
	}
	e := Endpoint{Network: "unix", Address: socket, Authority: path.Base(socket), TLS: tls}
	if strings.HasPrefix(socket, "/") {
		u, err := url.Parse("unix://" + socket)
		if err != nil {
			return Endpoint{}, withoutURL(err)
		}
		e.Address = u.Path
	}
	if err := checkControl(e.Address); err != nil {
		return Endpoint{}, err
	}
	return e, nil
}

// parseName reads an endpoint without a scheme, or with one that is not etcd's.
func parseName(raw string) (Endpoint, error) {
	if strings.TrimSpace(raw) == "" {
		return Endpoint{}, errors.New("is empty")
	}
	if err := checkControl(raw); err != nil {
		return Endpoint{}, err
	}
	if strings.ContainsFunc(raw, unicode.IsSpace) {
		return Endpoint{}, errors.New("has white space in it")
	}
	authority := raw
	if scheme, rest, ok := strings.Cut(raw, "://"); ok {
		authority = strings.TrimLeft(rest, "/")
		if scheme == "" || authority == "" {
			return Endpoint{}, errors.New("is not a URL")
		}
	}
	return Endpoint{Network: "tcp", Address: raw, Authority: authority}, nil
}

// checkControl refuses control characters, which gRPC refuses in targets.
func checkControl(s string) error {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return fmt.Errorf("has the control character %q in it", s[i:i+1])
		}
	}
	return nil
}

// withoutURL takes the cause out of an error of url.Parse, which names the URL once more.
func withoutURL(err error) error {
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		return urlErr.Err
	}
	return err
}

// DialAddress returns the address in the form that gRPC takes in a resolver.Address and hands to dialers of the user's
// own: host:port, unix:///absolute/path, or unix:relative/path, with unix for unixs too.
func (e Endpoint) DialAddress() string {
	switch {
	case e.Network != "unix":
		return e.Address
	case strings.HasPrefix(e.Address, "/"):
		return "unix://" + unixEscaper.Replace(e.Address)
	default:
		return "unix:" + e.Address
	}
}

// ServerName returns what a resolver.Address must have as its ServerName. It is the whole authority: gRPC makes it the
// :authority of calls, and takes the host out of it to verify the server's certificate.
func (e Endpoint) ServerName() string { return e.Authority }
