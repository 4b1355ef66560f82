package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are at most 1/16 of their value wide, without allocating. The zero value is
// empty.
type histogram struct {
	counts [64 * subBuckets]uint32
	n      uint64
}

// subBuckets is the number of buckets from a power of two to the next.
const (
	subBuckets    = 1 << subBucketBits
	subBucketBits = 4
)

// bucketOf returns the bucket of a number of nanoseconds: below subBuckets one for each, then the number's highest bit
// and the subBucketBits bits that follow it.
func bucketOf(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	shift := bits.Len64(ns) - 1 - subBucketBits
	return shift*subBuckets + int(ns>>shift)
}

// lowerBound is the least number of nanoseconds in the bucket.
func lowerBound(bucket int) uint64 {
	if bucket < 2*subBuckets {
		return uint64(bucket)
	}
	shift := bucket/subBuckets - 1
	return uint64(bucket%subBuckets+subBuckets) << shift
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(uint64(max(0, d)))]++
	h.n++
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n += other.n
}

// quantile returns the middle of the bucket in which that part of the durations, from 0 to 1, ends; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.n))
	var seen uint64
	for i, n := range h.counts {
		seen += uint64(n)
		if n > 0 && seen >= rank {
			return time.Duration((lowerBound(i) + lowerBound(i+1)) / 2)
		}
	}
	return 0
}
