package scripted

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func dial(t *testing.T, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("passthrough:///"+target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestServerAnswersAsScriptedAndCounts(t *testing.T) {
	n := NewNetwork()
	s := n.Serve(t, "member:2379")
	kv := pb.NewKVClient(dial(t, "member:2379", n.DialOption()))

	if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a")}); err != nil {
		t.Fatalf("without a script: %v", err)
	}
	s.Handle(pb.KV_Put_FullMethodName, FailTimes(1, status.Error(codes.Aborted, "no")))
	if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("b")}); status.Code(err) != codes.Aborted {
		t.Fatalf("scripted failure: %v", err)
	}
	s.Handle(pb.KV_Range_FullMethodName, Answer(&pb.RangeResponse{Count: 7}))
	resp, err := kv.Range(t.Context(), &pb.RangeRequest{})
	if err != nil || resp.Count != 7 {
		t.Fatalf("scripted answer: %v, %v", resp, err)
	}
	if got := s.Count(pb.KV_Put_FullMethodName); got != 2 {
		t.Errorf("%d puts counted, want 2", got)
	}
	if got := s.Calls(pb.KV_Put_FullMethodName)[1].Request.(*pb.PutRequest).Key; string(got) != "b" {
		t.Errorf("key of the second put is %q", got)
	}
}

func TestCallsCanBeCutAfterTheyHaveArrived(t *testing.T) {
	n := NewNetwork()
	s := n.Serve(t, "member:2379")
	s.Handle(pb.KV_Put_FullMethodName, CutAfter)
	kv := pb.NewKVClient(dial(t, "member:2379", n.DialOption()))
	if _, err := kv.Put(t.Context(), &pb.PutRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("error %v", err)
	}
	if got := s.Count(pb.KV_Put_FullMethodName); got != 1 {
		t.Errorf("%d puts counted, want 1", got)
	}
}

func TestStoppedServerRefusesAndCanBeStartedAgain(t *testing.T) {
	s := Listen(t, "tcp", "127.0.0.1:0")
	kv := pb.NewKVClient(dial(t, s.Addr()))
	if _, err := kv.Put(t.Context(), &pb.PutRequest{}); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if _, err := kv.Put(t.Context(), &pb.PutRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("while stopped: %v", err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), &pb.PutRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Errorf("after the second start: %v", err)
	}
}

func TestModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		s := n.Serve(t, "member:2379")
		conn := dial(t, "member:2379", n.DialOption())
		defer conn.Close()
		kv := pb.NewKVClient(conn)

		s.SetMode(Hanging)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := kv.Put(ctx, &pb.PutRequest{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("hanging: %v", err)
		}
		s.SetMode(Cutting)
		s.Cut()
		if _, err := kv.Put(t.Context(), &pb.PutRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("cutting: %v", err)
		}
		s.SetMode(Serving)
		if _, err := kv.Put(t.Context(), &pb.PutRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Errorf("serving: %v", err)
		}
		if got := s.Count(pb.KV_Put_FullMethodName); got != 1 {
			t.Errorf("%d puts counted, want 1", got)
		}
	})
}

func TestFrozenServerGoesOnWhenThawed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		s := n.Serve(t, "member:2379")
		conn := dial(t, "member:2379", n.DialOption())
		defer conn.Close()
		kv := pb.NewKVClient(conn)
		if _, err := kv.Put(t.Context(), &pb.PutRequest{}); err != nil {
			t.Fatal(err)
		}
		s.Freeze()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := kv.Put(ctx, &pb.PutRequest{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("frozen: %v", err)
		}
		s.Thaw()
		if _, err := kv.Put(t.Context(), &pb.PutRequest{}); err != nil {
			t.Errorf("thawed: %v", err)
		}
	})
}

func TestStreamsAreServedAsScripted(t *testing.T) {
	n := NewNetwork()
	s := n.Serve(t, "member:2379")
	s.HandleStream(pb.Maintenance_Snapshot_FullMethodName, func(call *Call) error {
		return call.Stream.SendMsg(&pb.SnapshotResponse{RemainingBytes: 3})
	})
	stream, err := pb.NewMaintenanceClient(dial(t, "member:2379", n.DialOption())).
		Snapshot(t.Context(), &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.RemainingBytes != 3 {
		t.Errorf("first message: %v, %v", resp, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
}

// The list is written by hand; this holds it against the package's source.
func TestEtcdErrorsIsComplete(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}",
		"go.etcd.io/etcd/api/v3/v3rpc/rpctypes").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(strings.TrimSpace(string(out)), "error.go")
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if ok && strings.HasPrefix(spec.Names[0].Name, "ErrGRPC") {
			if _, made := spec.Values[0].(*ast.CallExpr); made { // not another name for one
				want++
			}
		}
		return true
	})
	seen := make(map[error]bool)
	for _, err := range EtcdErrors() {
		seen[err] = true
	}
	if len(seen) != want || want == 0 {
		t.Errorf("%d errors listed, %d declared", len(seen), want)
	}
}
