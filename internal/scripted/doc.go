// Package scripted is a gRPC server for tests, which answers etcd's calls as the test says: with a response, an error,
// after a while, never, or by cutting the connection. It counts what it is asked and by whom, so that a test can show
// how often a request was sent, and to which endpoint. It is a real grpc.Server on a real connection; only what is
// behind the connection is made up.
//
// A Network keeps connections in memory, so that clients and servers can live in a bubble of testing/synctest, where
// time passes when nobody is busy. Listen puts a server on a TCP or unix socket instead.
package scripted
