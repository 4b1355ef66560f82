package coalesce

import (
	"context"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/metadata"
)

// group names the calls that may share a request. The zero group is that of linearizable calls without metadata.
type group struct {
	serializable bool
	metadata     string // in a form in which equal metadata are equal
	values       any    // those of the context keys, nested pairs; nil if there are none
}

// pair is a value of a context and those of the keys before.
type pair struct{ before, value any }

// groupOf returns the group of a call, or false if the call can share a request with no other.
func (o *options) groupOf(ctx context.Context, serializable bool) (group, bool) {
	g := group{serializable: serializable}
	if md, ok := metadata.FromOutgoingContext(ctx); ok {
		g.metadata = canonical(md)
	}
	for _, key := range o.keys {
		value := ctx.Value(key)
		if value != nil && !reflect.ValueOf(value).Comparable() {
			return g, false
		}
		g.values = pair{g.values, value}
	}
	return g, true
}

// canonical returns equal strings for equal metadata and different ones for different.
func canonical(md metadata.MD) string {
	if len(md) == 0 {
		return ""
	}
	names := make([]string, 0, len(md))
	for name := range md {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		b.WriteString(strconv.Quote(name))
		for _, value := range md[name] {
			b.WriteByte('=')
			b.WriteString(strconv.Quote(value))
		}
	}
	return b.String()
}

// contextOf returns the context of the requests of ctx's group: it has what all calls of the group have in common, and
// does not end.
func (o *options) contextOf(ctx context.Context) context.Context {
	common := context.Background()
	if md, ok := metadata.FromOutgoingContext(ctx); ok {
		common = metadata.NewOutgoingContext(common, md)
	}
	for _, key := range o.keys {
		if value := ctx.Value(key); value != nil {
			common = context.WithValue(common, key, value)
		}
	}
	return common
}
