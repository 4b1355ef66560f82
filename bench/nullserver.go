package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// nullServerEnv makes a program that links this package be a null server instead.
const nullServerEnv = "CLIENTV3_BENCH_NULLSERVER"

// What the null server answers with.
const (
	rangeKeys      = 10_000 // keys of a range of rangePrefix
	rangePrefix    = "range/"
	valueSize      = 256
	eventsPerBatch = 100
)

// RunNullServerIfAsked turns the process into a null server if it was started as one, and does not return then. Main
// functions of programs that call startNullServer begin with it.
func RunNullServerIfAsked() {
	if os.Getenv(nullServerEnv) == "" {
		return
	}
	if err := serveNull(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "null server:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// startNullServer starts this program again as a null server and returns its endpoint, and the function that ends it.
func startNullServer() (endpoint string, stop func(), err error) {
	cmd := exec.Command(os.Args[0]) //nolint:gosec // itself
	cmd.Env = append(os.Environ(), nullServerEnv+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = stdin.Close() // tells it to end
		_ = cmd.Wait()    // its exit status says nothing more
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("null server did not start: %w", err)
	}
	return "http://" + strings.TrimSpace(line), stop, nil
}

// serveNull serves until in ends, having told its address to out.
func serveNull(in io.Reader, out io.Writer) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	answers, err := prepare()
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(answers.handle))
	if _, err := fmt.Fprintln(out, listener.Addr()); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, in) // until the parent closes it or dies
		server.Stop()
	}()
	return server.Serve(listener)
}

// answers are the encoded messages that the null server sends.
type answers struct {
	get, put, ranged, events []byte
}

func prepare() (*answers, error) {
	header := &pb.ResponseHeader{ClusterId: 14841639068965178418, MemberId: 10276657743932975437, Revision: 1 << 20,
		RaftTerm: 7}
	kv := func(i int) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: fmt.Appendf(nil, "%skey-%08d", rangePrefix, i), CreateRevision: int64(1000 + i),
			ModRevision: int64(100_000 + i), Version: 3, Value: []byte(strings.Repeat("v", valueSize))}
	}
	ranged := &pb.RangeResponse{Header: header, Count: rangeKeys}
	for i := range rangeKeys {
		ranged.Kvs = append(ranged.Kvs, kv(i))
	}
	events := &pb.WatchResponse{Header: header}
	for i := range eventsPerBatch {
		events.Events = append(events.Events, &mvccpb.Event{Kv: kv(i)})
	}
	var a answers
	for _, m := range []struct {
		to  *[]byte
		msg proto.Message
	}{
		{&a.get, &pb.RangeResponse{Header: header, Kvs: []*mvccpb.KeyValue{kv(0)}, Count: 1}},
		{&a.put, &pb.PutResponse{Header: header}},
		{&a.ranged, ranged},
		{&a.events, events},
	} {
		b, err := proto.Marshal(m.msg)
		if err != nil {
			return nil, err
		}
		*m.to = b
	}
	return &a, nil
}

// handle answers any call.
func (a *answers) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var req []byte
	if err := stream.RecvMsg(&req); err != nil {
		return err
	}
	switch method {
	case pb.KV_Range_FullMethodName:
		if strings.Contains(string(req), rangePrefix) {
			return stream.SendMsg(a.ranged)
		}
		return stream.SendMsg(a.get)
	case pb.KV_Put_FullMethodName:
		return stream.SendMsg(a.put)
	case pb.Watch_Watch_FullMethodName:
		return a.flood(stream, req)
	}
	return status.Error(codes.Unimplemented, method)
}

// flood accepts one watch and sends it events as fast as they are taken, each of a revision of its own.
func (a *answers) flood(stream grpc.ServerStream, req []byte) error {
	var create pb.WatchRequest
	if err := proto.Unmarshal(req, &create); err != nil {
		return err
	}
	id := create.GetCreateRequest().GetWatchId()
	created, err := proto.Marshal(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 1}, WatchId: id, Created: true})
	if err != nil {
		return err
	}
	if err := stream.SendMsg(created); err != nil {
		return err
	}
	batch := &pb.WatchResponse{}
	if err := proto.Unmarshal(a.events, batch); err != nil {
		return err
	}
	batch.WatchId = id
	for i, ev := range batch.Events {
		ev.Kv.ModRevision = firstRevision + int64(i)
	}
	template, err := proto.Marshal(batch)
	if err != nil {
		return err
	}
	revisions := make([]int, eventsPerBatch) // where they are in the template
	for i := range revisions {
		revisions[i] = bytes.Index(template, modRevision(firstRevision+int64(i)))
		if revisions[i] < 0 {
			return fmt.Errorf("no revision of event %d in the template", i)
		}
	}
	for first := int64(firstRevision); ; first += eventsPerBatch {
		// A copy, since gRPC has not written the last one yet.
		b := bytes.Clone(template)
		for i, at := range revisions {
			copy(b[at:], modRevision(first+int64(i)))
		}
		if err := stream.SendMsg(b); err != nil {
			return err
		}
	}
}

// firstRevision is so high that all revisions of a run are encoded in the same number of bytes.
const firstRevision = 1 << 36

// modRevision is the field of an event's key-value with that revision, encoded.
func modRevision(revision int64) []byte {
	b := protowire.AppendTag(make([]byte, 0, 8), 3, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(revision))
}

// rawCodec passes encoded messages through.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
