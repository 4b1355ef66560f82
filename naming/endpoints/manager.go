package endpoints

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3"
)

// NewManager returns the Manager of the endpoints of a target. It fails without a client, and without a target.
func NewManager(client *clientv3.Client, target string) (Manager, error) {
	if client == nil {
		return nil, errors.New("invalid etcd client")
	}
	if target == "" {
		return nil, errors.New("invalid target")
	}
	return &manager{client: client, prefix: target + "/"}, nil
}

type manager struct {
	client *clientv3.Client
	prefix string
}

// value is what the key of an endpoint holds, as JSON.
type value struct {
	Op       Operation
	Addr     string
	Metadata any
}

func (m *manager) Update(ctx context.Context, updates []*UpdateWithOpts) error {
	ops := make([]clientv3.Op, len(updates))
	for i, update := range updates {
		var err error
		if ops[i], err = m.op(update); err != nil {
			return err
		}
	}
	_, err := m.client.Txn(ctx).Then(ops...).Commit()
	return err
}

func (m *manager) op(update *UpdateWithOpts) (clientv3.Op, error) {
	if !strings.HasPrefix(update.Key, m.prefix) {
		return clientv3.Op{}, status.Errorf(codes.InvalidArgument,
			"endpoints: endpoint key should be prefixed with '%s' got: '%s'", m.prefix, update.Key)
	}
	switch update.Op {
	case Add:
		v, err := json.Marshal(value{Addr: update.Endpoint.Addr, Metadata: update.Endpoint.Metadata})
		if err != nil {
			return clientv3.Op{}, status.Error(codes.InvalidArgument, err.Error())
		}
		return clientv3.OpPut(update.Key, string(v), update.Opts...), nil
	case Delete:
		return clientv3.OpDelete(update.Key, update.Opts...), nil
	default:
		return clientv3.Op{}, status.Error(codes.InvalidArgument, "endpoints: bad update op")
	}
}

func (m *manager) AddEndpoint(ctx context.Context, key string, endpoint Endpoint, opts ...clientv3.OpOption) error {
	return m.Update(ctx, []*UpdateWithOpts{NewAddUpdateOpts(key, endpoint, opts...)})
}

func (m *manager) DeleteEndpoint(ctx context.Context, key string, opts ...clientv3.OpOption) error {
	return m.Update(ctx, []*UpdateWithOpts{NewDeleteUpdateOpts(key, opts...)})
}

func (m *manager) List(ctx context.Context) (Key2EndpointMap, error) {
	resp, err := m.list(ctx)
	if err != nil {
		return nil, err
	}
	all := make(Key2EndpointMap, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		if endpoint, ok := m.endpoint(kv); ok {
			all[string(kv.Key)] = endpoint
		}
	}
	return all, nil
}

func (m *manager) list(ctx context.Context) (*clientv3.GetResponse, error) {
	return m.client.Get(ctx, m.prefix, clientv3.WithPrefix(), clientv3.WithSerializable())
}

// endpoint returns the endpoint that a key holds, if it holds one.
func (m *manager) endpoint(kv *mvccpb.KeyValue) (Endpoint, bool) {
	var v value
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		m.client.GetLogger().Warn("key of an endpoint has a value that is none",
			zap.ByteString("key", kv.Key), zap.Error(err))
		return Endpoint{}, false
	}
	return Endpoint{Addr: v.Addr, Metadata: v.Metadata}, true
}
