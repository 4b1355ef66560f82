package recipe

import (
	"context"

	v3 "github.com/seed-d18e112a/clientv3"
)

// Barrier makes processes wait, in Wait, as long as somebody holds it. It is a key, and stays when who holds it is
// gone.
type Barrier struct {
	client *v3.Client
	key    string
}

// NewBarrier returns the barrier with the key. It does nothing yet.
func NewBarrier(client *v3.Client, key string) *Barrier {
	return &Barrier{client: client, key: key}
}

// Hold puts up the barrier. It returns ErrKeyExists if it is there already.
func (b *Barrier) Hold() error {
	created, err := newKV(b.client, b.key, "")
	if err == nil && !created {
		return ErrKeyExists
	}
	return err
}

// Release takes away the barrier, whoever holds it. It is no error if it is not there.
func (b *Barrier) Release() error {
	_, err := b.client.Delete(b.client.Ctx(), b.key)
	return err
}

// Wait returns when the barrier is not there, at once if that is so.
func (b *Barrier) Wait() error {
	return until(b.client.Ctx(), b.client, func(ctx context.Context) (int64, []change, error) {
		resp, err := b.client.Get(ctx, b.key, v3.WithKeysOnly())
		if err != nil || len(resp.Kvs) == 0 {
			return 0, nil, err
		}
		return resp.Header.Revision, []change{deletionOf(b.key)}, nil
	})
}
