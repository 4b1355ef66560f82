package clientv3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

func TestErrorsOfEtcdAreTheirValues(t *testing.T) {
	ops := writes()
	for name, op := range reads() {
		ops[name] = op
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t, func(cfg *Config) { cfg.MaxUnaryRetries = 1 })
		for name, op := range ops {
			for _, sent := range scripted.EtcdErrors() {
				forms := []error{sent}
				if name == "Put" || name == "Get" {
					// Some servers send them as Unknown; the text is what they are known by.
					forms = append(forms, status.Error(codes.Unknown, status.Convert(sent).Message()))
				}
				for _, sent := range forms {
					m.handle(op.method, scripted.Fail(sent))
					err := op.do(t.Context(), c)
					value := rpctypes.Error(sent)
					if _, known := value.(rpctypes.EtcdError); !known { //nolint:errorlint // the bare value
						// The package has no value for it: it is what was sent.
						if st, ok := status.FromError(err); !ok || !errors.Is(err, sent) || st.Message() != status.Convert(sent).Message() {
							t.Errorf("%s: %#v, want the status that was sent, %v", name, err, sent)
						}
						continue
					}
					if err != value || !errors.Is(err, value) { //nolint:errorlint // identity is what is promised
						t.Errorf("%s: %#v, want %#v", name, err, value)
					}
				}
			}
		}
	})
}

func TestOtherErrorsKeepTheirStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t, func(cfg *Config) { cfg.MaxUnaryRetries = 1 })
		for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
			for name, op := range map[string]operation{"Put": writes()["Put"], "Get": reads()["Get"]} {
				m.handle(op.method, scripted.Fail(status.Error(code, "some text")))
				err := op.do(t.Context(), c)
				if st, ok := status.FromError(err); !ok || st.Code() != code || st.Message() != "some text" {
					t.Errorf("%s: %v, want code %v", name, err, code)
				}
			}
		}
	})
}

func TestContextError(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	caused, cancelCause := context.WithCancelCause(t.Context())
	cancelCause(io.EOF)
	var (
		alive       = t.Context()
		sCanceled   = status.Error(codes.Canceled, "context canceled")
		sDeadline   = status.Error(codes.DeadlineExceeded, "context deadline exceeded")
		unavailable = status.Error(codes.Unavailable, "boom")
		wrapped     = fmt.Errorf("outer: %w", rpctypes.ErrNoSpace)
	)
	for name, tt := range map[string]struct {
		ctx       context.Context //nolint:containedctx // a table
		err, want error
	}{
		"nil":                                  {alive, nil, nil},
		"nil, context ended":                   {canceled, nil, nil},
		"canceled":                             {canceled, sCanceled, context.Canceled},
		"canceled with cause":                  {caused, sCanceled, context.Canceled},
		"deadline":                             {expired, sDeadline, context.DeadlineExceeded},
		"the server's cancel, deadline passed": {expired, sCanceled, context.DeadlineExceeded},
		"the server's deadline, ctx canceled":  {canceled, sDeadline, context.Canceled},
		"the server's cancel":                  {alive, sCanceled, sCanceled},
		"the server's deadline":                {alive, sDeadline, sDeadline},
		"etcd":                                 {alive, rpctypes.ErrGRPCNoSpace, rpctypes.ErrNoSpace},
		"etcd, context ended":                  {canceled, rpctypes.ErrGRPCNoLeader, rpctypes.ErrNoLeader},
		"etcd, by text alone":                  {alive, errors.New("etcdserver: no leader"), rpctypes.ErrNoLeader},
		"etcd, as a value":                     {alive, rpctypes.ErrNoSpace, rpctypes.ErrNoSpace},
		"etcd, wrapped":                        {alive, wrapped, wrapped},
		"unavailable":                          {alive, unavailable, unavailable},
		"unavailable, context ended":           {canceled, unavailable, unavailable},
		"plain":                                {canceled, io.EOF, io.EOF},
		"plain, without context":               {nil, io.EOF, io.EOF},
	} {
		if got := ContextError(tt.ctx, tt.err); got != tt.want { //nolint:errorlint // identity is what is promised
			t.Errorf("%s: %#v, want %#v", name, got, tt.want)
		}
	}
}

func TestIsConnCanceled(t *testing.T) {
	sCanceled := status.Error(codes.Canceled, "x")
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{context.Canceled, true},
		{fmt.Errorf("get: %w", context.Canceled), true},
		{sCanceled, true},
		{fmt.Errorf("get: %w", sCanceled), true},
		{grpc.ErrClientConnClosing, true},
		{status.Error(codes.Unavailable, "transport is closing"), true},
		{status.Error(codes.Unavailable, grpc.ErrClientConnClosing.Error()), true},
		{errors.New("oh: grpc: the client connection is closing"), true},
		{context.DeadlineExceeded, false},
		{status.Error(codes.Unavailable, "connection reset"), false},
		{errors.New("transport is closing"), false},
		{io.EOF, false},
		{rpctypes.ErrNoLeader, false},
	} {
		if got := IsConnCanceled(tt.err); got != tt.want {
			t.Errorf("%v: %t, want %t", tt.err, got, tt.want)
		}
	}
}

func TestMayHaveAppliedOfRefusedPeerURLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		c := m.client(t)
		if _, err := c.MemberAdd(t.Context(), []string{"a:1"}); err == nil || MayHaveApplied(err) {
			t.Errorf("%v, may have been applied: %t", err, MayHaveApplied(err))
		}
		if n := m.count(pb.Cluster_MemberAdd_FullMethodName); n != 0 {
			t.Errorf("sent %d times", n)
		}
	})
}
