package clientv3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3/internal/endpoint"
)

// Defaults of Config's fields whose zero value stands for them.
const (
	DefaultDialKeepAliveTime    = 10 * time.Second
	DefaultDialKeepAliveTimeout = 3 * time.Second
	DefaultMaxCallSendMsgSize   = 2 << 20
	DefaultMaxCallRecvMsgSize   = 1<<31 - 1
	DefaultMaxUnaryRetries      = 100
	DefaultBackoffWaitBetween   = 25 * time.Millisecond
	DefaultProbeInterval        = time.Second
	DefaultProbeTimeout         = 1500 * time.Millisecond
	DefaultHedgeDelay           = 100 * time.Millisecond
)

// Config is what New makes a client from. Only Endpoints is needed; the zero value of every other field is a good
// default. A Config is not changed by New and may be used again.
type Config struct {
	// Endpoints is the list of the cluster members' client addresses: "host:port" and "[ipv6]:port", with "http://" or
	// "https://" before it or not, "unix:path", "unix:///path" and, with TLS, "unixs://…". The scheme decides about
	// TLS; where there is none, TLS is used if it is configured.
	Endpoints []string `json:"endpoints"`

	// AutoSyncInterval is the interval at which the endpoints are replaced by those of the cluster's members. 0, the
	// default, leaves them alone.
	AutoSyncInterval time.Duration `json:"auto-sync-interval"`

	// DialTimeout bounds what New waits for: the first authentication and the check of RejectOldCluster. 0, the
	// default, sets no bound of its own. Connections are made in the background and do not depend on it.
	DialTimeout time.Duration `json:"dial-timeout"`

	// DialKeepAliveTime is the interval at which the server is pinged over a connection that has been quiet and has
	// calls or streams open. 0 means DefaultDialKeepAliveTime, a negative one turns pings off. Servers hang up on
	// clients that ping more often than every 5 s.
	DialKeepAliveTime time.Duration `json:"dial-keep-alive-time"`

	// DialKeepAliveTimeout is the time in which a ping must be answered before the connection counts as lost. 0 means
	// DefaultDialKeepAliveTimeout.
	DialKeepAliveTimeout time.Duration `json:"dial-keep-alive-timeout"`

	// MaxCallSendMsgSize is the largest request in bytes that KV sends; one over it fails with code ResourceExhausted.
	// 0 means DefaultMaxCallSendMsgSize (2 MiB). The server has a limit of its own, 1.5 MiB by default.
	MaxCallSendMsgSize int

	// MaxCallRecvMsgSize is the largest response in bytes that is accepted; one over it fails the call with code
	// ResourceExhausted. 0 means DefaultMaxCallRecvMsgSize, which is no limit in practice.
	MaxCallRecvMsgSize int

	// TLS is the TLS configuration of the connections. nil, the default, is a plain connection to endpoints that leave
	// it open, and TLS with the system's certificate authorities to those that ask for it.
	TLS *tls.Config

	// Username and Password authenticate the client, if both are set. They exclude Token.
	Username string `json:"username"`
	Password string `json:"password"`

	// Token is an authentication token obtained elsewhere, such as a JWT. It excludes Username and Password.
	Token string `json:"token"`

	// RejectOldCluster makes New fail with ErrOldCluster if a member is more than one minor version older than the
	// client (before 3.6, that is), and with another error if one cannot be asked.
	RejectOldCluster bool `json:"reject-old-cluster"`

	// DialOptions are further options for gRPC. They come after the client's own, so they win.
	DialOptions []grpc.DialOption

	// Context is the parent of the client's context: what runs in the background ends with it. nil means
	// context.Background(). Calls run under the contexts they are given.
	Context context.Context //nolint:containedctx // part of the official API

	// Logger is where the client logs. Without it LogConfig is used, and without that JSON lines go to standard error,
	// at the level that ClientLogLevel describes.
	Logger *zap.Logger

	// LogConfig is what a logger is built from if Logger is nil.
	LogConfig *zap.Config

	// PermitWithoutStream makes pings go out on connections without open calls and streams too. Servers hang up on
	// such clients unless they are configured to bear them.
	PermitWithoutStream bool `json:"permit-without-stream"`

	// MaxUnaryRetries is the largest number of attempts at a unary call. 0 means DefaultMaxUnaryRetries.
	MaxUnaryRetries uint `json:"max-unary-retries"`

	// BackoffWaitBetween is the upper bound of the wait before an attempt that follows a failed one, once all endpoints
	// have been tried; it doubles with every further one, up to 40 times its length. 0 means
	// DefaultBackoffWaitBetween. MaxUnaryRetries times this is also how long a call keeps waiting, if its context
	// lives that long, while no endpoint can be reached at all.
	BackoffWaitBetween time.Duration `json:"backoff-wait-between"`

	// BackoffJitterFraction is the fraction of the wait by which it is varied at random, up and down. 0, the default,
	// draws the wait from between nothing and its upper bound, which spreads callers best.
	BackoffJitterFraction float64 `json:"backoff-jitter-fraction"`

	// Health says how the client finds out which endpoints are well, and keeps calls and streams away from the others.
	// Its zero value is a good default.
	Health HealthConfig `json:"health"`
}

// HealthConfig is how a client with several endpoints bears that one of them is frozen, cut off or gone. The zero value
// is a good default.
type HealthConfig struct {
	// Disabled turns everything off that the other fields are about: endpoints are left and returned to by the state of
	// their connections alone, and calls that need a leader wait at a member that has none.
	Disabled bool `json:"disabled"`

	// ProbeInterval is how long an endpoint may be silent, with calls or streams open on it, before the client asks it
	// for a sign of life. So long as calls are answered, and without calls and streams, nothing is asked; an endpoint
	// with idle watches is asked about as often. It is also how soon a member is noticed to have lost its leader, if
	// no call finds out before. 0 means DefaultProbeInterval.
	ProbeInterval time.Duration `json:"probe-interval"`

	// ProbeTimeout is how long it may take to give one before its connection is dropped, which ends calls and streams
	// on it, if another endpoint answers. It bounds the stalls that a member may have without being left. 0 means
	// DefaultProbeTimeout.
	ProbeTimeout time.Duration `json:"probe-timeout"`

	// HedgeDelay is how long a read waits at least for its answer before it is sent to a second endpoint, too. Where
	// reads ordinarily take longer so does the delay; at most one read in twenty is sent twice. 0 means
	// DefaultHedgeDelay, a negative one turns it off.
	HedgeDelay time.Duration `json:"hedge-delay"`
}

// ConfigSpec is the part of a Config that can be read from a file or from flags. NewClientConfig makes a Config of it.
type ConfigSpec struct {
	// Endpoints is Config.Endpoints.
	Endpoints []string `json:"endpoints"`
	// RequestTimeout is for the program's own use; a client does not limit its calls.
	RequestTimeout time.Duration `json:"request-timeout"`
	// DialTimeout is Config.DialTimeout.
	DialTimeout time.Duration `json:"dial-timeout"`
	// KeepAliveTime is Config.DialKeepAliveTime.
	KeepAliveTime time.Duration `json:"keepalive-time"`
	// KeepAliveTimeout is Config.DialKeepAliveTimeout.
	KeepAliveTimeout time.Duration `json:"keepalive-timeout"`
	// MaxCallSendMsgSize is Config.MaxCallSendMsgSize.
	MaxCallSendMsgSize int `json:"max-request-bytes"`
	// MaxCallRecvMsgSize is Config.MaxCallRecvMsgSize.
	MaxCallRecvMsgSize int `json:"max-recv-bytes"`
	// Secure says where certificates are; nil means none.
	Secure *SecureConfig `json:"secure"`
	// Auth says who the client is; nil means nobody.
	Auth *AuthConfig `json:"auth"`
}

// AuthConfig is who a client is: a user with a password, or a token.
type AuthConfig struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Token    string `json:"token"`
}

// SecureConfig is how a client's connections are secured.
type SecureConfig struct {
	// Cert and Key are the files of the client's certificate and its key, for servers that ask for one. Both or
	// neither must be set. They are read again at each handshake, so that they can be renewed in place.
	Cert string `json:"cert"`
	Key  string `json:"key"`
	// Cacert is the file of the certificate authorities that sign servers' certificates. Empty means the system's.
	Cacert string `json:"cacert"`
	// ServerName is the name to expect in servers' certificates. Empty means the host of each endpoint.
	ServerName string `json:"server-name"`

	// InsecureTransport turns TLS off, unless another field asks for it.
	InsecureTransport bool `json:"insecure-transport"`
	// InsecureSkipVerify accepts any certificate of a server.
	InsecureSkipVerify bool `json:"insecure-skip-tls-verify"`
}

// Clone returns a copy that shares nothing with cs. The clone of nil is nil.
func (cs *ConfigSpec) Clone() *ConfigSpec {
	if cs == nil {
		return nil
	}
	clone := *cs
	clone.Endpoints = slices.Clone(cs.Endpoints)
	if cs.Secure != nil {
		secure := *cs.Secure
		clone.Secure = &secure
	}
	if cs.Auth != nil {
		auth := *cs.Auth
		clone.Auth = &auth
	}
	return &clone
}

// Empty reports whether the configuration names nobody.
func (cfg AuthConfig) Empty() bool {
	return cfg == AuthConfig{}
}

// NewClientConfig returns the Config that confSpec describes, logging to lg. It reads the certificate files, and fails
// if one cannot be used.
func NewClientConfig(confSpec *ConfigSpec, lg *zap.Logger) (*Config, error) {
	tlsConfig, err := newTLSConfig(confSpec.Secure)
	if err != nil {
		return nil, err
	}
	cfg := &Config{
		Endpoints:            slices.Clone(confSpec.Endpoints),
		DialTimeout:          confSpec.DialTimeout,
		DialKeepAliveTime:    confSpec.KeepAliveTime,
		DialKeepAliveTimeout: confSpec.KeepAliveTimeout,
		MaxCallSendMsgSize:   confSpec.MaxCallSendMsgSize,
		MaxCallRecvMsgSize:   confSpec.MaxCallRecvMsgSize,
		TLS:                  tlsConfig,
		Logger:               lg,
	}
	if confSpec.Auth != nil {
		cfg.Username = confSpec.Auth.Username
		cfg.Password = confSpec.Auth.Password
		cfg.Token = confSpec.Auth.Token
	}
	return cfg, nil
}

// newTLSConfig returns the TLS configuration that secure describes, or nil if it asks for none.
func newTLSConfig(secure *SecureConfig) (*tls.Config, error) {
	if secure == nil || *secure == (SecureConfig{InsecureTransport: true}) {
		return nil, nil //nolint:nilnil // no TLS is not an error
	}
	if (secure.Cert == "") != (secure.Key == "") {
		return nil, fmt.Errorf("etcdclient: KeyFile and CertFile must both be present [key: %q, cert: %q]",
			secure.Key, secure.Cert)
	}
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         secure.ServerName,
		InsecureSkipVerify: secure.InsecureSkipVerify, //nolint:gosec // asked for
	}
	if secure.Cert != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(secure.Cert, secure.Key)
			if err != nil {
				return nil, fmt.Errorf("etcdclient: client certificate: %w", err)
			}
			return &cert, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	if secure.Cacert != "" {
		pem, err := os.ReadFile(secure.Cacert)
		if err != nil {
			return nil, fmt.Errorf("etcdclient: certificate authorities: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) && !secure.InsecureSkipVerify {
			return nil, fmt.Errorf("etcdclient: certificate authorities: no PEM certificate in %s", secure.Cacert)
		}
	}
	return cfg, nil
}

// validate returns everything that is wrong with the configuration, or else its endpoints, parsed, and its logger.
func (cfg *Config) validate() ([]endpoint.Endpoint, *zap.Logger, error) {
	var errs []error
	if len(cfg.Endpoints) == 0 {
		errs = append(errs, ErrNoAvailableEndpoints)
	}
	targets, err := parseEndpoints(cfg.Endpoints)
	if err != nil {
		errs = append(errs, err)
	}
	if cfg.Token != "" && (cfg.Username != "" || cfg.Password != "") {
		errs = append(errs, ErrMutuallyExclusiveCfg)
	}
	if cfg.MaxCallSendMsgSize > 0 && cfg.MaxCallRecvMsgSize > 0 && cfg.MaxCallSendMsgSize > cfg.MaxCallRecvMsgSize {
		errs = append(errs, fmt.Errorf("gRPC message recv limit (%d bytes) must be greater than send limit (%d bytes)",
			cfg.MaxCallRecvMsgSize, cfg.MaxCallSendMsgSize))
	}
	lg, err := newLogger(cfg)
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 1 {
		return nil, nil, errs[0] // a lone error as it is, for callers that compare with ==
	}
	return targets, lg, errors.Join(errs...)
}

// parseEndpoints parses a list of endpoints. It returns those that can be parsed, and an error that names the others.
func parseEndpoints(endpoints []string) ([]endpoint.Endpoint, error) {
	targets := make([]endpoint.Endpoint, 0, len(endpoints))
	var errs []error
	for _, ep := range endpoints {
		target, err := endpoint.Parse(ep)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		targets = append(targets, target)
	}
	return targets, errors.Join(errs...)
}
