package etcdtest

import (
	"context"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

func authenticate(t *testing.T, conn *grpc.ClientConn, name, password string) string {
	t.Helper()
	resp, err := pb.NewAuthClient(conn).Authenticate(testContext(t), &pb.AuthenticateRequest{
		Name: name, Password: password,
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Token
}

func TestAuthIsDemanded(t *testing.T) {
	t.Parallel()
	auth := Auth{
		RootPassword: "secret",
		Users:        []User{{Name: "anna", Password: "pass", Roles: []string{"reader"}}},
		Roles: []Role{{Name: "reader", Permissions: []*authpb.Permission{
			{PermType: authpb.READ, Key: []byte("a"), RangeEnd: []byte("b")},
		}}},
	}
	jwt := auth
	jwt.JWT = true
	for _, tt := range []struct {
		name string
		opts []Option
	}{
		{"in process", []Option{WithMembers(3), WithAuth(auth)}},
		{"child JWT", []Option{WithChildProcesses(), WithAuth(jwt)}},
		{"mutual TLS", []Option{WithMutualTLS(), WithAuth(auth)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := Run(t, tt.opts...)
			ctx := testContext(t)
			for _, ep := range c.Endpoints() {
				conn := dialEndpoint(t, ep, c.ClientTLS())
				// Who has a certificate without a name is nobody; who has none at all is not even that.
				want := rpctypes.ErrUserEmpty
				if c.ClientCert() != nil {
					want = rpctypes.ErrPermissionDenied
				}
				if err := put(ctx, conn, "a", "x"); rpctypes.Error(err) != want {
					t.Errorf("without a token: %v", err)
				}
				_, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: Root, Password: "root"})
				if rpctypes.Error(err) != rpctypes.ErrAuthFailed {
					t.Errorf("wrong password: %v", err)
				}
				root := withToken(ctx, authenticate(t, conn, Root, "secret"))
				if err := put(root, conn, "a", "x"); err != nil {
					t.Errorf("put by root: %v", err)
				}
				anna := withToken(ctx, authenticate(t, conn, "anna", "pass"))
				if got, err := get(anna, conn, "a"); got != "x" || err != nil {
					t.Errorf("get by anna = %q, %v", got, err)
				}
				if err := put(anna, conn, "a", "y"); rpctypes.Error(err) != rpctypes.ErrPermissionDenied {
					t.Errorf("put by anna: %v", err)
				}
			}
		})
	}
}

func TestUserIsKnownByCertificate(t *testing.T) {
	t.Parallel()
	c := Run(t, WithMutualTLS(), WithAuth(Auth{Users: []User{{Name: "anna", Roles: []string{Root}}}}))
	cert, err := c.CA().Issue(CertSpec{CommonName: "anna"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := c.ClientTLS()
	cfg.Certificates[0] = cert.TLS
	if err := put(testContext(t), dialEndpoint(t, c.Endpoints()[0], cfg), "a", "x"); err != nil {
		t.Error(err)
	}
}

func TestTokenExpires(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		opts []Option
	}{
		{"simple", []Option{WithAuth(Auth{TokenTTL: time.Second})}},
		{"simple child", []Option{WithChildProcesses(), WithAuth(Auth{TokenTTL: time.Second})}},
		{"JWT", []Option{WithAuth(Auth{TokenTTL: time.Second, JWT: true})}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := Run(t, tt.opts...)
			ctx := testContext(t)
			conn := dialEndpoint(t, c.Endpoints()[0], nil)
			// A use may prolong a token's life, so each is used once.
			for idle := time.Second; ; idle *= 2 {
				token := authenticate(t, conn, Root, Root)
				select {
				case <-time.After(idle):
				case <-ctx.Done():
					t.Fatalf("a token is good for more than %v", idle/2)
				}
				_, err := get(withToken(ctx, token), conn, "a")
				if err == nil {
					continue
				}
				if rpctypes.Error(err) != rpctypes.ErrInvalidAuthToken {
					t.Fatalf("with an old token: %v", err)
				}
				break
			}
			// The kit itself gets a new one.
			if err := c.WaitReady(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDialIsRoot(t *testing.T) {
	t.Parallel()
	c := Run(t, WithMutualTLS(), WithAuth(Auth{}))
	ctx := testContext(t)
	conn, err := c.Member(0).Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	use := func() {
		t.Helper()
		if err := put(ctx, conn, "a", "x"); err != nil {
			t.Errorf("call: %v", err)
		}
		streamCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		snapshot, err := pb.NewMaintenanceClient(conn).Snapshot(streamCtx, &pb.SnapshotRequest{})
		if err == nil {
			_, err = snapshot.Recv()
		}
		if err != nil {
			t.Errorf("stream: %v", err)
		}
	}
	use()
	// The server forgets its tokens.
	if err := c.Member(0).Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Member(0).WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	use()
	if _, err := pb.NewAuthClient(conn).AuthDisable(ctx, &pb.AuthDisableRequest{}); err != nil {
		t.Fatal(err)
	}
	use()
}
