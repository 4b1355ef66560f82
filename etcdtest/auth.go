package etcdtest

import (
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
)

// bcryptCost is the least that etcd takes: passwords of tests need no protection, and the default makes each
// authentication last some 50 ms.
const bcryptCost = 4

// Auth describes the authentication of a cluster. The zero value is good: a root user and no other.
type Auth struct {
	// RootPassword is the password of the user "root", who may do everything. The default is "root".
	RootPassword string
	// Users and Roles are made besides root.
	Users []User
	Roles []Role
	// TokenTTL is how long a token is good for, in whole seconds. The default is etcd's, 5 minutes. A use of a simple
	// token prolongs it; a JWT ends when it ends.
	TokenTTL time.Duration
	// JWT makes the tokens JSON web tokens, signed with a key made on the spot, instead of etcd's simple ones.
	JWT bool
}

// A User is somebody who may talk to a cluster with authentication.
type User struct {
	Name string
	// Password may be empty: such a user has none, and is known by the common name of a client certificate.
	Password string
	Roles    []string
}

// A Role is a named set of permissions.
type Role struct {
	Name        string
	Permissions []*authpb.Permission
}
