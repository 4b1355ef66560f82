package integration

import (
	"context"
	"testing"
	"time"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
)

func TestSmoke(t *testing.T) {
	cl := etcdtest.Run(t, etcdtest.WithMembers(1))
	cli, err := clientv3.New(clientv3.Config{Endpoints: cl.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ch := cli.Watch(ctx, "k", clientv3.WithPrefix())
	if _, err := cli.Put(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	t.Log(<-ch)
	r, err := cli.Get(ctx, "k")
	t.Log(r, err)
	_, err = cli.Get(ctx, "")
	t.Log(err)
	l, err := cli.Grant(ctx, 10)
	t.Log(l, err)
	ka, err := cli.KeepAlive(ctx, l.ID)
	t.Log(<-ka, err)
	s, err := cli.GetStream(ctx, "k", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for c := range s {
		t.Log(c.RangeResponse, c.Err())
	}
	st, err := cli.Status(ctx, cl.Endpoints()[0])
	t.Log(st, err)
	t.Log(cli.Sync(ctx), cli.Endpoints())
}
