package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Prefixes of what is read in ranges. The number in it is that of the keys, or of the stream's chunks: it tells the null
// server what to answer.
const (
	rangeFormat  = "range/%d/"
	streamFormat = "stream/%d/"
)

// A stream's chunks are about as large as etcd's: near the limit of requests, 1.5 MiB by default.
const (
	streamChunk     = 1 << 20
	streamValueSize = 1 << 10
)

// rangeCases are ranges and the stream, one caller each.
func rangeCases(s scale) []benchCase {
	var all []benchCase
	for _, keys := range s.Ranges {
		prefix := fmt.Sprintf(rangeFormat, keys)
		all = append(all, onBoth(benchCase{
			name: fmt.Sprintf("Range of %s", plural(keys, "key")), topic: topicRanges, operation: "call", contenders: everyClient,
			fill: func(ctx context.Context, kv pb.KVClient) error {
				return fillKeys(ctx, kv, numbered(prefix, keys), strings.Repeat("v", valueSize))
			},
			run: func(ctx context.Context, m *meter) error {
				c, err := m.client()
				if err != nil {
					return err
				}
				return m.peakHeap(func() error {
					return m.calls(ctx, 1, func(ctx context.Context, _ int) error {
						n, err := c.Range(ctx, prefix)
						return wantKeys(keys, n, err)
					})
				})
			},
		})...)
	}
	prefix := fmt.Sprintf(streamFormat, s.Stream/streamChunk)
	return append(all, onBoth(benchCase{
		name: "GetStream of " + formatBytes(float64(s.Stream)), topic: topicRanges, operation: "stream", rounds: 3,
		contenders: everyClient,
		fill: func(ctx context.Context, kv pb.KVClient) error {
			return fillKeys(ctx, kv, numbered(prefix, s.Stream/streamValueSize), strings.Repeat("v", streamValueSize))
		},
		run: func(ctx context.Context, m *meter) error {
			c, err := m.client()
			if err != nil {
				return err
			}
			return m.peakHeap(func() error {
				return m.measure(func() (int, error) {
					begun := time.Now()
					size, err := c.Stream(ctx, prefix)
					m.sample[metricP50] = time.Since(begun).Seconds() // of one
					if err == nil && size < int64(s.Stream) {
						err = fmt.Errorf("%d bytes instead of %d", size, s.Stream)
					}
					return 1, err
				})
			})
		},
	})...)
}

// numbered returns that many keys with the prefix.
func numbered(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%skey-%08d", prefix, i)
	}
	return keys
}
