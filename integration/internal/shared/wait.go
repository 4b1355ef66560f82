package shared

import (
	"context"
	"testing"

	"github.com/seed-d18e112a/clientv3"
)

// Must ends the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// AwaitKeys waits until there are n keys with the prefix.
func AwaitKeys(ctx context.Context, t testing.TB, cli *clientv3.Client, prefix string, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := cli.Watch(ctx, prefix, clientv3.WithPrefix())
	for {
		resp, err := cli.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		Must(t, err)
		if resp.Count == int64(n) {
			return
		}
		if _, ok := <-watch; !ok {
			t.Fatalf("%d keys with prefix %q, want %d", resp.Count, prefix, n)
		}
	}
}

// Background runs f, and returns a channel that gets its result.
func Background(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// Result waits for what Background returned.
func Result(ctx context.Context, t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		t.Fatal("the call did not return")
		return nil
	}
}
