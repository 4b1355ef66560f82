//go:build race

package snapshot

// megabytes is little, since the race detector makes the server many times slower.
const megabytes = 20
