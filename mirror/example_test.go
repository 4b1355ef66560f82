package mirror_test

import (
	"context"
	"errors"
	"log"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/mirror"
)

// A map is kept as the keys below "config/" are, until the program ends.
func Example() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	follow := func(ctx context.Context) error {
		config := make(map[string]string)
		syncer := mirror.NewSyncer(cli, "config/", 0)
		pages, errs := syncer.SyncBase(ctx)
		for page := range pages {
			for _, kv := range page.Kvs {
				config[string(kv.Key)] = string(kv.Value)
			}
		}
		if err := <-errs; err != nil {
			return err
		}
		for resp := range syncer.SyncUpdates(ctx) {
			if err := resp.Err(); err != nil {
				return err
			}
			for _, ev := range resp.Events {
				if ev.Type == clientv3.EventTypeDelete {
					delete(config, string(ev.Kv.Key))
				} else {
					config[string(ev.Kv.Key)] = string(ev.Kv.Value)
				}
			}
		}
		return ctx.Err()
	}
	for {
		// Away for so long that what was missed is compacted: copy anew.
		if err := follow(context.Background()); !errors.Is(err, rpctypes.ErrCompacted) {
			log.Fatal(err)
		}
	}
}
