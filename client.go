package clientv3

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/seed-d18e112a/clientv3/credentials"
	"github.com/seed-d18e112a/clientv3/internal/balance"
	"github.com/seed-d18e112a/clientv3/internal/retry"
	"github.com/seed-d18e112a/clientv3/internal/token"
	"github.com/seed-d18e112a/clientv3/internal/wire"
)

// Client is a client of an etcd cluster: make one with New, and Close it when it is no longer needed. It is safe for
// concurrent use; a program needs one for each cluster. Its embedded services may be replaced by decorators before it
// is shared.
type Client struct {
	Cluster
	KV
	Lease
	Watcher
	Auth
	Maintenance

	// Username and Password are what the client authenticates with, if both are set.
	Username string
	Password string
	// Token is the token that was configured; one that the client obtained itself is not shown here.
	Token string

	cfg    Config
	ctx    context.Context //nolint:containedctx // the client's lifetime, by contract of Ctx
	cancel context.CancelFunc

	conn      *connection  // nil for a client of NewCtxClient
	endpoints *balance.Set // nil with it

	tokenCreds *tokenCredentials // nil without authentication
	tokens     *token.Source     // nil without user name and password

	budget  *retry.Budget
	hedges  *hedger // nil if reads are not hedged
	backoff retry.Backoff
	trails  map[string]*balance.Trail // by the method of long-lived streams

	updating sync.Mutex // held while the endpoints are replaced; taken before mu

	mu     sync.RWMutex // guards what follows
	lg     *zap.Logger
	raw    []string // the endpoints as they were given
	closed bool

	background sync.WaitGroup // the goroutines of spawn
}

// New makes a client of the cluster at cfg.Endpoints. It returns every error it finds in cfg at once, and does not
// connect: the first call does, and waits for it. With a user name and password it authenticates first, so that a wrong
// password is found here; if no endpoint can be reached for that it fails once cfg.DialTimeout has passed, or, where that
// is 0, leaves it to the first call.
func New(cfg Config) (*Client, error) {
	targets, lg, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	parent := cfg.Context
	if parent == nil {
		parent = context.Background()
	}
	c := newClient(parent, cfg, lg)
	c.raw = slices.Clone(cfg.Endpoints)
	c.Username, c.Password, c.Token = cfg.Username, cfg.Password, cfg.Token
	c.setUpTokens()

	c.endpoints = balance.NewSet(targets)
	c.endpoints.OnChange(c.logEndpoint)
	c.conn = &connection{dial: func() (*grpc.ClientConn, error) { return c.dial(c.endpoints) }}
	if len(cfg.DialOptions) > 0 {
		// They may be wrong, or not go together, which is to be told here.
		if _, err := c.conn.get(); err != nil {
			c.cancel()
			return nil, err
		}
	}
	c.Cluster = NewCluster(c)
	c.KV = NewKV(c)
	c.Lease = NewLease(c)
	c.Watcher = NewWatcher(c)
	c.Auth = NewAuth(c)
	c.Maintenance = NewMaintenance(c)

	if err := c.checkIn(); err != nil {
		_ = c.Close() // the first error is the one to tell
		return nil, err
	}
	if cfg.AutoSyncInterval > 0 {
		c.spawn(c.autoSync)
	}
	return c, nil
}

// newClient returns a client without connection and services.
func newClient(parent context.Context, cfg Config, lg *zap.Logger) *Client {
	c := &Client{cfg: cfg, lg: lg, budget: retry.NewBudget()}
	c.trails = map[string]*balance.Trail{
		pb.Watch_Watch_FullMethodName:          {},
		pb.Lease_LeaseKeepAlive_FullMethodName: {},
	}
	c.ctx, c.cancel = context.WithCancel(parent)
	if !cfg.Health.Disabled && cfg.Health.HedgeDelay >= 0 {
		c.hedges = newHedger(positiveOr(cfg.Health.HedgeDelay, DefaultHedgeDelay))
	}
	base := cfg.BackoffWaitBetween
	if base <= 0 {
		base = DefaultBackoffWaitBetween
	}
	c.backoff = retry.Backoff{Base: base, Max: 40 * base, Jitter: max(0, min(cfg.BackoffJitterFraction, 1))}
	return c
}

// What every call's outgoing metadata has, made once: as it is, and for calls that need a leader.
var (
	callMetadata = metadata.AppendToOutgoingContext(context.Background(),
		rpctypes.MetadataClientAPIVersionKey, version.APIVersion)
	leaderMetadata = metadata.AppendToOutgoingContext(callMetadata,
		rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
)

// NewFromURL makes a client of the cluster at one endpoint, with the defaults of Config.
func NewFromURL(url string) (*Client, error) {
	return New(Config{Endpoints: []string{url}})
}

// NewFromURLs makes a client of the cluster at the endpoints, with the defaults of Config.
func NewFromURLs(urls []string) (*Client, error) {
	return New(Config{Endpoints: urls})
}

// Option is an option of NewCtxClient.
type Option func(*Client)

// WithZapLogger sets the client's logger. The default, and nil, log nothing.
func WithZapLogger(lg *zap.Logger) Option {
	return func(c *Client) { c.lg = lg }
}

// NewCtxClient makes a client that has no connection and no services: they are set by the caller, made with the
// functions New…From…Client. It ends with ctx, or with Close.
func NewCtxClient(ctx context.Context, opts ...Option) *Client {
	c := newClient(ctx, Config{}, zap.NewNop())
	for _, opt := range opts {
		opt(c)
	}
	return c
}

// Close ends the client: its watches and lease renewals end, calls under way fail, connections are closed, and all its
// goroutines have ended when Close returns. Leases are not revoked. A second Close returns context.Canceled.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	if c.Watcher != nil {
		_ = c.Watcher.Close() // tells only that it was closed
	}
	if c.Lease != nil {
		_ = c.Lease.Close()
	}
	c.background.Wait()
	if c.tokens != nil {
		c.tokens.Close()
	}
	if c.conn != nil {
		return ContextError(c.ctx, c.conn.close())
	}
	return c.ctx.Err()
}

// spawn runs f in a goroutine that Close waits for, so f must end with the client's context. It reports false, and does
// nothing, once the client is closed.
func (c *Client) spawn(f func()) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return false
	}
	c.background.Go(f)
	return true
}

// Ctx returns the context that ends when the client is closed, and with Config.Context.
func (c *Client) Ctx() context.Context { return c.ctx }

// ActiveConnection returns the connection that all calls go through; it stays the client's. Calls made on it directly
// are balanced, authenticated and retried as the client's own, but return bare gRPC errors. It is nil for a client made
// with NewCtxClient.
func (c *Client) ActiveConnection() *grpc.ClientConn {
	if c.conn == nil {
		return nil
	}
	conn, _ := c.conn.get() // New has made it where that could fail
	return conn
}

// GetLogger returns the client's logger.
func (c *Client) GetLogger() *zap.Logger {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.lg
}

// WithLogger replaces the client's logger and returns the client. With nil nothing is logged.
func (c *Client) WithLogger(lg *zap.Logger) *Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lg = lg
	return c
}

// logger returns the logger to use, which is never nil.
func (c *Client) logger() *zap.Logger {
	if lg := c.GetLogger(); lg != nil {
		return lg
	}
	return zap.NewNop()
}

// Endpoints returns the endpoints in use, as they were given.
func (c *Client) Endpoints() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Clone(c.raw)
}

// SetEndpoints replaces the endpoints. Connections to those that stay are kept. An endpoint that cannot be parsed is
// logged and never reached; with none that can, calls fail with code Unavailable.
func (c *Client) SetEndpoints(eps ...string) {
	targets, err := parseEndpoints(eps)
	if err != nil {
		c.logger().Warn("endpoints left out", zap.Error(err))
	}
	c.updating.Lock()
	defer c.updating.Unlock()
	c.mu.Lock()
	c.raw = slices.Clone(eps)
	c.mu.Unlock()
	// Without mu: gRPC logs changes of connections, which takes the client's logger, before it takes the update.
	if c.endpoints != nil {
		c.endpoints.Update(targets)
	}
}

// Sync replaces the endpoints by the client URLs of the cluster's voting members. If none of them advertises one it
// leaves the endpoints alone and returns an error.
func (c *Client) Sync(ctx context.Context) error {
	resp, err := c.MemberList(ctx)
	if err != nil {
		return err
	}
	var eps []string
	for _, m := range resp.Members {
		if len(m.Name) != 0 && !m.IsLearner {
			eps = append(eps, m.ClientURLs...)
		}
	}
	if len(eps) == 0 {
		return errors.New("etcdclient: sync: no member advertises a client URL")
	}
	c.SetEndpoints(eps...)
	return nil
}

// autoSync calls Sync at the configured interval until the client is closed.
func (c *Client) autoSync() {
	ticker := time.NewTicker(c.cfg.AutoSyncInterval)
	defer ticker.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		}
		ctx, cancel := context.WithTimeout(c.ctx, autoSyncTimeout)
		err := c.Sync(ctx)
		cancel()
		if err != nil && c.ctx.Err() == nil {
			c.logger().Warn("sync of endpoints failed", zap.Error(err))
		}
	}
}

// autoSyncTimeout bounds one try of auto-sync, so that a member that hangs does not end it for good.
const autoSyncTimeout = 5 * time.Second

// Dial connects to a single endpoint, with the client's configuration and identity. The caller closes the connection.
// The endpoint need not be one of the client's. Who dials one endpoint wants to hear from that: a read on the connection
// is not made again where a write would not be, except those of RetryMaintenanceClient.
func (c *Client) Dial(ep string) (*grpc.ClientConn, error) {
	targets, err := parseEndpoints([]string{ep})
	if err != nil {
		return nil, err
	}
	return c.dial(balance.NewSet(targets))
}

// dial makes a connection to a set of endpoints. It connects with its first call.
func (c *Client) dial(set *balance.Set) (*grpc.ClientConn, error) {
	opts := slices.Concat(set.DialOptions(), c.dialOptions(set), c.cfg.DialOptions)
	conn, err := grpc.NewClient(set.Target(), opts...)
	if err != nil {
		return nil, fmt.Errorf("etcdclient: %w", err)
	}
	if set == c.endpoints && !c.cfg.Health.Disabled {
		set.Watch(conn, balance.HealthConfig{
			Interval: positiveOr(c.cfg.Health.ProbeInterval, DefaultProbeInterval),
			Timeout:  positiveOr(c.cfg.Health.ProbeTimeout, DefaultProbeTimeout),
			Prove:    c.proveLeader,
		})
	}
	return conn, nil
}

// How connections are made and kept. A lost endpoint is tried again often enough that a restarted member is soon in
// use, and seldom enough to be no load on anyone.
const (
	reconnectBase   = 200 * time.Millisecond
	reconnectMax    = 3 * time.Second
	connectTimeout  = 5 * time.Second
	reconnectFactor = 1.6
	reconnectJitter = 0.2
)

const (
	// What a server may send ahead of what was read, in bytes, on one stream and on a connection. gRPC would begin with
	// less and find out how much a connection can carry, which costs a ping each round trip while data flows.
	streamWindow     = 1 << 20
	connectionWindow = 16 << 20
	// readBuffer is how much is read at once, in bytes. On Linux gRPC holds the buffer only while there is data.
	readBuffer = 128 << 10
)

// dialOptions are the client's own options of a connection.
func (c *Client) dialOptions(set *balance.Set) []grpc.DialOption {
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(set.Credentials(credentials.NewTransportCredential(c.cfg.TLS), c.cfg.TLS != nil)),
		grpc.WithDefaultCallOptions(c.connOptions()...),
		experimental.WithBufferPool(wire.ReceiveBuffers()),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithDisableRetry(), // gRPC's own retries; the client has its loop
		grpc.WithChainUnaryInterceptor(c.unaryInterceptor(set)),
		grpc.WithChainStreamInterceptor(c.streamInterceptor(set)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: grpcbackoff.Config{
				BaseDelay: reconnectBase, Multiplier: reconnectFactor, Jitter: reconnectJitter, MaxDelay: reconnectMax,
			},
			MinConnectTimeout: max(connectTimeout, c.cfg.DialTimeout),
		}),
	}
	if c.cfg.TLS == nil { // TLS is read by its records, of 16 KiB at most
		opts = append(opts, grpc.WithReadBufferSize(readBuffer))
	}
	if c.cfg.DialKeepAliveTime >= 0 {
		opts = append(opts, grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                positiveOr(c.cfg.DialKeepAliveTime, DefaultDialKeepAliveTime),
			Timeout:             positiveOr(c.cfg.DialKeepAliveTimeout, DefaultDialKeepAliveTimeout),
			PermitWithoutStream: c.cfg.PermitWithoutStream,
		}))
	}
	if c.tokenCreds != nil {
		opts = append(opts, grpc.WithPerRPCCredentials(c.tokenCreds))
	}
	return opts
}

// callOptions are the options of every call on a stub of the caller's: the codec and the limits on message sizes. A nil
// client has none.
func (c *Client) callOptions() []grpc.CallOption {
	if c == nil {
		return nil
	}
	return append(c.connOptions(), c.sendLimit())
}

// connOptions are the options of every call on a connection. The limit of requests is not among them, but KV's, which has
// the large ones: programs make stubs of their own on ActiveConnection, and may send what the server takes.
func (c *Client) connOptions() []grpc.CallOption {
	return []grpc.CallOption{
		grpc.ForceCodecV2(wire.Codec()),
		grpc.MaxCallRecvMsgSize(positiveOr(c.cfg.MaxCallRecvMsgSize, DefaultMaxCallRecvMsgSize)),
	}
}

func (c *Client) sendLimit() grpc.CallOption {
	return grpc.MaxCallSendMsgSize(positiveOr(c.cfg.MaxCallSendMsgSize, DefaultMaxCallSendMsgSize))
}

// positiveOr returns v, or the default if v is not positive.
func positiveOr[T int | time.Duration](v, def T) T {
	if v > 0 {
		return v
	}
	return def
}
