package clientv3

import (
	"context"
	"errors"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3/internal/balance"
	"github.com/seed-d18e112a/clientv3/internal/retry"
)

// RetryKVClient returns the stub of etcd's KV service on the client's connection. Its calls are retried as those of
// KV, and return bare gRPC errors.
func RetryKVClient(c *Client) pb.KVClient { return pb.NewKVClient(c.conn) }

// RetryLeaseClient returns the stub of etcd's Lease service on the client's connection. Its unary calls are retried as
// those of Lease, and return bare gRPC errors.
func RetryLeaseClient(c *Client) pb.LeaseClient { return pb.NewLeaseClient(c.conn) }

// RetryClusterClient returns the stub of etcd's Cluster service on the client's connection. Its calls are retried as
// those of Cluster, and return bare gRPC errors.
func RetryClusterClient(c *Client) pb.ClusterClient { return pb.NewClusterClient(c.conn) }

// RetryMaintenanceClient returns the stub of etcd's Maintenance service on conn. If conn is the client's own or one of
// its Dial, unary calls are retried as those of Maintenance; errors are bare gRPC errors.
func RetryMaintenanceClient(_ *Client, conn *grpc.ClientConn) pb.MaintenanceClient {
	return pb.NewMaintenanceClient(conn)
}

// RetryAuthClient returns the stub of etcd's Auth service on the client's connection. Its calls are retried as those of
// Auth, and return bare gRPC errors.
func RetryAuthClient(c *Client) pb.AuthClient { return pb.NewAuthClient(c.conn) }

// unaryInterceptor returns the interceptor that makes the attempts of every unary call on a connection to the set.
func (c *Client) unaryInterceptor(set *balance.Set) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
		opts ...grpc.CallOption,
	) error {
		if balance.IsProbe(ctx) {
			return invoke(ctx, method, req, reply, conn, opts...)
		}
		c.budget.Deposit()
		needsLeader := retry.NeedsLeader(method, req)
		call := c.newCall(ctx, set, needsLeader)
		a := attempt{method: method, req: req, reply: reply, conn: conn, invoke: invoke, opts: opts}
		hedged := c.hedges != nil && set.Several() && retry.Hedgeable(method, req)
		if hedged {
			c.hedges.budget.Deposit()
		}
		if needsLeader && set.InDoubt() && retry.KindOf(method, req) != retry.Read {
			if err := set.AwaitProof(ctx); err != nil {
				return status.FromContextError(err).Err()
			}
		}
		token := c.currentToken()
		err := c.attempt(set, call, hedged, a)
		if err == nil {
			return nil
		}
		r := retrier{client: c, set: set, call: call, kind: c.kindOf(set, method, req), method: method, token: token}
		for {
			if err = r.next(err); err != nil {
				return err
			}
			call.Reset()
			r.token = c.currentToken()
			if err = c.attempt(set, call, hedged, a); err == nil {
				return nil
			}
		}
	}
}

// kindOf returns the kind of a unary call on a connection to the set. On those of Dial only maintenance has reads.
func (c *Client) kindOf(set *balance.Set, method string, req any) retry.Kind {
	kind := retry.KindOf(method, req)
	if kind == retry.Read && set != c.endpoints && !strings.HasPrefix(method, maintenancePrefix) {
		return retry.Write
	}
	return kind
}

const maintenancePrefix = "/etcdserverpb.Maintenance/"

// proveLeader returns nil when the members have agreed on something, which takes a leader.
func (c *Client) proveLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	return balance.Agree(ctx, pb.NewKVClient(c.conn))
}

// proofTimeout bounds a try at proving that there is a leader.
const proofTimeout = 5 * time.Second

func (c *Client) attempt(set *balance.Set, call *balance.Call, hedged bool, a attempt) error {
	if hedged {
		return c.hedges.hedge(set, call, a)
	}
	return a.make(call, a.reply)
}

// newCall returns the call of a caller's context, with the metadata of every call. One that needs a leader says so to
// the member, which then refuses it where it has none instead of letting it hang.
func (c *Client) newCall(ctx context.Context, set *balance.Set, needsLeader bool) *balance.Call {
	ask := needsLeader && set.Watched() && set.Several() // a lone member is waited for where it is
	base := callMetadata
	if ask {
		base = leaderMetadata
	}
	call := balance.NewCall(c.withMetadata(ctx, ask), base)
	if !needsLeader && !asksForLeader(ctx) {
		call.Serializable()
	}
	return call
}

// asksForLeader reports whether a caller has used WithRequireLeader.
func asksForLeader(ctx context.Context) bool {
	md, _ := metadata.FromOutgoingContext(ctx)
	values := md.Get(rpctypes.MetadataRequireLeaderKey)
	return len(values) > 0 && values[0] == rpctypes.MetadataHasLeader
}

// retryStream makes the attempts of a stream call that may be repeated as a read may, until it has its first answer: an
// attempt opens the stream under the context it is given and returns the error it met up to there. A nil client, whose
// stub is not on a connection of its own, makes one attempt.
func (c *Client) retryStream(ctx context.Context, method string, needsLeader bool, attempt func(context.Context) error,
) error {
	if c == nil {
		return attempt(ctx)
	}
	call := c.newCall(ctx, c.endpoints, needsLeader)
	r := retrier{client: c, set: c.endpoints, call: call, kind: retry.Read, method: method}
	for {
		r.token = c.currentToken()
		err := attempt(call)
		if err == nil {
			return nil
		}
		if err = r.next(err); err != nil {
			return err
		}
		call.Reset()
	}
}

// withMetadata adds the client's metadata to that of a caller who brings some, and asks for a leader unless the caller
// has said something about that. For callers who bring none the client has contexts of its own.
func (c *Client) withMetadata(ctx context.Context, ask bool) context.Context {
	md, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		return ctx
	}
	md.Set(rpctypes.MetadataClientAPIVersionKey, version.APIVersion)
	if ask && len(md.Get(rpctypes.MetadataRequireLeaderKey)) == 0 {
		md.Set(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// retrier makes the decisions about the further attempts of a unary call whose first one failed.
type retrier struct {
	client *Client
	set    *balance.Set
	call   *balance.Call
	kind   retry.Kind
	method string
	token  string // the one the last attempt went with

	attempts         uint      // further ones made so far
	waits            int       // backoffs so far
	learners         int       // attempts, the last ones, that learners refused
	learnersSince    time.Time // the first of these
	refusals         int       // attempts refused for want of a leader
	refusedSince     time.Time // when a token was first refused; zero before
	triedTwice       string    // a fresh token that was refused and tried again
	anonymous        int       // attempts with a token that were refused for want of a user name
	refusal          error     // why there is no new token, if the server said so
	unreachableSince time.Time // when the call first found no endpoint connected; zero while it does find one
}

// next decides about err, with which the last attempt failed, and waits for what the next one needs. It returns nil if
// there is to be a next one, and else the error of the call.
func (r *retrier) next(err error) error {
	err = retry.Canonical(err)
	ctx := r.call.Context
	awaitDeadline(ctx, err)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || r.kind != retry.Read && retry.TimedOut(err) {
		r.set.TimedOut(r.call)
	}
	action := retry.Decide(r.kind, r.call.Sent(), err)
	if action != retry.Reconnect {
		r.unreachableSince = time.Time{}
	}
	again := false
	if ctx.Err() == nil {
		switch action {
		case retry.Reconnect:
			again = r.reconnect(ctx)
		case retry.Reauthenticate:
			again = r.reauthenticate(ctx, err)
		case retry.Again:
			again = r.again(ctx, err)
		case retry.FindLeader:
			again = r.findLeader(ctx, err)
		case retry.GiveUp:
		}
	}
	switch {
	case again:
		return nil
	case ctx.Err() != nil && (action == retry.Reconnect || (action != retry.GiveUp && r.kind == retry.Read) ||
		action == retry.FindLeader && !asksForLeader(ctx)):
		// It is the context that has put an end to the attempts. A write's refusal is told all the same: it says that
		// the write was not applied, which a context error does not. But who has not asked for a leader knows nothing
		// of such a refusal, and has waited for one.
		return status.FromContextError(ctx.Err()).Err()
	case r.refusal != nil:
		return r.refusal
	case !r.call.Sent():
		return &retry.UnsentError{Err: err}
	}
	return err
}

// awaitDeadline waits for the end of ctx if err is its deadline as the server saw it. The server keeps its own time:
// its answer that the deadline has passed may be here a moment before the deadline is, and callers are promised that they
// see a bare context error then.
func awaitDeadline(ctx context.Context, err error) {
	if status.Code(err) != codes.DeadlineExceeded {
		return
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < deadlineSkew {
		<-ctx.Done()
	}
}

// deadlineSkew is how much earlier than the client's a server's answer that the call's deadline has passed may be.
const deadlineSkew = 100 * time.Millisecond

// reconnect waits until an endpoint is connected, within its patience.
func (r *retrier) reconnect(ctx context.Context) bool {
	first := r.unreachableSince.IsZero()
	if first {
		r.unreachableSince = time.Now()
	}
	patience := r.patience()
	if r.kind == retry.Read && r.set.Reached() {
		patience *= reachedPatience
	}
	left := patience - time.Since(r.unreachableSince)
	if left <= 0 {
		return false
	}
	if !first && r.backOff(ctx) != nil {
		return false // not at once: an endpoint was connected, and the attempt has not left the client all the same
	}
	return r.set.WaitReady(ctx, left) == nil
}

// reauthenticate fetches a new token in place of the one that was refused. If the server refuses that too, its reason
// is the error of the call; if it fails otherwise, the first refusal stands.
//
// A token that is refused although it is fresh may be unknown to this member only, which is a little behind the one that
// issued it. So it is tried once more, after a backoff and, if possible, at another endpoint, before it is replaced.
func (r *retrier) reauthenticate(ctx context.Context, err error) bool {
	tokens := r.client.tokens
	if tokens == nil || r.method == pb.Auth_Authenticate_FullMethodName {
		return false
	}
	if r.refusedSince.IsZero() {
		r.refusedSince = time.Now()
	}
	if time.Since(r.refusedSince) > tokenPatience {
		return false
	}
	r.log("token refused", err)
	reason := rpctypes.Error(err)
	if reason == rpctypes.ErrUserEmpty && r.token != "" {
		// Said to a call without a token, but also by a member that took this one before it had heard that
		// authentication is on. Or else the request itself names no user, as UserAdd's may: no token helps then.
		if r.anonymous++; r.anonymous > anonymousTries {
			return false
		}
	}
	if tokens.Fresh(r.token) {
		r.call.Avoid(r.set.Size())
		if r.backOff(ctx) != nil {
			return false
		}
		if reason == rpctypes.ErrInvalidAuthToken && r.token != r.triedTwice {
			r.triedTwice = r.token
			return true
		}
	}
	if _, fetchErr := tokens.Refresh(ctx, r.token); fetchErr != nil {
		r.log("new token not obtained", fetchErr)
		if etcdErr, ok := errors.AsType[rpctypes.EtcdError](fetchErr); ok && !retry.MayHaveApplied(etcdErr) {
			r.refusal = etcdErr
		}
		return false
	}
	return true
}

// tokenPatience is how long a call goes on while fresh tokens are refused: members are not so far behind each other for
// long, and a cluster that takes none has another problem.
const tokenPatience = 5 * time.Second

// anonymousTries is how often a call is made again that is refused for want of a user name although it has a token.
const anonymousTries = 2

// again waits for the retry budget, and for the backoff unless an endpoint is left that may do better at once.
func (r *retrier) again(ctx context.Context, err error) bool {
	r.attempts++
	if r.attempts >= r.client.maxAttempts() {
		return false
	}
	r.log("attempt failed", err)
	if !retry.FromLearner(err) {
		r.learners = 0
	} else if !r.awaitsVoter() {
		return false
	}
	r.set.Refused(r.call, err)
	untried := r.call.Avoid(r.set.Size())
	if !untried || !retry.Elsewhere(err) {
		if r.backOff(ctx) != nil {
			return false
		}
	}
	for !r.set.Closed() && !r.client.budget.Withdraw() {
		if r.backOff(ctx) != nil {
			return false
		}
	}
	return true
}

// awaitsVoter counts an attempt that a learner refused, and reports whether there is another endpoint to hope for: one
// that has not been tried, or is being connected to. Learners stay what they are.
func (r *retrier) awaitsVoter() bool {
	if r.learners == 0 {
		r.learnersSince = time.Now()
	}
	r.learners++
	return r.learners <= r.set.Size() || r.set.Connecting() && time.Since(r.learnersSince) < r.patience()
}

// patience is how long a call waits for an endpoint to be connected: as long as all attempts with their waits would take.
func (r *retrier) patience() time.Duration {
	return time.Duration(r.client.maxAttempts()) * r.client.backoff.Base
}

// findLeader waits until a member is known that has a leader, unless one is already. The members are asked once for all
// who wait, so further attempts take nothing from the budget. Who has asked for a leader is told at once if there is
// none.
func (r *retrier) findLeader(ctx context.Context, err error) bool {
	if !r.set.Watched() {
		return r.again(ctx, err)
	}
	r.attempts++
	if r.attempts >= r.client.maxAttempts() {
		return false
	}
	r.log("attempt refused", err)
	r.set.Refused(r.call, err)
	if asksForLeader(ctx) && !r.set.HasLeader() {
		return false
	}
	r.call.NeedsLeader() // it may be one of those that need none for all that is known
	if r.refusals++; r.refusals >= r.set.Size() && r.backOff(ctx) != nil {
		return false // it has been to each of them, so what is known of them does not help
	}
	return r.set.WaitLeader(ctx) == nil
}

// backOff waits, but not for longer than the connection is open: the next attempt says that it is not.
func (r *retrier) backOff(ctx context.Context) error {
	r.waits++
	return r.set.Sleep(ctx, r.client.backoff.Delay(r.waits-1))
}

func (r *retrier) log(message string, err error) {
	r.client.logger().Debug(message, zap.String("method", r.method), zap.Stringer("endpoint", r.call),
		zap.Uint("attempt", r.attempts), zap.Error(err))
}

// maxAttempts is the largest number of attempts at a unary call.
func (c *Client) maxAttempts() uint {
	if c.cfg.MaxUnaryRetries > 0 {
		return c.cfg.MaxUnaryRetries
	}
	return DefaultMaxUnaryRetries
}

// reachedPatience is how many times longer a read waits for a cluster that was reached before: it is probably on its
// way back, while one that never was is probably not at these endpoints. A write is not kept waiting so long: its
// caller would be left with a context error, which does not say that it was not applied.
const reachedPatience = 10
