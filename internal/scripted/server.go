package scripted

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Call is a call that has arrived at a Server.
type Call struct {
	Context context.Context //nolint:containedctx // the call's, as gRPC gives it
	Method  string          // full gRPC method name
	Request proto.Message   // the request; nil for streams
	Stream  grpc.ServerStream

	server *Server
}

// Metadata returns what came with the call, including ":authority".
func (c *Call) Metadata() metadata.MD {
	md, _ := metadata.FromIncomingContext(c.Context)
	return md
}

// Cut closes the connection by which the call has come.
func (c *Call) Cut() {
	p, _ := peer.FromContext(c.Context)
	c.server.cut(func(conn *trackedConn) bool { return conn.addr == p.Addr })
}

// Unary answers a unary call.
type Unary func(call *Call) (proto.Message, error)

// Stream serves a stream until it returns.
type Stream func(call *Call) error

// Mode is what a server does with connections that are made to it.
type Mode int

const (
	// Serving is the ordinary mode.
	Serving Mode = iota
	// Hanging accepts connections and never says a word on them.
	Hanging
	// Cutting accepts connections and closes them at once.
	Cutting
)

// Server is a scripted server: make one with Network.Serve or Listen. Its methods are safe for concurrent use. It is
// stopped with the test.
type Server struct {
	network string
	addr    string
	listen  func() (net.Listener, error)
	opts    []grpc.ServerOption

	mu       sync.Mutex
	grpc     *grpc.Server // nil while stopped
	serving  sync.WaitGroup
	mode     Mode
	thawed   chan struct{} // closed when a frozen server goes on; nil if it is not frozen
	conns    map[*trackedConn]bool
	accepted int
	unary    map[string]Unary
	streams  map[string]Stream
	fallback Unary
	calls    map[string][]*Call
}

// Listen starts a server on a socket: network and address as for net.Listen, "tcp" and "127.0.0.1:0" for instance.
func Listen(t testing.TB, network, address string, opts ...grpc.ServerOption) *Server {
	t.Helper()
	s := newServer(network, address, opts)
	s.listen = func() (net.Listener, error) {
		lis, err := (&net.ListenConfig{}).Listen(context.Background(), s.network, s.addr)
		if err == nil {
			s.addr = lis.Addr().String() // the same port again after a Stop
		}
		return lis, err
	}
	s.start(t)
	return s
}

func newServer(network, addr string, opts []grpc.ServerOption) *Server {
	return &Server{
		network: network,
		addr:    addr,
		opts:    opts,
		conns:   make(map[*trackedConn]bool),
		unary:   make(map[string]Unary),
		streams: make(map[string]Stream),
		calls:   make(map[string][]*Call),
	}
}

// start starts the server for the first time.
func (s *Server) start(t testing.TB) {
	t.Helper()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
}

// Addr returns the address to dial: host:port, or the path of a unix socket.
func (s *Server) Addr() string { return s.addr }

// Endpoint returns the address as an endpoint of a client.
func (s *Server) Endpoint() string {
	if s.network == "unix" {
		return "unix://" + s.addr
	}
	return "http://" + s.addr
}

// Start makes a stopped server listen again.
func (s *Server) Start() error {
	lis, err := s.listen()
	if err != nil {
		return err
	}
	opts := append([]grpc.ServerOption{
		grpc.UnknownServiceHandler(s.serve),
		grpc.WaitForHandlers(true),
		// What etcd permits: no pings more often than every 5 s, and none without a stream.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
	}, s.opts...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grpc = grpc.NewServer(opts...)
	server := s.grpc
	s.serving.Go(func() { _ = server.Serve(&trackingListener{Listener: lis, server: s}) })
	return nil
}

// Stop closes the listener and all connections, and waits for the handlers.
func (s *Server) Stop() {
	s.mu.Lock()
	server := s.grpc
	s.grpc = nil
	s.mu.Unlock()
	if server == nil {
		return
	}
	s.Thaw() // gRPC waits for handshakes, which a frozen server does not get on with
	server.Stop()
	s.Cut() // those that hang are not known to gRPC
	s.serving.Wait()
}

// SetMode sets what becomes of connections made from now on.
func (s *Server) SetMode(mode Mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = mode
}

// Freeze makes the server read nothing any more, pings included, on connections that stay open.
func (s *Server) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.thawed == nil {
		s.thawed = make(chan struct{})
	}
}

// Thaw makes a frozen server go on.
func (s *Server) Thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.thawed != nil {
		close(s.thawed)
		s.thawed = nil
	}
}

// Cut closes all connections.
func (s *Server) Cut() { s.cut(func(*trackedConn) bool { return true }) }

func (s *Server) cut(which func(*trackedConn) bool) {
	s.mu.Lock()
	var conns []*trackedConn
	for conn := range s.conns {
		if which(conn) {
			conns = append(conns, conn)
		}
	}
	s.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// Conns returns the number of open connections.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Accepted returns the number of connections accepted so far.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Handle sets what answers the calls of a unary method. The default answer is an empty response.
func (s *Server) Handle(method string, handler Unary) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unary[method] = handler
}

// HandleAll sets what answers all unary methods that Handle was not called for.
func (s *Server) HandleAll(handler Unary) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fallback = handler
}

// HandleStream sets what serves a method as a stream.
func (s *Server) HandleStream(method string, handler Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[method] = handler
}

// Calls returns the calls of a method that have arrived so far, in their order.
func (s *Server) Calls(method string) []*Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Call(nil), s.calls[method]...)
}

// Count returns the number of calls of a method that have arrived so far.
func (s *Server) Count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls[method])
}

// Forget sets all counts back to nothing.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.calls)
}

// serve answers every call.
func (s *Server) serve(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	call := &Call{Context: stream.Context(), Method: method, Stream: stream, server: s}
	s.mu.Lock()
	serveStream := s.streams[method]
	s.mu.Unlock()
	if serveStream != nil {
		s.record(call)
		return serveStream(call)
	}
	req, resp, err := messagesOf(method)
	if err != nil {
		return err
	}
	if err := stream.RecvMsg(req); err != nil {
		return err
	}
	call.Request = req
	s.record(call)
	if handler := s.handler(method); handler != nil {
		answer, err := handler(call)
		if err != nil {
			return err
		}
		if answer != nil {
			resp = answer
		}
	}
	return stream.SendMsg(resp)
}

func (s *Server) record(call *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[call.Method] = append(s.calls[call.Method], call)
}

func (s *Server) handler(method string) Unary {
	s.mu.Lock()
	defer s.mu.Unlock()
	if handler := s.unary[method]; handler != nil {
		return handler
	}
	return s.fallback
}

// messagesOf returns an empty request and response of a unary method.
func messagesOf(method string) (req, resp proto.Message, err error) {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil, nil, status.Error(codes.Unimplemented, "unknown service "+service)
	}
	services, _ := descriptor.(protoreflect.ServiceDescriptor)
	m := services.Methods().ByName(protoreflect.Name(name))
	if m == nil || m.IsStreamingClient() || m.IsStreamingServer() {
		return nil, nil, status.Error(codes.Unimplemented, "nothing is scripted for "+method)
	}
	if req, err = newMessage(m.Input()); err != nil {
		return nil, nil, err
	}
	resp, err = newMessage(m.Output())
	return req, resp, err
}

func newMessage(d protoreflect.MessageDescriptor) (proto.Message, error) {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return nil, fmt.Errorf("scripted: %w", err)
	}
	return mt.New().Interface(), nil
}
