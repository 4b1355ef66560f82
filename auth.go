package clientv3

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// Responses of the Auth service: the wire's messages under another name.
type (
	AuthEnableResponse               pb.AuthEnableResponse
	AuthDisableResponse              pb.AuthDisableResponse
	AuthStatusResponse               pb.AuthStatusResponse
	AuthenticateResponse             pb.AuthenticateResponse
	AuthUserAddResponse              pb.AuthUserAddResponse
	AuthUserDeleteResponse           pb.AuthUserDeleteResponse
	AuthUserChangePasswordResponse   pb.AuthUserChangePasswordResponse
	AuthUserGrantRoleResponse        pb.AuthUserGrantRoleResponse
	AuthUserGetResponse              pb.AuthUserGetResponse
	AuthUserRevokeRoleResponse       pb.AuthUserRevokeRoleResponse
	AuthRoleAddResponse              pb.AuthRoleAddResponse
	AuthRoleGrantPermissionResponse  pb.AuthRoleGrantPermissionResponse
	AuthRoleGetResponse              pb.AuthRoleGetResponse
	AuthRoleRevokePermissionResponse pb.AuthRoleRevokePermissionResponse
	AuthRoleDeleteResponse           pb.AuthRoleDeleteResponse
	AuthUserListResponse             pb.AuthUserListResponse
	AuthRoleListResponse             pb.AuthRoleListResponse
)

// PermissionType is what a permission allows: PermRead, PermWrite or PermReadWrite.
type PermissionType authpb.Permission_Type

// Permission is what a role may do with a range of keys.
type Permission authpb.Permission

// What a permission allows.
const (
	PermRead      = authpb.Permission_READ
	PermWrite     = authpb.Permission_WRITE
	PermReadWrite = authpb.Permission_READWRITE
)

// UserAddOptions are options of Auth.UserAddWithOptions: with NoPassword the user has no password and can log in by
// the common name of a client certificate only.
type UserAddOptions authpb.UserAddOptions

// StrToPermissionType returns the permission type with the name, "read", "write" or "readwrite" in any case.
func StrToPermissionType(s string) (PermissionType, error) {
	if v, ok := authpb.Permission_Type_value[strings.ToUpper(s)]; ok {
		return PermissionType(v), nil
	}
	return PermissionType(-1), fmt.Errorf("invalid permission type: %s", s)
}

// Auth manages users, roles and authentication. Its methods are safe for concurrent use; retries and errors are those
// of KV. All but Authenticate and AuthStatus need the role root once authentication is on.
type Auth interface {
	// Authenticate returns a token for the user. A client with Config.Username does this by itself.
	Authenticate(ctx context.Context, name string, password string) (*AuthenticateResponse, error)

	// AuthEnable turns authentication on. A user root with the role root must exist.
	AuthEnable(ctx context.Context) (*AuthEnableResponse, error)

	// AuthDisable turns authentication off.
	AuthDisable(ctx context.Context) (*AuthDisableResponse, error)

	// AuthStatus tells whether authentication is on, and the revision of the users and roles.
	AuthStatus(ctx context.Context) (*AuthStatusResponse, error)

	// UserAdd adds a user with a password.
	UserAdd(ctx context.Context, name string, password string) (*AuthUserAddResponse, error)

	// UserAddWithOptions adds a user. A nil opt is none.
	UserAddWithOptions(ctx context.Context, name string, password string, opt *UserAddOptions,
	) (*AuthUserAddResponse, error)

	// UserDelete deletes a user.
	UserDelete(ctx context.Context, name string) (*AuthUserDeleteResponse, error)

	// UserChangePassword gives a user another password. Tokens that the user has become invalid.
	UserChangePassword(ctx context.Context, name string, password string) (*AuthUserChangePasswordResponse, error)

	// UserGrantRole gives a user a role.
	UserGrantRole(ctx context.Context, user string, role string) (*AuthUserGrantRoleResponse, error)

	// UserGet returns the roles of a user.
	UserGet(ctx context.Context, name string) (*AuthUserGetResponse, error)

	// UserList returns the names of all users.
	UserList(ctx context.Context) (*AuthUserListResponse, error)

	// UserRevokeRole takes a role from a user.
	UserRevokeRole(ctx context.Context, name string, role string) (*AuthUserRevokeRoleResponse, error)

	// RoleAdd adds a role without permissions.
	RoleAdd(ctx context.Context, name string) (*AuthRoleAddResponse, error)

	// RoleGrantPermission allows a role to read or write the keys from key up to, and without, rangeEnd; an empty rangeEnd
	// means key alone, "\\x00" all keys from key on, and GetPrefixRangeEnd(key) all keys that begin with key.
	RoleGrantPermission(ctx context.Context, name string, key, rangeEnd string, permType PermissionType,
	) (*AuthRoleGrantPermissionResponse, error)

	// RoleGet returns the permissions of a role.
	RoleGet(ctx context.Context, role string) (*AuthRoleGetResponse, error)

	// RoleList returns the names of all roles.
	RoleList(ctx context.Context) (*AuthRoleListResponse, error)

	// RoleRevokePermission takes from a role the permission that was granted for exactly this range.
	RoleRevokePermission(ctx context.Context, role string, key, rangeEnd string,
	) (*AuthRoleRevokePermissionResponse, error)

	// RoleDelete deletes a role.
	RoleDelete(ctx context.Context, role string) (*AuthRoleDeleteResponse, error)
}

type authService struct {
	remote   pb.AuthClient
	callOpts []grpc.CallOption
}

// NewAuth returns the Auth of a client, as the one in its field Auth at first.
func NewAuth(c *Client) Auth {
	return &authService{remote: RetryAuthClient(c)}
}

// NewAuthFromAuthClient returns an Auth on the given stub. Calls are made once. The client's limits on message sizes
// are passed to the stub; c may be nil.
func NewAuthFromAuthClient(remote pb.AuthClient, c *Client) Auth {
	return &authService{remote: remote, callOpts: c.callOptions()}
}

func (a *authService) Authenticate(ctx context.Context, name string, password string,
) (*AuthenticateResponse, error) {
	resp, err := a.remote.Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: password}, a.callOpts...)
	return (*AuthenticateResponse)(resp), ContextError(ctx, err)
}

func (a *authService) AuthEnable(ctx context.Context) (*AuthEnableResponse, error) {
	resp, err := a.remote.AuthEnable(ctx, &pb.AuthEnableRequest{}, a.callOpts...)
	return (*AuthEnableResponse)(resp), ContextError(ctx, err)
}

func (a *authService) AuthDisable(ctx context.Context) (*AuthDisableResponse, error) {
	resp, err := a.remote.AuthDisable(ctx, &pb.AuthDisableRequest{}, a.callOpts...)
	return (*AuthDisableResponse)(resp), ContextError(ctx, err)
}

func (a *authService) AuthStatus(ctx context.Context) (*AuthStatusResponse, error) {
	resp, err := a.remote.AuthStatus(ctx, &pb.AuthStatusRequest{}, a.callOpts...)
	return (*AuthStatusResponse)(resp), ContextError(ctx, err)
}

func (a *authService) UserAdd(ctx context.Context, name string, password string) (*AuthUserAddResponse, error) {
	req := &pb.AuthUserAddRequest{Name: name, Password: password, Options: &authpb.UserAddOptions{}}
	resp, err := a.remote.UserAdd(ctx, req, a.callOpts...)
	return (*AuthUserAddResponse)(resp), ContextError(ctx, err)
}

func (a *authService) UserAddWithOptions(ctx context.Context, name string, password string, opt *UserAddOptions,
) (*AuthUserAddResponse, error) {
	req := &pb.AuthUserAddRequest{Name: name, Password: password, Options: (*authpb.UserAddOptions)(opt)}
	resp, err := a.remote.UserAdd(ctx, req, a.callOpts...)
	return (*AuthUserAddResponse)(resp), ContextError(ctx, err)
}

func (a *authService) UserDelete(ctx context.Context, name string) (*AuthUserDeleteResponse, error) {
	resp, err := a.remote.UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: name}, a.callOpts...)
	return (*AuthUserDeleteResponse)(resp), ContextError(ctx, err)
}

func (a *authService) UserChangePassword(ctx context.Context, name string, password string,
) (*AuthUserChangePasswordResponse, error) {
	req := &pb.AuthUserChangePasswordRequest{Name: name, Password: password}
	resp, err := a.remote.UserChangePassword(ctx, req, a.callOpts...)
	return (*AuthUserChangePasswordResponse)(resp), ContextError(ctx, err)
}

func (a *authService) UserGrantRole(ctx context.Context, user string, role string,
) (*AuthUserGrantRoleResponse, error) {
	resp, err := a.remote.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: user, Role: role}, a.callOpts...)
	return (*AuthUserGrantRoleResponse)(resp), ContextError(ctx, err)
}

func (a *authService) UserGet(ctx context.Context, name string) (*AuthUserGetResponse, error) {
	resp, err := a.remote.UserGet(ctx, &pb.AuthUserGetRequest{Name: name}, a.callOpts...)
	return (*AuthUserGetResponse)(resp), ContextError(ctx, err)
}

func (a *authService) UserList(ctx context.Context) (*AuthUserListResponse, error) {
	resp, err := a.remote.UserList(ctx, &pb.AuthUserListRequest{}, a.callOpts...)
	return (*AuthUserListResponse)(resp), ContextError(ctx, err)
}

func (a *authService) UserRevokeRole(ctx context.Context, name string, role string,
) (*AuthUserRevokeRoleResponse, error) {
	resp, err := a.remote.UserRevokeRole(ctx, &pb.AuthUserRevokeRoleRequest{Name: name, Role: role}, a.callOpts...)
	return (*AuthUserRevokeRoleResponse)(resp), ContextError(ctx, err)
}

func (a *authService) RoleAdd(ctx context.Context, name string) (*AuthRoleAddResponse, error) {
	resp, err := a.remote.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: name}, a.callOpts...)
	return (*AuthRoleAddResponse)(resp), ContextError(ctx, err)
}

func (a *authService) RoleGrantPermission(
	ctx context.Context, name string, key, rangeEnd string, permType PermissionType,
) (*AuthRoleGrantPermissionResponse, error) {
	perm := &authpb.Permission{
		Key:      []byte(key),
		RangeEnd: []byte(rangeEnd),
		PermType: authpb.Permission_Type(permType),
	}
	req := &pb.AuthRoleGrantPermissionRequest{Name: name, Perm: perm}
	resp, err := a.remote.RoleGrantPermission(ctx, req, a.callOpts...)
	return (*AuthRoleGrantPermissionResponse)(resp), ContextError(ctx, err)
}

func (a *authService) RoleGet(ctx context.Context, role string) (*AuthRoleGetResponse, error) {
	resp, err := a.remote.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: role}, a.callOpts...)
	return (*AuthRoleGetResponse)(resp), ContextError(ctx, err)
}

func (a *authService) RoleList(ctx context.Context) (*AuthRoleListResponse, error) {
	resp, err := a.remote.RoleList(ctx, &pb.AuthRoleListRequest{}, a.callOpts...)
	return (*AuthRoleListResponse)(resp), ContextError(ctx, err)
}

func (a *authService) RoleRevokePermission(ctx context.Context, role string, key, rangeEnd string,
) (*AuthRoleRevokePermissionResponse, error) {
	req := &pb.AuthRoleRevokePermissionRequest{Role: role, Key: []byte(key), RangeEnd: []byte(rangeEnd)}
	resp, err := a.remote.RoleRevokePermission(ctx, req, a.callOpts...)
	return (*AuthRoleRevokePermissionResponse)(resp), ContextError(ctx, err)
}

func (a *authService) RoleDelete(ctx context.Context, role string) (*AuthRoleDeleteResponse, error) {
	resp, err := a.remote.RoleDelete(ctx, &pb.AuthRoleDeleteRequest{Role: role}, a.callOpts...)
	return (*AuthRoleDeleteResponse)(resp), ContextError(ctx, err)
}
