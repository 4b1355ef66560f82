// Package mockserver has servers that take every call on keys and leases and answer it with nothing: for tests of how a
// program, or a load balancer, copes with servers that come and go.
//
// For tests of what a program does with its keys use a real server, as package etcdtest starts in a fraction of a
// second.
package mockserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
)

// MockServer is a server.
type MockServer struct {
	// Network is "tcp" or "unix".
	Network string
	// Address is where the server listens: "127.0.0.1:port", or the path of a socket. It stays the same when the server
	// is started again.
	Address string
	// GRPCServer is what serves; nil while the server is stopped.
	GRPCServer *grpc.Server

	serving sync.WaitGroup
}

// ResolverAddress returns the address as a gRPC resolver gives it.
func (ms *MockServer) ResolverAddress() resolver.Address {
	if ms.Network == "unix" {
		return resolver.Address{Addr: "unix://" + ms.Address}
	}
	return resolver.Address{Addr: ms.Address}
}

// MockServers are servers that were started together. Its methods are not safe for concurrent use.
type MockServers struct {
	Servers []*MockServer
}

// StartMockServers starts servers that listen on ports of 127.0.0.1. They must be stopped.
func StartMockServers(count int) (ms *MockServers, err error) {
	return StartMockServersOnNetwork(count, "tcp")
}

// StartMockServersOnNetwork starts servers on the network "tcp", on ports of 127.0.0.1, or "unix", on sockets in the
// directory for temporary files. They must be stopped.
func StartMockServersOnNetwork(count int, network string) (ms *MockServers, err error) {
	ms = &MockServers{}
	defer func() {
		if err != nil {
			ms.Stop()
			ms = nil
		}
	}()
	for i := range count {
		server := &MockServer{Network: network}
		switch network {
		case "tcp":
			server.Address = "127.0.0.1:0"
		case "unix":
			if server.Address, err = socketPath(); err != nil {
				return ms, err
			}
		default:
			return ms, fmt.Errorf("unsupported network type: %s", network)
		}
		ms.Servers = append(ms.Servers, server)
		if err := ms.StartAt(i); err != nil {
			return ms, err
		}
	}
	return ms, nil
}

// socketPath returns the path of a file that does not exist.
func socketPath() (string, error) {
	f, err := os.CreateTemp("", "etcd-mock-")
	if err != nil {
		return "", fmt.Errorf("failed to allocate a socket: %w", err)
	}
	_ = f.Close() // it was only for its name
	return f.Name(), os.Remove(f.Name())
}

// StartAt starts the server with the index again. It does nothing if the server runs.
func (ms *MockServers) StartAt(idx int) (err error) {
	server := ms.Servers[idx]
	if server.GRPCServer != nil {
		return nil
	}
	lis, err := new(net.ListenConfig).Listen(context.Background(), server.Network, server.Address)
	if err != nil {
		return fmt.Errorf("failed to listen: %w", err)
	}
	if server.Network == "tcp" {
		server.Address = lis.Addr().String()
	}
	s := grpc.NewServer()
	pb.RegisterKVServer(s, mockKVServer{})
	pb.RegisterLeaseServer(s, mockLeaseServer{})
	server.GRPCServer = s
	server.serving.Go(func() { _ = s.Serve(lis) }) // ends with Stop, without an error
	return nil
}

// StopAt stops the server with the index, and closes its connections. It does nothing if the server is stopped.
func (ms *MockServers) StopAt(idx int) {
	server := ms.Servers[idx]
	if server.GRPCServer == nil {
		return
	}
	server.GRPCServer.Stop()
	server.GRPCServer = nil
	server.serving.Wait()
}

// Stop stops all servers.
func (ms *MockServers) Stop() {
	for i := range ms.Servers {
		ms.StopAt(i)
	}
}

type mockKVServer struct{ pb.UnsafeKVServer }

func (mockKVServer) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	return &pb.RangeResponse{}, nil
}

// RangeStream sends the one chunk that there always is.
func (mockKVServer) RangeStream(_ *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	return stream.Send(&pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Header: &pb.ResponseHeader{}}})
}

func (mockKVServer) Put(context.Context, *pb.PutRequest) (*pb.PutResponse, error) {
	return &pb.PutResponse{}, nil
}

func (mockKVServer) DeleteRange(context.Context, *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	return &pb.DeleteRangeResponse{}, nil
}

func (mockKVServer) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	return &pb.TxnResponse{}, nil
}

func (mockKVServer) Compact(context.Context, *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	return &pb.CompactionResponse{}, nil
}

type mockLeaseServer struct{ pb.UnsafeLeaseServer }

func (mockLeaseServer) LeaseGrant(context.Context, *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	return &pb.LeaseGrantResponse{}, nil
}

func (mockLeaseServer) LeaseRevoke(context.Context, *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	return &pb.LeaseRevokeResponse{}, nil
}

// LeaseKeepAlive renews nothing: it ends the stream.
func (mockLeaseServer) LeaseKeepAlive(pb.Lease_LeaseKeepAliveServer) error { return nil }

func (mockLeaseServer) LeaseTimeToLive(context.Context, *pb.LeaseTimeToLiveRequest,
) (*pb.LeaseTimeToLiveResponse, error) {
	return &pb.LeaseTimeToLiveResponse{}, nil
}

func (mockLeaseServer) LeaseLeases(context.Context, *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	return &pb.LeaseLeasesResponse{}, nil
}
