package kubernetes_test

import (
	"context"
	"log"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/kubernetes"
)

// All keys of a prefix are read, 500 at a time, as they were when the first page was read.
func ExampleInterface_list() {
	cli, err := kubernetes.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	opts := kubernetes.ListOptions{Limit: 500}
	for {
		page, err := cli.Kubernetes.List(context.Background(), "/registry/pods/", opts)
		if err != nil {
			log.Fatal(err)
		}
		for _, kv := range page.Kvs {
			log.Printf("%s", kv.Key)
		}
		if int64(len(page.Kvs)) == page.Count {
			break
		}
		if opts.Revision == 0 {
			opts.Revision = page.Revision
		}
		opts.Continue = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

// A key is changed only if nobody else has changed it since it was read.
func ExampleInterface_optimisticPut() {
	cli, err := kubernetes.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	ctx := context.Background()
	got, err := cli.Kubernetes.Get(ctx, "/registry/pods/web", kubernetes.GetOptions{})
	if err != nil {
		log.Fatal(err)
	}
	kv := got.KV
	for {
		resp, err := cli.Kubernetes.OptimisticPut(ctx, "/registry/pods/web", append(kv.GetValue(), '!'),
			kv.GetModRevision(), kubernetes.PutOptions{GetOnFailure: true})
		if err != nil {
			log.Fatal(err)
		}
		if resp.Succeeded {
			break
		}
		kv = resp.KV
	}
}
