//go:build !race

package integration

// scale divides the sizes of the largest tests, under the race detector.
const scale = 1
