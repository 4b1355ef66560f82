//go:build race

package integration

// scale divides the sizes of the largest tests: the race detector makes everything slower, and the memory that they
// measure another.
const scale = 10
