package concurrency

import (
	"context"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/goleak"

	v3 "github.com/seed-d18e112a/clientv3"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a cluster that does what a test says. What it does not say hangs until its context ends.
type scripted struct {
	v3.KV
	v3.Lease
	v3.Watcher

	renewals chan *v3.LeaseKeepAliveResponse // of the one session

	mu sync.Mutex
	script
}

// script is what the cluster does.
type script struct {
	txn        func(ctx context.Context) (*v3.TxnResponse, error)
	holds      func(v3.Cmp) bool // whether a transaction's comparison does, or else it fails; nil: each does
	get        func(ctx context.Context) (*v3.GetResponse, error)
	timeToLive func(ctx context.Context) (*v3.LeaseTimeToLiveResponse, error)
	revoke     func(ctx context.Context) (*v3.LeaseRevokeResponse, error)
	watch      func(key string) *v3.WatchResponse // the first response; nil: never one
}

// does changes what the cluster does.
func (s *scripted) does(change func(*script)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.script)
}

func (s *scripted) now() script {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.script
}

// newScripted returns a client of it.
func newScripted(t *testing.T) (*scripted, *v3.Client) {
	t.Helper()
	s := &scripted{renewals: make(chan *v3.LeaseKeepAliveResponse, 1)}
	client := v3.NewCtxClient(context.Background())
	client.KV, client.Lease, client.Watcher = s, s, s
	t.Cleanup(func() { _ = client.Close() })
	return s, client
}

const leaseID = 0x1234

func (s *scripted) Grant(_ context.Context, ttl int64) (*v3.LeaseGrantResponse, error) {
	return &v3.LeaseGrantResponse{ID: leaseID, TTL: ttl}, nil
}

func (s *scripted) KeepAlive(ctx context.Context, _ v3.LeaseID) (<-chan *v3.LeaseKeepAliveResponse, error) {
	out := make(chan *v3.LeaseKeepAliveResponse)
	go func() {
		defer close(out)
		for {
			select {
			case resp, ok := <-s.renewals:
				if !ok {
					return
				}
				out <- resp
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// Close is that of the Lease and of the Watcher.
func (s *scripted) Close() error { return nil }

// renew renews the session's lease.
func (s *scripted) renew(ttl int64) {
	s.renewals <- &v3.LeaseKeepAliveResponse{ID: leaseID, TTL: ttl}
}

func (s *scripted) Revoke(ctx context.Context, _ v3.LeaseID) (*v3.LeaseRevokeResponse, error) {
	return answer(ctx, s.now().revoke)
}

func (s *scripted) TimeToLive(ctx context.Context, _ v3.LeaseID, _ ...v3.LeaseOption) (
	*v3.LeaseTimeToLiveResponse, error,
) {
	return answer(ctx, s.now().timeToLive)
}

func (s *scripted) Get(ctx context.Context, _ string, _ ...v3.OpOption) (*v3.GetResponse, error) {
	return answer(ctx, s.now().get)
}

func (s *scripted) Watch(ctx context.Context, key string, _ ...v3.OpOption) v3.WatchChan {
	watch := make(chan v3.WatchResponse, 1)
	if f := s.now().watch; f != nil {
		if resp := f(key); resp != nil {
			watch <- *resp
		}
	}
	context.AfterFunc(ctx, func() { close(watch) })
	return watch
}

func (s *scripted) Txn(ctx context.Context) v3.Txn { return &scriptedTxn{s: s, ctx: ctx} }

type scriptedTxn struct {
	s    *scripted
	ctx  context.Context
	cmps []v3.Cmp
}

func (t *scriptedTxn) If(cmps ...v3.Cmp) v3.Txn { t.cmps = cmps; return t }
func (t *scriptedTxn) Then(...v3.Op) v3.Txn     { return t }
func (t *scriptedTxn) Else(...v3.Op) v3.Txn     { return t }

func (t *scriptedTxn) Commit() (*v3.TxnResponse, error) {
	script := t.s.now()
	for _, cmp := range t.cmps {
		if script.holds != nil && !script.holds(cmp) {
			return &v3.TxnResponse{Header: &pb.ResponseHeader{}}, nil
		}
	}
	return answer(t.ctx, script.txn)
}

func answer[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	if f != nil {
		return f(ctx)
	}
	<-ctx.Done()
	var none T
	return none, ctx.Err()
}

// acquires makes the cluster give the lock to who asks.
func acquires(s *script) {
	s.txn = func(context.Context) (*v3.TxnResponse, error) { return acquired("lock/1234", 7), nil }
}

// queued is the response to a request for a key that was created in the revision and is not the first one.
func queued(key string, rev int64) *v3.TxnResponse {
	resp := acquired(key, rev)
	resp.Responses[2].GetResponseRange().Kvs = []*mvccpb.KeyValue{{Key: []byte("lock/1"), CreateRevision: 1}}
	return resp
}

// follows is the response that tells which key is before the one that asks.
func follows(older string, rev int64) *v3.TxnResponse {
	kvs := []*mvccpb.KeyValue{{Key: []byte(older), CreateRevision: 1}}
	get := &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Kvs: kvs}}
	return &v3.TxnResponse{
		Header: &pb.ResponseHeader{Revision: rev}, Succeeded: true, Responses: []*pb.ResponseOp{{Response: get}},
	}
}

// refuses makes it refuse all transactions.
func refuses(err error) func(*script) {
	return func(s *script) { s.txn = func(context.Context) (*v3.TxnResponse, error) { return nil, err } }
}

// acquired is the response to a request for a key that was created in the revision and is the first one.
func acquired(key string, rev int64) *v3.TxnResponse {
	kvs := []*mvccpb.KeyValue{{Key: []byte(key), CreateRevision: rev}}
	get := func() *pb.ResponseOp {
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Kvs: kvs}}}
	}
	return &v3.TxnResponse{
		Header: &pb.ResponseHeader{Revision: rev}, Succeeded: true, Responses: []*pb.ResponseOp{{}, get(), get()},
	}
}
