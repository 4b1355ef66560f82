package linearizability

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/internal/watchstream/watchcheck"
)

const prefix = "lin/"

func keyOf(group string, i int) string { return group + string(rune('a'+i)) }

// readTruth returns all events from the revision first to last as a member itself has them, by a stream without any client.
func readTruth(ctx context.Context, m *etcdtest.Member, first, last int64) (*watchcheck.History, error) {
	conn, err := m.Dial(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return nil, err
	}
	create := &pb.WatchCreateRequest{
		Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), StartRevision: first,
	}
	request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}
	if err := stream.Send(request); err != nil {
		return nil, err
	}
	var h watchcheck.History
	for {
		resp, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if resp.Canceled {
			return nil, fmt.Errorf("the watch was cancelled: %s", resp.CancelReason)
		}
		for _, e := range resp.Events {
			h.Add(e)
		}
		// A revision never comes in two responses, as fragments were not asked for.
		if n := len(resp.Events); n > 0 && resp.Events[n-1].Kv.ModRevision >= last {
			return &h, nil
		}
	}
}

// written is where and when a value was written.
type written struct {
	key string
	rev int64
}

// verify compares what writers were told with what happened: a write that was told to have happened did so once, at the
// revision told; one that was told not to have happened did not; and nothing was written twice.
func verify(truth []*mvccpb.Event, records []record) []error {
	var errs []error
	by := make(map[int64]written)
	for _, e := range truth {
		if e.Type != mvccpb.Event_PUT || strings.HasSuffix(string(e.Kv.Key), endKey) {
			continue
		}
		w := written{string(e.Kv.Key), e.Kv.ModRevision}
		value, err := strconv.ParseInt(string(e.Kv.Value), 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("a value that nobody wrote: %v", e))
			continue
		}
		if before, again := by[value]; again {
			errs = append(errs, fmt.Errorf("value %d was written twice: %v and %v", value, before, w))
		}
		by[value] = w
	}
	for _, r := range records {
		for i, value := range r.Op.New {
			if !r.Op.Write || value == 0 {
				continue
			}
			w, happened := by[value]
			switch {
			case happened && w.key != keyOf(r.Op.Group, i):
				errs = append(errs, fmt.Errorf("value %d went to %v: %v", value, w, r))
			case r.failed():
				if happened && !r.MayHaveApplied {
					errs = append(errs, fmt.Errorf("it has happened, at revision %d: %v", w.rev, r))
				}
			case r.Outcome.Held != happened:
				errs = append(errs, fmt.Errorf("happened: %v, told: %v", happened, r))
			case happened && w.rev != r.Outcome.Revision:
				errs = append(errs, fmt.Errorf("it happened at revision %d: %v", w.rev, r))
			}
		}
	}
	return errs
}
