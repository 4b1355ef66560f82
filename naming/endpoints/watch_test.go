package endpoints

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/internal/stub"
)

// service is a target whose lists and watches the test makes up.
type service struct {
	*testing.T
	client  *clientv3.Client
	kv      stub.KV
	watcher stub.Watcher

	mu   sync.Mutex
	list *clientv3.GetResponse
	fail error
}

func newService(t *testing.T, list *clientv3.GetResponse) *service {
	s := &service{T: t, list: list}
	s.kv.Answer = func(clientv3.Op) (clientv3.OpResponse, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.fail != nil {
			return clientv3.OpResponse{}, s.fail
		}
		return s.list.OpResponse(), nil
	}
	s.client = clientv3.NewCtxClient(t.Context())
	s.client.KV, s.client.Watcher = &s.kv, &s.watcher
	return s
}

// answer sets what lists return from now on.
func (s *service) answer(list *clientv3.GetResponse, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.fail = list, err
}

func (s *service) watch(ctx context.Context) WatchChannel {
	s.Helper()
	m, err := NewManager(s.client, "svc")
	if err != nil {
		s.Fatal(err)
	}
	ch, err := m.NewWatchChannel(ctx)
	if err != nil {
		s.Fatal(err)
	}
	synctest.Wait()
	return ch
}

// send delivers a response of the latest watch.
func (s *service) send(resp clientv3.WatchResponse) {
	watches := s.watcher.Watches()
	watches[len(watches)-1].Ch <- resp
	synctest.Wait()
}

// follows checks how many watches there were, and where the latest begins.
func (s *service) follows(watches int, rev int64) {
	s.Helper()
	all := s.watcher.Watches()
	op := all[len(all)-1].Op
	if len(all) != watches || op.Rev() != rev || string(op.KeyBytes()) != "svc/" || string(op.RangeBytes()) != "svc0" {
		s.Errorf("%d watches, the last of %q to %q from %d; want %d, from %d",
			len(all), op.KeyBytes(), op.RangeBytes(), op.Rev(), watches, rev)
	}
}

func events(rev int64, events ...*clientv3.Event) clientv3.WatchResponse {
	return clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: rev}, Events: events}
}

func put(name, addr string, rev int64) *clientv3.Event {
	return &clientv3.Event{Type: clientv3.EventTypePut, Kv: key(name, addr, rev)}
}

func del(name string) *clientv3.Event {
	return &clientv3.Event{Type: clientv3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: []byte("svc/" + name)}}
}

// read returns what the channel delivers, or that it delivers nothing now.
func read(ch WatchChannel) string {
	synctest.Wait()
	select {
	case updates, open := <-ch:
		if !open {
			return "closed"
		}
		var b strings.Builder
		for _, u := range updates {
			fmt.Fprintf(&b, "%c%s=%s ", "+-"[u.Op], u.Key, u.Endpoint.Addr)
		}
		return strings.TrimSpace(b.String())
	default:
		return "nothing"
	}
}

func TestChangesAreDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, listing(9, key("a", "A", 3), key("b", "B", 4)))
		defer s.client.Close()
		ch := s.watch(t.Context())
		s.follows(1, 10)
		for _, tt := range []struct {
			resp clientv3.WatchResponse
			want string
		}{
			{events(9), "+svc/a=A +svc/b=B"}, // there before; and a response that says nothing
			{events(10, put("c", "C", 10), del("a")), "+svc/c=C -svc/a="},
			{events(11, put("c", "D", 11)), "+svc/c=D"},
			{events(12, &clientv3.Event{Kv: &mvccpb.KeyValue{Key: []byte("svc/x"), Value: []byte("?")}}), "nothing"},
			{events(13, del("x")), "-svc/x="},
		} {
			s.send(tt.resp)
			if got := read(ch); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		}
	})
}

// What happened between the revision that a watch has come to and the one that was compacted is found by comparing.
func TestChannelOutlivesCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, listing(9, key("a", "A", 3), key("b", "B", 4), key("c", "C", 5)))
		defer s.client.Close()
		ch := s.watch(t.Context())
		read(ch)
		s.send(events(10, put("d", "D", 10)))
		read(ch)

		s.answer(listing(20, key("a", "A", 3), key("b", "B2", 17), key("e", "E", 18)), nil)
		s.send(clientv3.WatchResponse{Canceled: true, CompactRevision: 15})
		if got, want := read(ch), "+svc/b=B2 +svc/e=E -svc/c= -svc/d="; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		s.follows(2, 21)
		s.send(events(21, del("e")))
		if got, want := read(ch), "-svc/e="; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// The watch ends, listing fails, then succeeds on a member that is behind, then on one that is not.
func TestChannelOutlivesFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, listing(9, key("a", "A", 3)))
		defer s.client.Close()
		ch := s.watch(t.Context())
		read(ch)

		s.answer(nil, rpctypes.ErrNoLeader)
		s.send(clientv3.WatchResponse{Canceled: true, CancelReason: "etcdserver: permission denied"})
		time.Sleep(time.Minute)
		if got := read(ch); got != "nothing" {
			t.Errorf("got %q", got)
		}
		if n := len(s.kv.Ops()); n < 10 || n > 30 {
			t.Errorf("listed %d times in a minute", n)
		}
		s.answer(listing(8), nil)
		time.Sleep(time.Minute)
		if got := read(ch); got != "nothing" {
			t.Errorf("got %q from a member that is behind", got)
		}
		s.answer(listing(9, key("a", "A", 3)), nil)
		time.Sleep(time.Minute)
		if got := read(ch); got != "nothing" {
			t.Errorf("got %q, with nothing changed", got)
		}
		s.follows(2, 10)
		s.send(events(10, del("a")))
		if got := read(ch); got != "-svc/a=" {
			t.Errorf("got %q", got)
		}
	})
}

func TestChannelIsClosedWithItsContextOrTheClient(t *testing.T) {
	for name, end := range map[string]func(*service, context.CancelFunc){
		"context": func(_ *service, cancel context.CancelFunc) { cancel() },
		"client":  func(s *service, _ context.CancelFunc) { _ = s.client.Close() },
	} {
		for state, prepare := range map[string]func(*service){
			"watching": func(*service) {},
			"not read": func(s *service) {
				for rev := range int64(3) {
					s.send(events(10+rev, del("a")))
				}
			},
			"waiting": func(s *service) {
				s.answer(nil, rpctypes.ErrNoLeader)
				s.send(clientv3.WatchResponse{Canceled: true, CompactRevision: 15})
			},
		} {
			synctest.Test(t, func(t *testing.T) {
				s := newService(t, listing(9))
				defer s.client.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ch := s.watch(ctx)
				prepare(s)
				end(s, cancel)
				got := read(ch)
				for got != "closed" && got != "nothing" {
					got = read(ch)
				}
				if got != "closed" {
					t.Errorf("%s, %s: channel delivers %s", name, state, got)
				}
			})
		}
	}
}
