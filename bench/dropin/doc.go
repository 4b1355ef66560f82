// Package dropin holds the proof that a program of the official client can move to this one by changing import paths: the
// two APIs are compared by type, and etcd's own server and etcdctl are compiled and run with this client in the official
// one's place.
//
// Both need this client under the official import path, as a copy of its sources has it. testdata/swap is the module that
// has the copy in the official client's place; the versions of all that the server and etcdctl need are pinned there.
// After a change of this client's own dependencies
//
//	go test ./bench/dropin -update
//
// brings it up to date.
package dropin
