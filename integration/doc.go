// Package integration holds the tests of clientv3 against real etcd clusters. It has no other code.
//
// They are laid out as the client is: kv_test.go has the tests of kv.go, and so on. What concerns no single service has
// files of its own: errors_test.go every error that a server sends, transport_test.go the ways to reach a server,
// faults_test.go members and links that fail.
package integration
