package clientv3

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3/internal/token"
)

// setUpTokens prepares what attaches the token to calls, and what fetches it.
func (c *Client) setUpTokens() {
	switch {
	case c.Token != "":
		static := c.Token
		c.tokenCreds = &tokenCredentials{current: func() string { return static }}
	case c.Username != "" && c.Password != "":
		c.tokens = token.NewSource(c.fetchToken)
		c.tokenCreds = &tokenCredentials{current: c.tokens.Current}
	}
}

// tokenCredentials attaches the current token to every call. It asks for it each time, so that the token a call carries
// is never older than the one the retry loop takes it to carry.
type tokenCredentials struct {
	current func() string
	made    atomic.Pointer[tokenMetadata]
}

// tokenMetadata is the metadata of a token, made once for all calls that carry it.
type tokenMetadata struct {
	token    string
	metadata map[string]string
}

// GetRequestMetadata returns the token as metadata. gRPC does not change the map.
//
// A request for a token carries none: servers before 3.5 look at that first, and refuse it if it is no longer good.
func (t *tokenCredentials) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	current := t.current()
	info, _ := credentials.RequestInfoFromContext(ctx)
	if current == "" || info.Method == pb.Auth_Authenticate_FullMethodName {
		return nil, nil
	}
	made := t.made.Load()
	if made == nil || made.token != current {
		made = &tokenMetadata{token: current, metadata: map[string]string{rpctypes.TokenFieldNameGRPC: current}}
		t.made.Store(made)
	}
	return made.metadata, nil
}

// RequireTransportSecurity is false: tokens go over plain connections too.
func (t *tokenCredentials) RequireTransportSecurity() bool { return false }

// fetchTimeout bounds one fetch of a token, unless Config.DialTimeout does. Those who wait for it do so under contexts
// of their own.
const fetchTimeout = 10 * time.Second

// fetchToken authenticates the client.
func (c *Client) fetchToken(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, positiveOr(c.cfg.DialTimeout, fetchTimeout))
	defer cancel()
	resp, err := c.Auth.Authenticate(ctx, c.Username, c.Password)
	if errors.Is(err, rpctypes.ErrAuthNotEnabled) {
		// No token is needed now. Once authentication is turned on, calls are refused for want of one and fetch it.
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return resp.Token, nil
}

// currentToken returns the token that calls carry at present, if the client fetches its own.
func (c *Client) currentToken() string {
	if c.tokens == nil {
		return ""
	}
	return c.tokens.Current()
}

// reauthenticator returns the function that replaces the token of streams when it was refused, or nil if the client
// cannot get another.
func (c *Client) reauthenticator() func(context.Context) error {
	if c.tokens == nil {
		return nil
	}
	return func(ctx context.Context) error {
		_, err := c.tokens.Refresh(ctx, c.tokens.Current())
		return err
	}
}

// checkIn does what New is asked to do with the cluster before it returns: the first authentication and the check for
// old members. Config.DialTimeout bounds both together.
func (c *Client) checkIn() error {
	ctx := c.ctx
	if c.cfg.DialTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.DialTimeout)
		defer cancel()
	}
	if c.tokens != nil {
		if err := c.logIn(ctx); err != nil {
			return err
		}
	}
	if c.cfg.RejectOldCluster {
		return c.rejectOldCluster(ctx)
	}
	return nil
}

// logIn fetches the first token. While no endpoint can be reached it tries until ctx ends, or, if Config.DialTimeout
// sets it no end, leaves it to the first call.
func (c *Client) logIn(ctx context.Context) error {
	for {
		_, err := c.tokens.Refresh(ctx, "")
		unreachable := status.Code(err) == codes.Unavailable && !MayHaveApplied(err)
		if !unreachable {
			return err
		}
		if c.cfg.DialTimeout <= 0 {
			return nil
		}
		if err := c.endpoints.WaitReady(ctx, c.cfg.DialTimeout); err != nil {
			return err
		}
	}
}

// rejectOldCluster returns ErrOldCluster if a member is more than one minor version older than this client, and
// another error if one cannot be asked.
func (c *Client) rejectOldCluster(ctx context.Context) error {
	major, minor, err := parseVersion(version.Version)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, ep := range c.Endpoints() {
		group.Go(func() error {
			resp, err := c.Maintenance.Status(ctx, ep)
			if err != nil {
				return err
			}
			haveMajor, haveMinor, err := parseVersion(resp.Version)
			if err != nil {
				return fmt.Errorf("%q: %w", ep, err)
			}
			if haveMajor < major || (haveMajor == major && haveMinor < minor-1) {
				return ErrOldCluster
			}
			return nil
		})
	}
	return group.Wait()
}

// parseVersion returns the parts of a version that matter for compatibility.
func parseVersion(v string) (major, minor int, err error) {
	if _, err := fmt.Sscanf(v, "%d.%d.", &major, &minor); err != nil {
		return 0, 0, fmt.Errorf("etcdclient: version %q cannot be read: %w", v, err)
	}
	return major, minor, nil
}
