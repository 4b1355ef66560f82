// Package retry answers what an error means for a call: whether another attempt is safe and useful, what it has to
// wait for, and whether a failed write may have been applied all the same. It also holds the two things that keep
// retries from becoming a storm: exponential backoff with full jitter, and a budget shared by all calls of a client.
//
// It knows gRPC and etcd's errors only; the loop that acts on its answers is the client's.
package retry
