package etcdtest

import (
	"context"
	"os"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func try(t *testing.T, opts ...Option) {
	start := time.Now()
	var c *Cluster
	var err error
	if os.Getenv("LOGS") != "" {
		opts = append(opts, WithLogs(os.Stderr))
	}
	c, err = Start(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("start %v %v", time.Since(start), c.Endpoints())
	conn, _ := c.Member(0).Dial()
	defer conn.Close()
	if _, err := pb.NewKVClient(conn).Put(context.Background(), &pb.PutRequest{Key: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("close %v", time.Since(start))
}

func TestOne(t *testing.T)        { try(t) }
func TestThree(t *testing.T)      { try(t, WithMembers(3)) }
func TestChild(t *testing.T)      { try(t, WithChildProcesses()) }
func TestThreeChild(t *testing.T) { try(t, WithMembers(3), WithChildProcesses()) }
func TestTLS(t *testing.T)        { try(t, WithTLS()) }
func TestMTLS(t *testing.T)       { try(t, WithMutualTLS(), WithChildProcesses()) }
func TestUnix(t *testing.T)       { try(t, WithUnixSockets()) }
func TestUnixTLS(t *testing.T)    { try(t, WithUnixSockets(), WithTLS()) }
func TestUnixChild(t *testing.T)  { try(t, WithUnixSockets(), WithTLS(), WithChildProcesses()) }
