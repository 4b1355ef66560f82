package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// serveNull serves until in ends, having told its address to out.
func serveNull(in io.Reader, out io.Writer) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	null, err := newNullServer()
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(null.handle))
	if _, err := fmt.Fprintln(out, listener.Addr()); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, in) // until the parent closes it or dies
		server.Stop()
	}()
	return server.Serve(listener)
}

// nullServer answers with prepared bytes, so that next to nothing is spent but on the client's side.
type nullServer struct {
	get, put, txn, health []byte
	// chunk is one of a stream's, last the end of it.
	chunk, last []byte

	mu     sync.Mutex
	ranges map[int][]byte // by number of keys; made when they are asked for
	leases int64          // granted so far
}

func newNullServer() (*nullServer, error) {
	kv := preparedKV(0, valueSize)
	chunk := &pb.RangeResponse{}
	for i := range streamChunk / streamValueSize {
		chunk.Kvs = append(chunk.Kvs, preparedKV(i, streamValueSize))
	}
	putOp := &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: preparedHeader}}}
	rangeOp := &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{
		ResponseRange: &pb.RangeResponse{Header: preparedHeader, Kvs: []*mvccpb.KeyValue{kv}, Count: 1},
	}}
	s := &nullServer{ranges: make(map[int][]byte)}
	for _, m := range []struct {
		to  *[]byte
		msg proto.Message
	}{
		{&s.get, &pb.RangeResponse{Header: preparedHeader, Kvs: []*mvccpb.KeyValue{kv}, Count: 1}},
		{&s.put, &pb.PutResponse{Header: preparedHeader}},
		{&s.txn, &pb.TxnResponse{
			Header: preparedHeader, Succeeded: true, Responses: []*pb.ResponseOp{putOp, putOp, rangeOp},
		}},
		{&s.chunk, &pb.RangeStreamResponse{RangeResponse: chunk}},
		{&s.last, &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Header: preparedHeader, Count: 1}}},
		{&s.health, &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}},
	} {
		b, err := proto.Marshal(m.msg)
		if err != nil {
			return nil, err
		}
		*m.to = b
	}
	return s, nil
}

var preparedHeader = &pb.ResponseHeader{
	ClusterId: 14841639068965178418, MemberId: 10276657743932975437, Revision: 1 << 20, RaftTerm: 7,
}

func preparedKV(i, valueSize int) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: fmt.Appendf(nil, "prefix/key-%08d", i), Value: []byte(strings.Repeat("v", valueSize)),
		CreateRevision: int64(1000 + i), ModRevision: int64(100_000 + i), Version: 3,
	}
}

// handle answers any call.
func (s *nullServer) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	switch method {
	case pb.Watch_Watch_FullMethodName:
		return serveWatches(stream)
	case pb.Lease_LeaseKeepAlive_FullMethodName:
		return serveRenewals(stream)
	}
	var req []byte
	if err := stream.RecvMsg(&req); err != nil {
		return err
	}
	switch method {
	case pb.KV_Range_FullMethodName:
		return s.answerRange(stream, req)
	case pb.KV_RangeStream_FullMethodName:
		return s.answerStream(stream, req)
	case pb.KV_Put_FullMethodName:
		return stream.SendMsg(s.put)
	case pb.KV_Txn_FullMethodName:
		return stream.SendMsg(s.txn)
	case pb.Lease_LeaseGrant_FullMethodName:
		return s.grant(stream, req)
	case grpc_health_v1.Health_Check_FullMethodName:
		return stream.SendMsg(s.health)
	}
	return status.Error(codes.Unimplemented, method)
}

// answerRange answers with as many keys as the prefix asks for, see rangePrefix, or else with one.
func (s *nullServer) answerRange(stream grpc.ServerStream, req []byte) error {
	var r pb.RangeRequest
	if err := proto.Unmarshal(req, &r); err != nil {
		return err
	}
	var keys int
	if _, err := fmt.Sscanf(string(r.Key), rangeFormat, &keys); err != nil {
		return stream.SendMsg(s.get)
	}
	b, err := s.rangeOf(keys)
	if err != nil {
		return err
	}
	return stream.SendMsg(b)
}

func (s *nullServer) rangeOf(keys int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.ranges[keys]; ok {
		return b, nil
	}
	resp := &pb.RangeResponse{Header: preparedHeader, Count: int64(keys)}
	for i := range keys {
		resp.Kvs = append(resp.Kvs, preparedKV(i, valueSize))
	}
	b, err := proto.Marshal(resp)
	s.ranges[keys] = b
	return b, err
}

// answerStream sends as many chunks as the prefix asks for, see streamPrefix.
func (s *nullServer) answerStream(stream grpc.ServerStream, req []byte) error {
	var r pb.RangeRequest
	if err := proto.Unmarshal(req, &r); err != nil {
		return err
	}
	var chunks int
	if _, err := fmt.Sscanf(string(r.Key), streamFormat, &chunks); err != nil {
		return status.Errorf(codes.InvalidArgument, "prefix %q: %v", r.Key, err)
	}
	for range chunks {
		if err := stream.SendMsg(s.chunk); err != nil {
			return err
		}
	}
	return stream.SendMsg(s.last)
}

// rawCodec passes encoded messages through.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, errors.New("not an encoded message")
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return errors.New("no place for an encoded message")
	}
	*b = data.Materialize()
	return nil
}
