package watchstream

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3/internal/watchstream/watchcheck"
)

var modelSeed = flag.Uint64("seed", 0, "run TestModel with this seed only")

// TestModel runs random watches with random consumers against a model of a cluster: a store with a history, and streams
// that behave as a server's do and break at any point. What the consumers got is checked against the history.
func TestModel(t *testing.T) {
	seeds := []uint64{*modelSeed}
	if *modelSeed == 0 {
		seeds = seeds[:0]
		for range 20 {
			seeds = append(seeds, rand.Uint64())
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runModel(t, seed) })
		})
	}
}

// cluster is the model. Its random numbers are for the goroutine that has the lock.
type cluster struct {
	mu       sync.Mutex
	rand     *rand.Rand
	history  watchcheck.History
	rev      int64
	versions map[string]*mvccpb.KeyValue
	calm     bool // nothing breaks any more

	tokens   int // how often the token was renewed
	expired  int // tokens before this one are refused
	accepted bool
}

func (c *cluster) chance(n int) bool { return c.intn(n) == 0 }

func (c *cluster) intn(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rand.IntN(n)
}

// fault is chance while things break.
func (c *cluster) fault(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.calm && c.rand.IntN(n) == 0
}

func (c *cluster) pause(limit time.Duration) { time.Sleep(time.Duration(c.intn(int(limit)) + 1)) }

// write does a transaction of up to five puts and deletes.
func (c *cluster) write() {
	c.mu.Lock()
	defer c.mu.Unlock()
	rev := c.rev + 1
	for _, k := range c.rand.Perm(8)[:1+c.rand.IntN(5)] {
		key := string(rune('a' + k))
		old := c.versions[key]
		switch {
		case c.rand.IntN(4) > 0:
			kv := &mvccpb.KeyValue{Key: []byte(key), ModRevision: rev, CreateRevision: rev, Version: 1}
			kv.Value = fmt.Append(nil, c.rand.Uint64())
			if old != nil {
				kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
			}
			c.versions[key] = kv
			c.history.Add(&mvccpb.Event{Kv: kv})
		case old != nil:
			delete(c.versions, key)
			kv := &mvccpb.KeyValue{Key: []byte(key), ModRevision: rev}
			c.history.Add(&mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv})
		default:
			continue
		}
		c.rev = rev
	}
}

func (c *cluster) compact() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.Compacted = max(c.history.Compacted, c.rev-20-int64(c.rand.IntN(100)))
}

func (c *cluster) expireToken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.accepted { // as a token that is new is valid
		c.expired, c.accepted = c.tokens+1, false
	}
}

func (c *cluster) renewToken(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens = c.expired
	return nil
}

// member serves one stream.
type member struct {
	*cluster
	s        *fakeStream
	proxy    bool // has its own watch ids
	ownID    int64
	token    int
	lag      int64 // how many revisions it is behind
	watchers map[int64]*served
}

type served struct {
	req  *pb.WatchCreateRequest
	spec watchcheck.Watch
	next int64
	dead bool // compacted, and not cancelled by the client
}

func (m *member) rev() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(1, m.cluster.rev-m.lag)
}

// cut ends the stream by chance, and returns whether it has ended.
func (m *member) cut(n int) bool {
	if m.fault(n) {
		m.s.end([]error{errCut, io.EOF, rpctypes.ErrGRPCStopped}[m.intn(3)])
		<-m.s.ctx.Done()
	}
	return m.s.ctx.Err() != nil
}

func (m *member) serve() {
	for !m.cut(150) {
		select {
		case req := <-m.s.requests:
			m.handle(req)
		case <-time.After(m.tick()):
			if m.lag > 0 && m.chance(3) {
				m.lag--
			}
			for id, w := range m.watchers {
				if m.chance(2) {
					m.send(id, w)
				}
			}
		case <-m.s.ctx.Done():
		}
	}
}

// tick returns how long until something is sent.
func (m *member) tick() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calm {
		return time.Second
	}
	return time.Duration(m.rand.IntN(int(40 * time.Millisecond)))
}

func (m *member) handle(req *pb.WatchRequest) {
	switch u := req.RequestUnion.(type) {
	case *pb.WatchRequest_CreateRequest:
		m.create(u.CreateRequest)
	case *pb.WatchRequest_CancelRequest:
		if _, ok := m.watchers[u.CancelRequest.WatchId]; ok {
			delete(m.watchers, u.CancelRequest.WatchId)
			m.s.reply(&pb.WatchResponse{Header: header(m.rev()), WatchId: u.CancelRequest.WatchId, Canceled: true})
		}
	case *pb.WatchRequest_ProgressRequest:
		rev := m.rev()
		for _, w := range m.watchers {
			if w.next <= rev || w.dead || w.req.StartRevision > rev {
				return
			}
		}
		m.s.reply(progress(-1, rev))
	}
}

func (m *member) create(req *pb.WatchCreateRequest) {
	m.mu.Lock()
	valid := m.token >= m.expired
	m.mu.Unlock()
	if !valid {
		m.s.reply(refused(-1, rpctypes.ErrGRPCInvalidAuthToken.Error()))
		return
	}
	w := &served{req: req, next: req.StartRevision, spec: watchcheck.Watch{Key: req.Key, RangeEnd: req.RangeEnd}}
	for _, f := range req.Filters {
		w.spec.NoPut = w.spec.NoPut || f == pb.WatchCreateRequest_NOPUT
		w.spec.NoDelete = w.spec.NoDelete || f == pb.WatchCreateRequest_NODELETE
	}
	if w.next == 0 {
		w.next = m.rev() + 1
	}
	id := req.WatchId
	if m.proxy {
		id = m.ownID
		m.ownID++
	}
	m.pause(time.Millisecond) // the header's revision is read after the registration
	if m.cut(60) {
		return
	}
	if m.s.reply(created(id, m.rev())) {
		m.mu.Lock()
		m.accepted = true
		m.mu.Unlock()
	}
	m.watchers[id] = w
	if m.chance(2) {
		m.send(id, w)
	}
}

// send sends what the watcher has yet to get, or a part of it.
func (m *member) send(id int64, w *served) {
	if w.dead {
		return
	}
	rev := m.rev()
	m.mu.Lock()
	compactRev := m.history.Compacted
	limit := 1 + m.rand.IntN(20)
	var resp *pb.WatchResponse
	if w.next >= compactRev {
		resp = &pb.WatchResponse{Header: header(rev), WatchId: id}
		revs := 0
		for _, e := range m.history.Events(w.next) {
			if e.Kv.ModRevision > rev {
				break
			}
			if e.Kv.ModRevision >= w.next {
				if revs++; revs > limit {
					break
				}
				w.next = e.Kv.ModRevision + 1
			}
			if !w.spec.Matches(e) {
				continue
			}
			sent := &mvccpb.Event{Type: e.Type, Kv: e.Kv}
			if w.req.PrevKv && e.Kv.ModRevision-1 >= compactRev {
				sent.PrevKv = m.history.Previous(e)
			}
			resp.Events = append(resp.Events, sent)
		}
	}
	m.mu.Unlock()
	switch {
	case resp == nil:
		w.dead = true
		m.s.reply(compacted(id, compactRev))
	case len(resp.Events) > 0 && w.req.Fragment:
		m.sendFragments(resp)
	case len(resp.Events) > 0:
		m.s.reply(resp)
	case w.req.ProgressNotify && w.next > rev && w.req.StartRevision <= rev && m.chance(3):
		m.s.reply(progress(id, rev))
	}
}

func (m *member) sendFragments(resp *pb.WatchResponse) {
	for rest := resp.Events; len(rest) > 0; {
		n := 1 + m.intn(len(rest))
		part := &pb.WatchResponse{Header: resp.Header, WatchId: resp.WatchId, Events: rest[:n:n]}
		rest = rest[n:]
		part.Fragment = len(rest) > 0
		if m.cut(100) {
			return
		}
		m.s.reply(part)
	}
}

// consumer is one watch and what it got.
type consumer struct {
	req   Request
	watch watchcheck.Watch
	got   []watchcheck.Response
	last  Response
	gone  bool // its context was ended
}

func (c *cluster) consumer() *consumer {
	rev := func() int64 { c.mu.Lock(); defer c.mu.Unlock(); return c.rev }()
	k := &consumer{}
	first := c.intn(8)
	k.req = Request{
		Key: []byte{byte('a' + first)}, CreatedNotify: true,
		ProgressNotify: c.chance(2), PrevKV: c.chance(2), Fragment: c.chance(2),
	}
	switch c.intn(3) {
	case 0:
		k.req.RangeEnd = []byte{byte('a' + first + 1 + c.intn(4))}
	case 1:
		k.req.RangeEnd = []byte{0}
	}
	switch c.intn(4) {
	case 0:
		k.req.StartRevision = max(1, rev-int64(c.intn(30)))
	case 1:
		k.req.StartRevision = rev + int64(c.intn(10))
	}
	k.watch = watchcheck.Watch{
		Key: k.req.Key, RangeEnd: k.req.RangeEnd, Start: k.req.StartRevision, PrevKV: k.req.PrevKV,
	}
	switch c.intn(5) {
	case 0:
		k.req.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
		k.watch.NoPut = true
	case 1:
		k.req.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
		k.watch.NoDelete = true
	}
	return k
}

// consume reads the channel at its own pace until it is closed.
func (c *cluster) consume(k *consumer, ch <-chan Response, slow bool) {
	for r := range ch {
		k.got = append(k.got, watchcheck.Response{
			Revision: r.Header.GetRevision(), Events: r.Events, Created: r.Created, Canceled: r.Canceled,
			CompactRevision: r.CompactRevision,
		})
		if r.Created && k.watch.Start == 0 {
			k.watch.Start = r.Header.Revision + 1
		}
		k.last = r
		if slow {
			c.pause(600 * time.Millisecond)
		}
	}
}

func runModel(t *testing.T, seed uint64) {
	c := &cluster{rand: rand.New(rand.NewPCG(seed, 1)), rev: 1, versions: make(map[string]*mvccpb.KeyValue)}
	b := newBench(t, Config[Response]{
		MaxPendingEvents: 30, MaxPendingBytes: 40 * (responseSize + eventSize), Reauthenticate: c.renewToken,
	})
	b.client.refuse = func() error {
		if c.fault(5) {
			return errCut
		}
		return nil
	}
	over := make(chan struct{})
	var members, consumers sync.WaitGroup
	var streams atomic.Int64
	members.Go(func() {
		for {
			select {
			case <-over:
				return
			case s := <-b.client.accepts:
				streams.Add(1)
				s.t = t
				c.mu.Lock()
				m := &member{
					cluster: c, s: s, proxy: c.rand.IntN(4) == 0, token: c.tokens, lag: int64(c.rand.IntN(8)),
					watchers: make(map[int64]*served),
				}
				c.mu.Unlock()
				members.Go(m.serve)
			}
		}
	})
	var all []*consumer
	start := func() {
		k := c.consumer()
		all = append(all, k)
		ctx, cancel := context.WithCancel(t.Context())
		slow, leaves := c.chance(2), c.chance(5)
		consumers.Go(func() {
			defer cancel()
			if leaves {
				k.gone = true
				time.AfterFunc(time.Duration(c.intn(int(20*time.Second))), cancel)
			}
			c.consume(k, b.Watch(ctx, k.req), slow)
		})
	}
	for range 20 {
		start()
	}
	for i := range 400 {
		c.write()
		c.pause(100 * time.Millisecond)
		switch {
		case c.chance(20):
			start()
		case c.chance(40):
			c.compact()
		case c.chance(60):
			c.expireToken()
		case c.chance(20):
			if err := b.RequestProgress(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if i == 390 {
			c.mu.Lock()
			c.calm = true
			c.mu.Unlock()
		}
	}
	time.Sleep(5 * time.Minute)
	c.mu.Lock()
	end := c.rev
	c.mu.Unlock()
	b.Close()
	consumers.Wait()
	close(over)
	members.Wait()

	delivered := 0
	for i, k := range all {
		if k.last.Canceled && k.last.Err == ErrClosed {
			k.watch.Through = end
			k.got = k.got[:len(k.got)-1]
		} else if !k.gone && k.last.CompactRevision == 0 {
			t.Errorf("watch %d ended with %+v", i, k.last)
		}
		if err := watchcheck.Check(&c.history, k.watch, k.got); err != nil {
			t.Errorf("watch %d, %+v: %v", i, k.watch, err)
		}
		for _, r := range k.got {
			delivered += len(r.Events)
		}
	}
	if t.Failed() {
		t.Logf("repeat with -run TestModel -seed %d", seed)
	}
	if testing.Verbose() {
		t.Logf("%d watches, %d events delivered, %d revisions, %d streams", len(all), delivered, end, streams.Load())
	}
}
