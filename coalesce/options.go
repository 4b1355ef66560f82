package coalesce

// Defaults of the options.
const (
	// DefaultMaxOps is the server's own default (--max-txn-ops).
	DefaultMaxOps = 128
	// DefaultMaxBytes is what gRPC lets pass at any server: 512 KiB above the limit of requests (--max-request-bytes,
	// 1.5 MiB by default). So a server with a low limit refuses a request in words that say that nothing was applied.
	DefaultMaxBytes = 512 << 10
	// DefaultInFlight lets the server work on one request while the answer to another is read.
	DefaultInFlight = 2
)

// Option changes a bound of NewKV or NewWriter.
type Option func(*options)

type options struct {
	maxOps   int
	maxBytes int
	inFlight int
	keys     []any
}

// WithMaxOps sets the largest number of operations in a request. The default, also for numbers below 1, is
// DefaultMaxOps. A server with a smaller limit (--max-txn-ops) makes the number smaller by itself, for good.
func WithMaxOps(n int) Option {
	return func(o *options) {
		if n > 0 {
			o.maxOps = n
		}
	}
}

// WithMaxBytes sets how many bytes a request may have, and a response is expected to have. The default, also for
// numbers below 1, is DefaultMaxBytes. An operation that is larger than that goes out by itself.
//
// How large a value is, is known when it has been read: what is expected goes by the values read before.
func WithMaxBytes(n int) Option {
	return func(o *options) {
		if n > 0 {
			o.maxBytes = n
		}
	}
}

// WithInFlight sets how many requests with the same metadata are under way at a time, linearizable and serializable ones
// counted apart. The default, also for numbers below 1, is DefaultInFlight. The more there are, the fewer calls share
// one.
func WithInFlight(n int) Option {
	return func(o *options) {
		if n > 0 {
			o.inFlight = n
		}
	}
}

// WithContextKeys names keys of context values on which the answer to a call may depend: those that an interceptor or
// the per-RPC credentials of the connection read, say to choose a token. Calls in whose contexts such a value differs
// never share a request, and a request carries these values. By default there are none, and a shared request has its
// calls' outgoing metadata and no value besides. A call with a value that cannot be compared goes out by itself.
func WithContextKeys(keys ...any) Option {
	return func(o *options) { o.keys = append(o.keys, keys...) }
}

func newOptions(opts []Option) options {
	o := options{maxOps: DefaultMaxOps, maxBytes: DefaultMaxBytes, inFlight: DefaultInFlight}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}
