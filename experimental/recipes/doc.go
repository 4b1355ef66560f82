// Package recipe has what distributed programs are often built of: barriers, queues and read-write locks, on etcd. It
// is experimental, as in the official client: look at it, and at package concurrency, before you rely on it.
//
// Keys are laid out as the official client does, so programs of both kinds work together. The calls have no context:
// those that wait do so until what they wait for has happened, their session has expired, or the client is closed, and
// then return concurrency.ErrSessionExpired or context.Canceled. While the cluster cannot be reached they go on
// waiting.
//
// All types are safe for concurrent use.
package recipe
