package clientv3util

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/seed-d18e112a/clientv3"
)

// The version of a key that does not exist is 0, and of any other at least 1.
func TestComparisonsLookAtTheVersion(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cmp    clientv3.Cmp
		result pb.Compare_CompareResult
	}{
		{"exists", KeyExists("key"), pb.Compare_GREATER},
		{"missing", KeyMissing("key"), pb.Compare_EQUAL},
	} {
		want := &pb.Compare{
			Key: []byte("key"), Target: pb.Compare_VERSION, Result: tt.result, TargetUnion: &pb.Compare_Version{},
		}
		if got := tt.cmp.GetCompare(); !proto.Equal(got, want) {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
}
