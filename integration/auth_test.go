package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/servers"
)

func TestUsersAndRoles(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		const user, role = "alice", "readers"
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		ignore := func(_ any, err error) { t.Helper(); must(err) }
		defer func() {
			_, err := e.UserDelete(e.ctx, user)
			_, err2 := e.RoleDelete(e.ctx, role)
			if err := errors.Join(err, err2); err != nil {
				t.Error(err)
			}
		}()

		ignore(e.RoleAdd(e.ctx, role))
		ignore(e.RoleGrantPermission(e.ctx, role, "a", "b", clientv3.PermissionType(clientv3.PermRead)))
		ignore(e.RoleGrantPermission(e.ctx, role, "c", "", clientv3.PermissionType(clientv3.PermWrite)))
		got, err := e.RoleGet(e.ctx, role)
		must(err)
		if len(got.Perm) != 2 || string(got.Perm[0].Key) != "a" || string(got.Perm[0].RangeEnd) != "b" ||
			got.Perm[0].PermType != clientv3.PermRead || got.Perm[1].PermType != clientv3.PermWrite {
			t.Errorf("permissions %v", got.Perm)
		}
		ignore(e.RoleRevokePermission(e.ctx, role, "a", "b"))
		got, err = e.RoleGet(e.ctx, role)
		must(err)
		if len(got.Perm) != 1 || string(got.Perm[0].Key) != "c" {
			t.Errorf("permissions left %v", got.Perm)
		}
		roles, err := e.RoleList(e.ctx)
		must(err)
		if !slices.Contains(roles.Roles, role) {
			t.Errorf("roles %v", roles.Roles)
		}

		ignore(e.UserAdd(e.ctx, user, "secret"))
		ignore(e.UserGrantRole(e.ctx, user, role))
		ignore(e.UserChangePassword(e.ctx, user, "other"))
		of, err := e.UserGet(e.ctx, user)
		must(err)
		if !slices.Equal(of.Roles, []string{role}) {
			t.Errorf("roles of the user %v", of.Roles)
		}
		users, err := e.UserList(e.ctx)
		must(err)
		if !slices.Contains(users.Users, user) {
			t.Errorf("users %v", users.Users)
		}
		ignore(e.UserRevokeRole(e.ctx, user, role))
		of, err = e.UserGet(e.ctx, user)
		must(err)
		if len(of.Roles) != 0 {
			t.Errorf("roles left to the user %v", of.Roles)
		}

		ignore(e.UserAddWithOptions(e.ctx, "nobody", "", &clientv3.UserAddOptions{NoPassword: true}))
		ignore(e.UserDelete(e.ctx, "nobody"))
		ignore(e.UserAddWithOptions(e.ctx, "nobody", "pw", nil))
		ignore(e.UserDelete(e.ctx, "nobody"))

		resp, err := e.Authenticate(e.ctx, user, "other")
		switch {
		case !e.setup.auth():
			if err != rpctypes.ErrAuthNotEnabled {
				t.Errorf("authenticated without authentication: %v", err)
			}
		case err != nil || resp.Token == "":
			t.Errorf("authenticated %v, %v", resp, err)
		}
	})
}

func TestAuthStatus(t *testing.T) {
	servers.Need(t, servers.AuthStatus)
	onEach(t, func(t *testing.T, e *env) {
		st, err := e.AuthStatus(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if st.Enabled != e.setup.auth() || e.setup.auth() && st.AuthRevision == 0 {
			t.Errorf("status %v", st)
		}
	})
}

// authErrors are the refusals of the Auth service that do not depend on whether authentication is on.
func TestAuthServiceErrors(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		read := clientv3.PermissionType(clientv3.PermRead)
		for _, err := range []error{
			second(e.RoleAdd(e.ctx, "role")), second(e.UserAdd(e.ctx, "user", "pw")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		defer func() { _, _ = e.RoleDelete(e.ctx, "role"); _, _ = e.UserDelete(e.ctx, "user") }()
		for _, tt := range []struct {
			name string
			err  error
			want error
		}{
			{"user twice", second(e.UserAdd(e.ctx, "user", "pw")), rpctypes.ErrUserAlreadyExist},
			{"user without name", second(e.UserAdd(e.ctx, "", "pw")), rpctypes.ErrUserEmpty},
			{"user unknown", second(e.UserGet(e.ctx, "who")), rpctypes.ErrUserNotFound},
			{"deleted unknown", second(e.UserDelete(e.ctx, "who")), rpctypes.ErrUserNotFound},
			{"password of unknown", second(e.UserChangePassword(e.ctx, "who", "pw")), rpctypes.ErrUserNotFound},
			{"role to unknown", second(e.UserGrantRole(e.ctx, "who", "role")), rpctypes.ErrUserNotFound},
			{"unknown role", second(e.UserGrantRole(e.ctx, "user", "what")), rpctypes.ErrRoleNotFound},
			{"role not granted", second(e.UserRevokeRole(e.ctx, "user", "role")), rpctypes.ErrRoleNotGranted},
			{"role twice", second(e.RoleAdd(e.ctx, "role")), rpctypes.ErrRoleAlreadyExist},
			{"role without name", second(e.RoleAdd(e.ctx, "")), rpctypes.ErrRoleEmpty},
			{"role unknown", second(e.RoleGet(e.ctx, "what")), rpctypes.ErrRoleNotFound},
			{"deleted role unknown", second(e.RoleDelete(e.ctx, "what")), rpctypes.ErrRoleNotFound},
			{"permission to unknown", second(e.RoleGrantPermission(e.ctx, "what", "a", "", read)), rpctypes.ErrRoleNotFound},
			{"not granted", second(e.RoleRevokePermission(e.ctx, "role", "a", "")), rpctypes.ErrPermissionNotGranted},
		} {
			checkRefused(t, tt.name, tt.err, tt.want)
		}
	})
}

func TestPermissionForRangeBackwards(t *testing.T) {
	servers.Need(t, servers.PermissionRangeCheck)
	onEach(t, func(t *testing.T, e *env) {
		if _, err := e.RoleAdd(e.ctx, "backwards"); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = e.RoleDelete(e.ctx, "backwards") }()
		_, err := e.RoleGrantPermission(e.ctx, "backwards", "b", "a", clientv3.PermissionType(clientv3.PermRead))
		checkRefused(t, "range backwards", err, rpctypes.ErrInvalidAuthMgmt)
	})
}

// second returns the error of a call.
func second(_ any, err error) error { return err }

// checkRefused checks that an error is the one expected, in each of the ways in which programs compare, and says that
// nothing was applied.
func checkRefused(t *testing.T, name string, err, want error) {
	t.Helper()
	if err != want {
		t.Errorf("%s: %v, want %v", name, err, want)
	}
	if !errors.Is(err, want) {
		t.Errorf("%s: %v is not %v", name, err, want)
	}
	if etcdErr, ok := want.(rpctypes.EtcdError); !ok || statusCode(err) != etcdErr.Code() { //nolint:errorlint // must be it
		t.Errorf("%s: %v has code %v", name, err, statusCode(err))
	}
	if clientv3.MayHaveApplied(err) {
		t.Errorf("%s: %v may have been applied", name, err)
	}
}

// authCluster has users who may do little.
func authCluster(t *testing.T, a etcdtest.Auth, opts ...etcdtest.Option) *etcdtest.Cluster {
	t.Helper()
	a.Roles = []etcdtest.Role{{Name: "limited", Permissions: []*authpb.Permission{
		{PermType: authpb.READWRITE, Key: []byte("own/"), RangeEnd: []byte("own0")},
		{PermType: authpb.READ, Key: []byte("shared")},
	}}}
	a.Users = []etcdtest.User{
		{Name: "alice", Password: "pw", Roles: []string{"limited"}},
		{Name: "powerless", Password: "pw"},
	}
	return etcdtest.Run(t, append(opts, etcdtest.WithAuth(a))...)
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	cluster := authCluster(t, etcdtest.Auth{})
	ctx := testContext(t)
	root := newClient(t, cluster, as(etcdtest.Root, etcdtest.Root))
	if _, err := root.Put(ctx, "shared", "v"); err != nil {
		t.Fatal(err)
	}
	alice := newClient(t, cluster, as("alice", "pw"))
	for _, op := range []clientv3.Op{
		clientv3.OpPut("own/a", "v"),
		clientv3.OpPut("own/b", "w", clientv3.WithPrevKV()),
		clientv3.OpGet("own/", clientv3.WithPrefix()),
		clientv3.OpGet("shared"),
		clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value("shared"), "=", "v")},
			[]clientv3.Op{clientv3.OpPut("own/c", "x"), clientv3.OpGet("shared")}, nil),
		clientv3.OpDelete("own/", clientv3.WithPrefix()),
	} {
		if _, err := alice.Do(ctx, op); err != nil {
			t.Errorf("allowed: %q, %v", op.KeyBytes(), err)
		}
	}
	for name, err := range map[string]error{
		"put":          second(alice.Put(ctx, "shared", "w")),
		"get":          second(alice.Get(ctx, "other")),
		"range beyond": second(alice.Get(ctx, "own/", clientv3.WithFromKey())),
		"stream":       streamError(alice.GetStream(ctx, "own/", clientv3.WithFromKey())),
		"delete":       second(alice.Delete(ctx, "shared")),
		"txn": second(alice.Txn(ctx).
			Then(clientv3.OpPut("own/a", "v"), clientv3.OpPut("shared", "w")).Commit()),
		"comparison": second(alice.Txn(ctx).If(clientv3.Compare(clientv3.Value("other"), "=", "")).Commit()),
		"users":      second(alice.UserList(ctx)),
		"members":    second(alice.MemberAdd(ctx, []string{nowhere})),
		"defragment": second(alice.Defragment(ctx, alice.Endpoints()[0])),
	} {
		checkRefused(t, name, err, rpctypes.ErrPermissionDenied)
	}
	t.Run("compaction", func(t *testing.T) {
		servers.Need(t, servers.CompactionPermission)
		checkRefused(t, "compaction", second(alice.Compact(ctx, 1)), rpctypes.ErrPermissionDenied)
	})
	if got, err := root.Get(ctx, "own/a"); err != nil || len(got.Kvs) != 0 {
		t.Errorf("a part of a forbidden transaction was applied: %v, %v", got, err)
	}
	if _, err := newClient(t, cluster, as("powerless", "pw")).Get(ctx, "own/a"); err != rpctypes.ErrPermissionDenied {
		t.Errorf("a user without a role: %v", err)
	}

	for _, tt := range []struct {
		name string
		err  error
	}{
		{"root", second(root.UserDelete(ctx, "root"))},
		{"root's role", second(root.UserRevokeRole(ctx, "root", "root"))},
		{"the role root", second(root.RoleDelete(ctx, "root"))},
	} {
		checkRefused(t, tt.name, tt.err, rpctypes.ErrInvalidAuthMgmt)
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	cluster := authCluster(t, etcdtest.Auth{})
	ctx := testContext(t)
	for _, tt := range []struct {
		name           string
		user, password string
		want           error
	}{
		{"wrong password", "alice", "guess", rpctypes.ErrAuthFailed},
		{"unknown user", "mallory", "pw", rpctypes.ErrAuthFailed},
	} {
		cfg := config(t, cluster)
		as(tt.user, tt.password)(&cfg)
		cli, err := clientv3.New(cfg)
		if cli != nil {
			t.Errorf("%s: a client", tt.name)
		}
		checkRefused(t, tt.name, err, tt.want)
	}

	for name, tweak := range map[string]func(*clientv3.Config){
		"nobody":      func(*clientv3.Config) {},
		"no password": as("alice", ""),
		"no user":     as("", "pw"),
	} {
		cli := newClient(t, cluster, tweak)
		checkRefused(t, name, second(cli.Get(ctx, "own/a")), rpctypes.ErrUserEmpty)
		checkRefused(t, name, second(cli.Put(ctx, "own/a", "")), rpctypes.ErrUserEmpty)
	}

	badToken := newClient(t, cluster, func(cfg *clientv3.Config) { cfg.Token = "made up" })
	checkRefused(t, "token", second(badToken.Get(ctx, "own/a")), rpctypes.ErrInvalidAuthToken)
	checkRefused(t, "token", second(badToken.Put(ctx, "own/a", "")), rpctypes.ErrInvalidAuthToken)

	got, err := newClient(t, cluster).Authenticate(ctx, "alice", "pw")
	if err != nil {
		t.Fatal(err)
	}
	token := newClient(t, cluster, func(cfg *clientv3.Config) { cfg.Token = got.Token })
	if _, err := token.Put(ctx, "own/a", "by token"); err != nil {
		t.Errorf("with a token: %v", err)
	}
}

// A client certificate's common name is a user's, without a password.
func TestUserByCertificate(t *testing.T) {
	t.Parallel()
	cluster := authCluster(t, etcdtest.Auth{}, etcdtest.WithMutualTLS())
	ctx := testContext(t)
	cert, err := cluster.CA().Issue(etcdtest.CertSpec{CommonName: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, cluster)
	cfg.TLS.Certificates[0] = cert.TLS
	alice := open(t, cfg)
	if _, err := alice.Put(ctx, "own/a", "v"); err != nil {
		t.Error(err)
	}
	checkRefused(t, "put", second(alice.Put(ctx, "other", "v")), rpctypes.ErrPermissionDenied)
}

// awaitExpiry waits until tokens fetched before now are refused.
func awaitExpiry(t *testing.T, cluster *etcdtest.Cluster) {
	t.Helper()
	ctx := testContext(t)
	got, err := newClient(t, cluster).Authenticate(ctx, "alice", "pw")
	if err != nil {
		t.Fatal(err)
	}
	cli := newClient(t, cluster, func(cfg *clientv3.Config) { cfg.Token = got.Token })
	for {
		_, err := cli.Get(ctx, "own/a")
		if err == rpctypes.ErrInvalidAuthToken {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // the server's clock decides
	}
}

// Whatever the call with which a client finds that its token has expired, it gets another, once, and goes on.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	cluster := authCluster(t, etcdtest.Auth{JWT: true, TokenTTL: 2 * time.Second})
	ctx := testContext(t)
	root := newClient(t, cluster, as(etcdtest.Root, etcdtest.Root))
	lease, err := root.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	ep := cluster.Endpoints()[0]
	calls := map[string]func(*clientv3.Client) error{
		"get":        func(c *clientv3.Client) error { return second(c.Get(ctx, "own/a")) },
		"put":        func(c *clientv3.Client) error { return second(c.Put(ctx, "own/put", "")) },
		"txn":        func(c *clientv3.Client) error { return second(c.Txn(ctx).Then(clientv3.OpPut("own/txn", "")).Commit()) },
		"delete":     func(c *clientv3.Client) error { return second(c.Delete(ctx, "own/delete")) },
		"stream":     func(c *clientv3.Client) error { return streamError(c.GetStream(ctx, "own/a")) },
		"grant":      func(c *clientv3.Client) error { return second(c.Grant(ctx, 600)) },
		"renew":      func(c *clientv3.Client) error { return second(c.KeepAliveOnce(ctx, lease.ID)) },
		"members":    func(c *clientv3.Client) error { return second(c.MemberList(ctx)) },
		"users":      func(c *clientv3.Client) error { return second(c.UserList(ctx)) },
		"status":     func(c *clientv3.Client) error { return second(c.Status(ctx, ep)) },
		"defragment": func(c *clientv3.Client) error { return second(c.Defragment(ctx, ep)) },
		"snapshot": func(c *clientv3.Client) error {
			r, err := c.Snapshot(ctx)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, r)
			return errors.Join(err, r.Close())
		},
		"watch": func(c *clientv3.Client) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			resp := <-c.Watch(ctx, "own/a", clientv3.WithCreatedNotify())
			return resp.Err()
		},
	}
	clients := make(map[string]*clientv3.Client)
	counts := make(map[string]*attempts)
	for name := range calls {
		counts[name] = newAttempts()
		clients[name] = newClient(t, cluster, as(etcdtest.Root, etcdtest.Root), counts[name].watch)
	}
	awaitExpiry(t, cluster)
	for name, call := range calls {
		if err := call(clients[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// Once at the start and once more, and again if the new one has expired on a slow machine.
		if n := counts[name].of(pb.Auth_Authenticate_FullMethodName); n > 3 {
			t.Errorf("%s: authenticated %d times", name, n)
		}
	}
}

// Many callers whose token is refused at the same time fetch one new token together.
func TestTokenIsFetchedOnceForAll(t *testing.T) {
	t.Parallel()
	cluster := authCluster(t, etcdtest.Auth{JWT: true, TokenTTL: 2 * time.Second})
	ctx := testContext(t)
	count := newAttempts()
	cli := newClient(t, cluster, as("alice", "pw"), count.watch)
	awaitExpiry(t, cluster)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if _, err := cli.Put(ctx, fmt.Sprintf("own/%d", i), ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := count.of(pb.Auth_Authenticate_FullMethodName); n > 3 { // a slow machine may let a second token expire
		t.Errorf("authenticated %d times for 50 callers", n)
	}
}

// Simple tokens are forgotten by a member that restarts.
func TestTokenIsForgotten(t *testing.T) {
	t.Parallel()
	cluster := authCluster(t, etcdtest.Auth{})
	ctx := testContext(t)
	cli := newClient(t, cluster, as("alice", "pw"))
	member := cluster.Member(0)
	for i := range 2 {
		if _, err := cli.Put(ctx, "own/a", ""); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
		if err := member.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if err := member.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := cli.Get(ctx, "own/a"); err != nil {
			t.Fatalf("get %d: %v", i, err)
		}
	}
}

// A change of users or roles makes older tokens outdated. Calls do not see that.
func TestRolesChangeUnderClient(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]etcdtest.Auth{"simple": {}, "JWT": {JWT: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := authCluster(t, a, etcdtest.WithMembers(3), calm)
			ctx := testContext(t)
			root := newClient(t, cluster, as(etcdtest.Root, etcdtest.Root))
			alice := newClient(t, cluster, as("alice", "pw"))
			for i := range 10 {
				role := fmt.Sprintf("role%d", i)
				if _, err := root.RoleAdd(ctx, role); err != nil {
					t.Fatal(err)
				}
				if _, err := alice.Put(ctx, "own/a", role); err != nil {
					t.Fatalf("put after change %d: %v", i, err)
				}
				if _, err := alice.Get(ctx, "own/a"); err != nil {
					t.Fatalf("get after change %d: %v", i, err)
				}
			}
		})
	}
}

// A client whose password is changed is told so, and goes on when it is the old one again.
func TestPasswordChangesUnderClient(t *testing.T) {
	t.Parallel()
	cluster := authCluster(t, etcdtest.Auth{})
	ctx := testContext(t)
	root := newClient(t, cluster, as(etcdtest.Root, etcdtest.Root))
	alice := newClient(t, cluster, as("alice", "pw"))
	if _, err := alice.Put(ctx, "own/a", "v"); err != nil {
		t.Fatal(err)
	}
	if _, err := root.UserChangePassword(ctx, "alice", "changed"); err != nil {
		t.Fatal(err)
	}
	checkRefused(t, "put", second(alice.Put(ctx, "own/a", "v")), rpctypes.ErrAuthFailed)
	checkRefused(t, "get", second(alice.Get(ctx, "own/a")), rpctypes.ErrAuthFailed)
	if _, err := root.UserChangePassword(ctx, "alice", "pw"); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Put(ctx, "own/a", "v"); err != nil {
		t.Error(err)
	}
}

// Authentication is turned on, off and on again while clients are at work.
func TestAuthTogglesUnderClients(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3), calm)
	ctx := testContext(t)
	anybody := newClient(t, cluster)
	rooted := newClient(t, cluster, as(etcdtest.Root, etcdtest.Root)) // nobody asks who it is yet

	checkRefused(t, "no root", second(anybody.AuthEnable(ctx)), rpctypes.ErrRootUserNotExist)
	checkRefused(t, "not on", second(anybody.Authenticate(ctx, "root", "root")), rpctypes.ErrAuthNotEnabled)
	if _, err := anybody.UserAdd(ctx, etcdtest.Root, etcdtest.Root); err != nil {
		t.Fatal(err)
	}
	checkRefused(t, "no role", second(anybody.AuthEnable(ctx)), rpctypes.ErrRootRoleNotExist)
	if _, err := anybody.UserGrantRole(ctx, etcdtest.Root, etcdtest.Root); err != nil {
		t.Fatal(err)
	}

	for round := range 2 {
		if _, err := rooted.AuthEnable(ctx); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if _, err := rooted.Put(ctx, "key", fmt.Sprint(round, i)); err != nil {
				t.Fatalf("round %d: put by root: %v", round, err)
			}
			if _, err := rooted.Get(ctx, "key"); err != nil {
				t.Fatalf("round %d: get by root: %v", round, err)
			}
		}
		checkRefused(t, "put by nobody", second(anybody.Put(ctx, "key", "")), rpctypes.ErrUserEmpty)
		checkRefused(t, "get by nobody", second(anybody.Get(ctx, "key")), rpctypes.ErrUserEmpty)
		if servers.Has(t, servers.AuthStatus) {
			if st, err := rooted.AuthStatus(ctx); err != nil || !st.Enabled {
				t.Errorf("round %d: %v, %v", round, st, err)
			}
		}

		if _, err := rooted.AuthDisable(ctx); err != nil {
			t.Fatal(err)
		}
		for _, cli := range []*clientv3.Client{rooted, anybody} {
			for range 10 {
				if _, err := cli.Put(ctx, "key", ""); err != nil {
					t.Fatalf("round %d: put with authentication off: %v", round, err)
				}
			}
		}
	}
}
