package ordering

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
	"github.com/seed-d18e112a/clientv3/ordering"
)

// twoStates are two servers whose states differ as those of a member and of one that is cut off from it do: the second
// has nothing of what was written. They are no cluster, which a client of serializable reads does not see, and so stay
// apart as long as the test wants.
func twoStates(t *testing.T, ctx context.Context, writes int) (ahead, behind string) {
	t.Helper()
	ahead, behind = etcdtest.Run(t).Endpoints()[0], etcdtest.Run(t).Endpoints()[0]
	write(t, ctx, ahead, writes, "new")
	return ahead, behind
}

func write(t *testing.T, ctx context.Context, endpoint string, writes int, value string) {
	t.Helper()
	cli := shared.ClientOf(t, endpoint)
	for range writes {
		if _, err := cli.Put(ctx, "key", value); err != nil {
			t.Fatal(err)
		}
	}
}

// reads are the ways to read what may be behind. Each returns the revision and the values it shows.
var reads = map[string]func(context.Context, clientv3.KV) (*clientv3.GetResponse, error){
	"get": func(ctx context.Context, kv clientv3.KV) (*clientv3.GetResponse, error) {
		return kv.Get(ctx, "key", clientv3.WithSerializable())
	},
	"stream": func(ctx context.Context, kv clientv3.KV) (*clientv3.GetResponse, error) {
		stream, err := kv.GetStream(ctx, "key", clientv3.WithPrefix(), clientv3.WithSerializable())
		if err != nil {
			return nil, err
		}
		return clientv3.GetStreamToGetResponse(stream)
	},
	"transaction": func(ctx context.Context, kv clientv3.KV) (*clientv3.GetResponse, error) {
		resp, err := kv.Txn(ctx).Then(clientv3.OpGet("key", clientv3.WithSerializable())).Commit()
		if err != nil {
			return nil, err
		}
		return (*clientv3.GetResponse)(resp.Responses[0].GetResponseRange()), nil
	},
}

func TestReadsNeverShowAnOlderState(t *testing.T) {
	ctx := shared.Context(t)
	ahead, behind := twoStates(t, ctx, 5)
	for name, read := range reads {
		cli := shared.ClientOf(t, ahead)
		var repeated atomic.Int32
		switching := ordering.NewOrderViolationSwitchEndpointClosure(cli)
		kv := ordering.NewKV(cli.KV, func(op clientv3.Op, resp clientv3.OpResponse, prevRev int64) error {
			repeated.Add(1)
			return switching(op, resp, prevRev)
		})
		if _, err := read(ctx, kv); err != nil {
			t.Fatal(err)
		}
		cli.SetEndpoints(ahead, behind)
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				// A hundred, and until the connection to the server that is behind is there.
				for i := 0; i < 100 || repeated.Load() == 0; i++ {
					resp, err := read(ctx, kv)
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					if len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "new" {
						t.Errorf("%s: an older state: %v", name, resp)
						return
					}
				}
			})
		}
		readers.Wait()
		if repeated.Load() == 0 {
			t.Errorf("%s: the server that is behind was never read", name)
		}
	}
}

func TestReadsFailWhileOnlyOlderStatesAreThere(t *testing.T) {
	ctx := shared.Context(t)
	const writes = 3
	for name, read := range reads {
		ahead, behind := twoStates(t, ctx, writes)
		cli := shared.ClientOf(t, ahead)
		kv := ordering.NewKV(cli.KV, ordering.NewOrderViolationSwitchEndpointClosure(cli))
		if _, err := kv.Get(ctx, "key"); err != nil {
			t.Fatal(err)
		}
		cli.SetEndpoints(behind)
		if _, err := read(ctx, kv); !errors.Is(err, ordering.ErrNoGreaterRev) {
			t.Errorf("%s: error %v, want %v", name, err, ordering.ErrNoGreaterRev)
		}
		write(t, ctx, behind, writes, "caught up")
		resp, err := read(ctx, kv)
		if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "caught up" {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
}
