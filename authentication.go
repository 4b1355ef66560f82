package clientv3

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3/credentials"
	"github.com/seed-d18e112a/clientv3/internal/token"
)

// setUpTokens prepares what attaches the token to calls, and what fetches it.
func (c *Client) setUpTokens() {
	if c.Token == "" && (c.Username == "" || c.Password == "") {
		return
	}
	c.tokenCreds = credentials.NewPerRPCCredentialBundle()
	if c.Token != "" {
		c.tokenCreds.UpdateAuthToken(c.Token)
		return
	}
	c.tokens = token.NewSource(c.fetchToken)
}

// fetchToken authenticates the client and attaches the token to all calls from now on.
func (c *Client) fetchToken(ctx context.Context) (string, error) {
	resp, err := c.Auth.Authenticate(ctx, c.Username, c.Password)
	if errors.Is(err, rpctypes.ErrAuthNotEnabled) {
		// No token is needed now. Once authentication is turned on, calls are refused for want of one and fetch it.
		c.tokenCreds.UpdateAuthToken("")
		return "", nil
	}
	if err != nil {
		return "", err
	}
	c.tokenCreds.UpdateAuthToken(resp.Token)
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
		_, err := c.tokens.Refresh(ctx, "")
		unreachable := status.Code(err) == codes.Unavailable && !MayHaveApplied(err)
		if err != nil && !(unreachable && c.cfg.DialTimeout == 0) {
			return err
		}
	}
	if c.cfg.RejectOldCluster {
		return c.rejectOldCluster(ctx)
	}
	return nil
}

// rejectOldCluster returns ErrOldCluster if a member is more than two minor versions older than this client, and
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
			if haveMajor < major || (haveMajor == major && haveMinor < minor-2) {
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
