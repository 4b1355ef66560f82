package etcdtest_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"os"
	"testing"
	"time"

	"github.com/seed-d18e112a/clientv3/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// A cluster in a program that is no test, and a call to it. A test uses Run.
func Example() {
	ctx := context.Background()
	cluster, err := etcdtest.Start(ctx, etcdtest.WithMembers(3))
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()

	// Any etcd client will do, with cluster.Endpoints(). The kit's own connections are plain gRPC.
	conn, err := cluster.Member(2).Dial()
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	resp, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("hello"), Value: []byte("world")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(cluster.Endpoints()), "endpoints, revision", resp.Header.Revision)
	// Output: 3 endpoints, revision 2
}

func ExampleRun() {
	test := func(t *testing.T) {
		cluster := etcdtest.Run(t, etcdtest.WithMembers(3), etcdtest.WithLogs(t.Output()))
		t.Log(cluster.Endpoints())
	}
	_ = test
}

// The cluster goes on while its leader is frozen: another member leads.
func ExampleMember_Freeze() {
	ctx := context.Background()
	cluster, err := etcdtest.Start(ctx, etcdtest.WithMembers(3), etcdtest.WithChildProcesses())
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()

	before, err := cluster.Leader(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := cluster.Member(before).Freeze(); err != nil {
		log.Fatal(err)
	}
	after, err := cluster.Leader(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the same leader:", after == before)
	// Output: the same leader: false
}

// A link that is frozen swallows a request, and delivers it once it is healed.
func ExampleProxy() {
	ctx := context.Background()
	cluster, err := etcdtest.Start(ctx, etcdtest.WithProxies(), etcdtest.WithTLS())
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	proxy := cluster.Member(0).Proxy()
	conn, err := grpc.NewClient(proxy.Addr(), grpc.WithTransportCredentials(credentials.NewTLS(cluster.ClientTLS())))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	put := func(timeout time.Duration) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("key")})
		fmt.Println(status.Code(err))
	}

	put(10 * time.Second)
	proxy.Freeze()
	put(50 * time.Millisecond)
	proxy.Heal()
	put(10 * time.Second)
	fmt.Println(proxy.Stats().Accepted, "connection")
	// Output:
	// OK
	// DeadlineExceeded
	// OK
	// 1 connection
}

// A proxy before any server, not just etcd.
func ExampleNewProxy() {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	proxy, err := etcdtest.NewProxy("tcp", server.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer proxy.Close()

	client, err := net.Dial("tcp", proxy.Addr())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	conn, err := server.Accept()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(conn, "hello")
	conn.Close()
	var word string
	_, err = fmt.Fscanln(client, &word)
	fmt.Println(word, err)
	// Output: hello <nil>
}

// A client certificate that has expired, for a test of how a client takes being refused.
func ExampleCA_Issue() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ca, err := etcdtest.NewCA(dir) // or that of a cluster, cluster.CA()
	if err != nil {
		log.Fatal(err)
	}
	cert, err := ca.Issue(etcdtest.CertSpec{CommonName: "anna", NotAfter: time.Now().Add(-time.Hour)})
	if err != nil {
		log.Fatal(err)
	}
	_, err = tls.LoadX509KeyPair(cert.CertFile, cert.KeyFile)
	fmt.Println(err)
	// Output: <nil>
}
