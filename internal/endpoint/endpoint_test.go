package endpoint

import (
	"net"
	"os"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

func TestEveryForm(t *testing.T) {
	for _, tt := range []struct {
		raw                               string
		network, address, authority, dial string
		tls                               TLSNeed
	}{
		{"127.0.0.1:2379", "tcp", "127.0.0.1:2379", "127.0.0.1:2379", "127.0.0.1:2379", TLSOptional},
		{"localhost:2379", "tcp", "localhost:2379", "localhost:2379", "localhost:2379", TLSOptional},
		{":2379", "tcp", ":2379", ":2379", ":2379", TLSOptional},
		{"[::1]:2379", "tcp", "[::1]:2379", "[::1]:2379", "[::1]:2379", TLSOptional},
		{"[fe80::1%eth0]:1", "tcp", "[fe80::1%eth0]:1", "[fe80::1%eth0]:1", "[fe80::1%eth0]:1", TLSOptional},
		{"http:2379", "tcp", "http:2379", "http:2379", "http:2379", TLSOptional},

		{"http://h:1", "tcp", "h:1", "h:1", "h:1", TLSForbidden},
		{"HTTP://H:1", "tcp", "H:1", "H:1", "H:1", TLSForbidden},
		{"http://:1", "tcp", ":1", ":1", ":1", TLSForbidden},
		{"http://[::1]:1", "tcp", "[::1]:1", "[::1]:1", "[::1]:1", TLSForbidden},
		{"http://[fe80::1%25eth0]:1", "tcp", "[fe80::1%eth0]:1", "[fe80::1%eth0]:1", "[fe80::1%eth0]:1", TLSForbidden},
		{"http://u:p@h:1/path?q#f", "tcp", "h:1", "h:1", "h:1", TLSForbidden},
		{"https://h:1", "tcp", "h:1", "h:1", "h:1", TLSRequired},
		{"HTTPS://h:1/", "tcp", "h:1", "h:1", "h:1", TLSRequired},

		{"unix:/a/b.sock", "unix", "/a/b.sock", "b.sock", "unix:///a/b.sock", TLSOptional},
		{"unix:///a/b.sock", "unix", "/a/b.sock", "b.sock", "unix:///a/b.sock", TLSOptional},
		{"UNIX:///a/b.sock", "unix", "/a/b.sock", "b.sock", "unix:///a/b.sock", TLSOptional},
		{"unix:b.sock", "unix", "b.sock", "b.sock", "unix:b.sock", TLSOptional},
		{"unix://b.sock", "unix", "b.sock", "b.sock", "unix:b.sock", TLSOptional},
		{"unix:./b.sock", "unix", "./b.sock", "b.sock", "unix:./b.sock", TLSOptional},
		{"unix://./b.sock", "unix", "./b.sock", "b.sock", "unix:./b.sock", TLSOptional},
		{"unix://localhost:12345", "unix", "localhost:12345", "localhost:12345", "unix:localhost:12345", TLSOptional},
		{"unix://dir/b.sock", "unix", "dir/b.sock", "b.sock", "unix:dir/b.sock", TLSOptional},
		{"unix:@name", "unix", "@name", "@name", "unix:@name", TLSOptional},
		{"unix://@name", "unix", "@name", "@name", "unix:@name", TLSOptional},
		{"unix:///a%20b", "unix", "/a b", "a%20b", "unix:///a b", TLSOptional},
		{"unix:///a%25b", "unix", "/a%b", "a%25b", "unix:///a%25b", TLSOptional},
		{"unix:///a?q", "unix", "/a", "a?q", "unix:///a", TLSOptional},
		{"unix:a%20b?q", "unix", "a%20b?q", "a%20b?q", "unix:a%20b?q", TLSOptional},
		{"unixs:///a/b.sock", "unix", "/a/b.sock", "b.sock", "unix:///a/b.sock", TLSRequired},
		{"unixs://localhost:1", "unix", "localhost:1", "localhost:1", "unix:localhost:1", TLSRequired},
		{"UNIXS:b.sock", "unix", "b.sock", "b.sock", "unix:b.sock", TLSRequired},

		// Names that only a dialer of the user's own can make something of.
		{"bufnet", "tcp", "bufnet", "bufnet", "bufnet", TLSOptional},
		{"http://h", "tcp", "h", "h", "h", TLSForbidden},
		{"passthrough:///bufnet", "tcp", "passthrough:///bufnet", "bufnet", "passthrough:///bufnet", TLSOptional},
		{"dns:///h:1", "tcp", "dns:///h:1", "h:1", "dns:///h:1", TLSOptional},
		{"::1", "tcp", "::1", "::1", "::1", TLSOptional},
		{"h:1/path", "tcp", "h:1/path", "h:1/path", "h:1/path", TLSOptional},
	} {
		t.Run(tt.raw, func(t *testing.T) {
			got, err := Parse(tt.raw)
			if err != nil {
				t.Fatal(err)
			}
			want := Endpoint{tt.raw, tt.network, tt.address, tt.authority, tt.tls}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if dial := got.DialAddress(); dial != tt.dial {
				t.Errorf("dial address %q, want %q", dial, tt.dial)
			}
			if name := got.ServerName(); name != tt.authority {
				t.Errorf("server name %q, want %q", name, tt.authority)
			}
		})
	}
}

func TestWhatCannotBeDialledIsRefused(t *testing.T) {
	for _, tt := range []struct{ raw, want string }{
		{"", `etcdclient: endpoint "": is empty`},
		{" \t", `etcdclient: endpoint " \t": is empty`},
		{"://", `etcdclient: endpoint "://": is not a URL`},
		{"://h:1", `etcdclient: endpoint "://h:1": is not a URL`},
		{"dns://", `etcdclient: endpoint "dns://": is not a URL`},
		{"http://", `etcdclient: endpoint "http://": names no host`},
		{"https:///path", `etcdclient: endpoint "https:///path": names no host`},
		{"http://a b:1", `etcdclient: endpoint "http://a b:1": invalid character " " in host name`},
		{"http://[::1", `etcdclient: endpoint "http://[::1": missing ']' in host`},
		{"http://%zz", `etcdclient: endpoint "http://%zz": invalid URL escape "%zz"`},
		{"http://h:port", `etcdclient: endpoint "http://h:port": invalid port ":port" after host`},
		{" http://h:1", `etcdclient: endpoint " http://h:1": has white space in it`},
		{"h: 1", `etcdclient: endpoint "h: 1": has white space in it`},
		{"h:1\x00", `etcdclient: endpoint "h:1\x00": has the control character "\x00" in it`},
		{"unix:", `etcdclient: endpoint "unix:": names no socket`},
		{"unix://", `etcdclient: endpoint "unix://": names no socket`},
		{"unixs:", `etcdclient: endpoint "unixs:": names no socket`},
		{"unix:///a%zz", `etcdclient: endpoint "unix:///a%zz": invalid URL escape "%zz"`},
		{"unix:///a%00", `etcdclient: endpoint "unix:///a%00": has the control character "\x00" in it`},
		{"unix:a\n", `etcdclient: endpoint "unix:a\n": has the control character "\n" in it`},
	} {
		t.Run(tt.raw, func(t *testing.T) {
			got, err := Parse(tt.raw)
			if err == nil {
				t.Fatalf("accepted as %+v", got)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
			if got != (Endpoint{}) {
				t.Errorf("returned %+v beside the error", got)
			}
		})
	}
}

// What DialAddress and ServerName promise depends on gRPC, so here it dials for real: the authority that a server sees
// and the socket that is reached.
func TestGRPCDialsIt(t *testing.T) {
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, lis)
	tcp := lis.Addr().String()
	for _, name := range []string{"s.sock", "a b", "a%20b", "a%b?c#d", "localhost:1"} {
		lis, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		serve(t, lis)
	}
	for _, tt := range []struct{ raw, socket, authority string }{
		{tcp, tcp, tcp},
		{"http://u@" + tcp + "/path", tcp, tcp},
		{"unix://s.sock", "s.sock", "s.sock"},
		{"unix:./s.sock", "s.sock", "s.sock"},
		{"unix:" + dir + "/s.sock", "s.sock", "s.sock"},
		{"unix://" + dir + "/s.sock", "s.sock", "s.sock"},
		{"unix://localhost:1", "localhost:1", "localhost:1"},
		{"unix://" + dir + "/a%20b", "a b", "a%20b"},
		{"unix://" + dir + "/a%2520b", "a%20b", "a%2520b"},
		{"unix:a%20b", "a%20b", "a%20b"},
		{"unix://" + dir + "/a%25b%3Fc%23d", "a%b?c#d", "a%25b%3Fc%23d"},
	} {
		t.Run(tt.raw, func(t *testing.T) {
			e, err := Parse(tt.raw)
			if err != nil {
				t.Fatal(err)
			}
			socket, authority := ask(t, resolver.Address{Addr: e.DialAddress(), ServerName: e.ServerName()})
			if socket != tt.socket || authority != tt.authority {
				t.Errorf("reached %q as %q, want %q as %q", socket, authority, tt.socket, tt.authority)
			}
		})
	}
}

// serve answers every call on lis with the metadata that came with it and the address it came to.
func serve(t *testing.T, lis net.Listener) {
	t.Helper()
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(stream.Context())
		stream.SetTrailer(metadata.Pairs("authority", md.Get(":authority")[0], "socket", lis.Addr().String()))
		return nil
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(lis)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
}

// ask calls the server at addr and returns where the call arrived, and as whose.
func ask(t *testing.T, addr resolver.Address) (socket, authority string) {
	t.Helper()
	r := manual.NewBuilderWithScheme("test")
	r.InitialState(resolver.State{Addresses: []resolver.Address{addr}})
	conn, err := grpc.NewClient("test:///", grpc.WithResolvers(r),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var trailer metadata.MD
	// The server ends the call without a response, which is an error that does not matter here.
	_ = conn.Invoke(t.Context(), "/test/Ask", nil, nil, grpc.Trailer(&trailer), grpc.ForceCodecV2(noCodec{}))
	if len(trailer.Get("socket")) == 0 {
		t.Fatalf("nothing answered at %q", addr.Addr)
	}
	return trailer.Get("socket")[0], trailer.Get("authority")[0]
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "h:1", "[::1]:1", "http://h:1", "https://u@h:1/p", "dns:///h",
		"unix:/a", "unix:///a%20b?c", "unix:///%00", "unix:////", "unixs://b", "unix:@n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		e, err := Parse(raw)
		if err != nil {
			if e != (Endpoint{}) {
				t.Errorf("%+v beside the error %v", e, err)
			}
			return
		}
		if e.Raw != raw || e.Address == "" || e.Authority == "" {
			t.Errorf("%q lost something: %+v", raw, e)
		}
		if e.Network != "unix" {
			return
		}
		// The form for gRPC says the same as the endpoint, and is its own form.
		again, err := Parse(e.DialAddress())
		if err != nil {
			t.Fatalf("%q cannot be read back: %v", e.DialAddress(), err)
		}
		if again.Network != e.Network || again.Address != e.Address {
			t.Errorf("%q reads back as %+v, was %+v", e.DialAddress(), again, e)
		}
		if again.DialAddress() != e.DialAddress() {
			t.Errorf("%q is written %q the second time", e.DialAddress(), again.DialAddress())
		}
	})
}

// noCodec is for calls without content.
type noCodec struct{}

func (noCodec) Marshal(any) (mem.BufferSlice, error) { return nil, nil }
func (noCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
func (noCodec) Name() string                         { return "none" }
