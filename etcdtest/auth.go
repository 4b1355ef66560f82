package etcdtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// bcryptCost is the least that etcd takes: passwords of tests need no protection, and the default makes each
// authentication last some 50 ms.
const bcryptCost = 4

// Root is the user, and the role, that may do everything.
const Root = "root"

// Auth describes the authentication of a cluster. The zero value is good: a root user and no other.
type Auth struct {
	// RootPassword is the password of the user [Root]. The default is "root".
	RootPassword string
	// Users and Roles are made besides root, before authentication is enabled.
	Users []User
	Roles []Role
	// TokenTTL is how long a token is good for. The default is etcd's, 5 minutes. It is in whole seconds, at least
	// one. A simple token lives on with each use; a JWT does not.
	TokenTTL time.Duration
	// JWT makes the tokens JSON web tokens, signed with a key made on the spot, instead of etcd's simple ones, which
	// each member keeps in memory and forgets when it restarts.
	JWT bool
}

// A User is somebody who may talk to a cluster with authentication.
type User struct {
	Name string
	// Password may be empty: such a user has none, and is known by the common name of a client certificate.
	Password string
	// Roles are the names of the user's roles, which are among [Auth.Roles], or [Root].
	Roles []string
}

// A Role is a named set of permissions.
type Role struct {
	Name        string
	Permissions []*authpb.Permission
}

// WithAuth enables authentication. Start returns when all members demand it.
func WithAuth(a Auth) Option {
	return func(o *options) {
		if a.RootPassword == "" {
			a.RootPassword = Root
		}
		o.auth = &a
	}
}

func (a *Auth) validate() error {
	if a.TokenTTL < 0 || a.TokenTTL%time.Second != 0 {
		return fmt.Errorf("WithAuth: a TokenTTL of %v is not in whole seconds", a.TokenTTL)
	}
	for _, u := range a.Users {
		if u.Name == "" || u.Name == Root {
			return fmt.Errorf("WithAuth: a user cannot have the name %q", u.Name)
		}
	}
	return nil
}

// token makes the key for tokens, if there has to be one, and returns the server's setting.
func (a *Auth) token(dir string) (string, error) {
	if !a.JWT {
		return "simple", nil
	}
	key := filepath.Join(dir, "jwt.key")
	if strings.ContainsAny(key, ",=") {
		return "", fmt.Errorf("etcdtest: etcd takes no comma or equals sign in the path of a JWT key, which is %s", key)
	}
	if err := os.WriteFile(key, []byte(rand.Text()), 0o600); err != nil {
		return "", fmt.Errorf("etcdtest: writing the key for tokens: %w", err)
	}
	setting := "jwt,sign-method=HS256,priv-key=" + key
	if a.TokenTTL != 0 {
		setting += ",ttl=" + a.TokenTTL.String()
	}
	return setting, nil
}

// enableAuth makes the users and roles, enables authentication, and waits until every member has done so.
func (c *Cluster) enableAuth(ctx context.Context) error {
	a := c.opts.auth
	first := pb.NewAuthClient(c.Member(0).conn)
	users := append([]User{{Name: Root, Password: a.RootPassword, Roles: []string{Root}}}, a.Users...)
	for _, r := range a.Roles {
		if _, err := first.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: r.Name}); err != nil {
			return fmt.Errorf("etcdtest: adding role %q: %w", r.Name, err)
		}
		for _, p := range r.Permissions {
			_, err := first.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: r.Name, Perm: p})
			if err != nil {
				return fmt.Errorf("etcdtest: granting role %q a permission: %w", r.Name, err)
			}
		}
	}
	for _, u := range users {
		_, err := first.UserAdd(ctx, &pb.AuthUserAddRequest{
			Name:     u.Name,
			Password: u.Password,
			Options:  &authpb.UserAddOptions{NoPassword: u.Password == ""},
		})
		if err != nil {
			return fmt.Errorf("etcdtest: adding user %q: %w", u.Name, err)
		}
		for _, role := range u.Roles {
			_, err := first.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: u.Name, Role: role})
			if err != nil {
				return fmt.Errorf("etcdtest: granting user %q the role %q: %w", u.Name, role, err)
			}
		}
	}
	if _, err := first.AuthEnable(ctx, &pb.AuthEnableRequest{}); err != nil {
		return fmt.Errorf("etcdtest: enabling authentication: %w", err)
	}
	c.authEnabled.Store(true)
	// A member takes the password once it has enabled authentication itself.
	return each(c.Members(), func(_ int, m *Member) error {
		err := m.poll(ctx, func(ctx context.Context) error {
			_, err := m.askToken(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("etcdtest: enabling authentication at member %s: %w", m.name, err)
		}
		return nil
	})
}

// rootAuth makes the calls on one connection to a member root's, once the cluster has authentication enabled.
type rootAuth struct {
	m *Member

	mu    sync.Mutex
	token string // the one in use, "" before the first call
}

// unary sends a call with the token at hand, and once more with a new one if the server does not take it: the token
// may be too old, or the server restarted.
func (a *rootAuth) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) (err error) {
	if method == pb.Auth_Authenticate_FullMethodName {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	a.mu.Lock()
	token := a.token
	a.mu.Unlock()
	if token != "" {
		err = invoke(withToken(ctx, token), method, req, reply, cc, opts...)
		if !tokenRefused(err) {
			return err
		}
	}
	if token, err = a.authenticate(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	a.token = token
	a.mu.Unlock()
	return invoke(withToken(ctx, token), method, req, reply, cc, opts...)
}

// stream opens a stream with a token of its own, since it learns too late whether one is taken.
func (a *rootAuth) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	token, err := a.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	return open(withToken(ctx, token), desc, cc, method, opts...)
}

// authenticate gets a token, or "" while the cluster wants none. It comes from the member itself, or else from any
// other, for a learner has none to give; it is good for all.
func (a *rootAuth) authenticate(ctx context.Context) (string, error) {
	if !a.m.c.authEnabled.Load() {
		return "", nil
	}
	from := []*Member{a.m}
	for _, m := range a.m.c.Members() {
		if srv, frozen := m.server(); m != a.m && srv != nil && !frozen {
			from = append(from, m)
		}
	}
	var errs []error
	for _, m := range from {
		token, err := m.askToken(ctx)
		if err == nil {
			return token, nil
		}
		if errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled) {
			return "", nil // a test has disabled it
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// askToken gets a token for root from the member.
func (m *Member) askToken(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := &pb.AuthenticateRequest{Name: Root, Password: m.c.opts.auth.RootPassword}
	resp, err := pb.NewAuthClient(m.conn).Authenticate(ctx, req)
	if err != nil {
		return "", err
	}
	return resp.Token, nil
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
}

func tokenRefused(err error) bool {
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}
