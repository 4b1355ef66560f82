//go:build !race

package snapshot

// megabytes is how large the restored database is at least.
const megabytes = 200
