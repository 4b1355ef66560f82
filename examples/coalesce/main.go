// Command coalesce shows how callers share requests: two hundred of them write and read keys of their own, first each
// with requests of its own, then through package coalesce, which merges what is asked for at the same time.
package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/coalesce"
	"github.com/seed-d18e112a/clientv3/examples/internal/server"
)

const (
	prefix  = "sensors/"
	callers = 200
	calls   = 20 // of each caller, of either kind
)

func main() { server.Main(run) }

func run(ctx context.Context, endpoints []string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var requests atomic.Int64
	count := func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
		opts ...grpc.CallOption,
	) error {
		requests.Add(1)
		return invoke(ctx, method, req, reply, conn, opts...)
	}
	cli, err := clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(count)},
	})
	if err != nil {
		return err
	}
	defer cli.Close()

	for _, way := range []struct {
		name string
		get  getter
		put  putter
	}{
		{"each for itself", cli.Get, cli.Put},
		{"together", coalesce.NewKV(cli.KV).Get, coalesce.NewWriter(cli.KV).Put},
	} {
		requests.Store(0)
		start := time.Now()
		if err := crowd(ctx, way.get, way.put); err != nil {
			return err
		}
		fmt.Printf("%s: %d calls in %d requests, %v\n", way.name, 2*callers*calls, requests.Load(),
			time.Since(start).Round(time.Millisecond))
	}
	_, err = cli.Delete(ctx, prefix, clientv3.WithPrefix())
	return err
}

type (
	getter func(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error)
	putter func(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error)
)

// crowd has callers write and read. It returns the first error.
func crowd(ctx context.Context, get getter, put putter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := range calls {
				if err := writeAndRead(ctx, get, put, fmt.Sprint(prefix, i), fmt.Sprint(n)); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func writeAndRead(ctx context.Context, get getter, put putter, key, value string) error {
	if _, err := put(ctx, key, value); err != nil {
		return err
	}
	resp, err := get(ctx, key)
	if err != nil {
		return err
	}
	if len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != value {
		return fmt.Errorf("%s is %v, want %s: somebody else writes it", key, resp.Kvs, value)
	}
	return nil
}
