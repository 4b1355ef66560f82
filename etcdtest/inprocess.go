package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
)

// inProcess is a server inside this process.
type inProcess struct {
	etcd  *embed.Etcd
	peers *Proxy // what other members reach it through
	once  sync.Once
	ended chan struct{}
	wg    sync.WaitGroup // the goroutines that may be closing it

	mu    sync.Mutex
	grpcs []*grpc.Server // the server's gRPC side, one for each listener
}

func startInProcess(l *launch, log *memberLog) (server, error) {
	cfg, err := l.config(log)
	if err != nil {
		return nil, err
	}
	s := &inProcess{peers: l.peers, ended: make(chan struct{})}
	register := cfg.ServiceRegister
	cfg.ServiceRegister = func(gs *grpc.Server) {
		s.mu.Lock()
		s.grpcs = append(s.grpcs, gs)
		s.mu.Unlock()
		if register != nil {
			register(gs)
		}
	}
	if s.etcd, err = embed.StartEtcd(cfg); err != nil {
		return nil, fmt.Errorf("starting etcd in process: %w", err)
	}
	s.wg.Go(s.watch)
	return s, nil
}

// watch cleans up after a server that has stopped, also one that did so by itself, as it does when its member has
// been removed from the cluster.
func (s *inProcess) watch() {
	<-s.etcd.Server.StopNotify()
	// The HTTP server for peers is next to be shut down, and would wait a second for these.
	s.peers.drop()
	s.close()
}

func (s *inProcess) close() {
	s.once.Do(func() {
		s.etcd.Close()
		close(s.ended)
	})
}

func (s *inProcess) stop(ctx context.Context) error {
	select {
	case <-s.etcd.Server.ReadyNotify():
	default:
		// etcd's Close waits until a server is ready, which one without a quorum never is.
		s.kill()
		return nil
	}
	s.wg.Go(s.close)
	select {
	case <-s.ended:
		s.wg.Wait()
		return nil
	case <-ctx.Done():
		s.kill()
		return context.Cause(ctx)
	}
}

func (s *inProcess) kill() {
	// Left alone, etcd waits for its clients' open streams, for as long as a request may take.
	s.mu.Lock()
	grpcs := slices.Clone(s.grpcs)
	s.mu.Unlock()
	for _, gs := range grpcs {
		gs.Stop()
	}
	s.etcd.Server.HardStop() // Stop would first try to hand over the leadership
	s.close()
	s.wg.Wait()
}

func (s *inProcess) done() <-chan struct{} { return s.ended }

func (s *inProcess) err() error { return errors.New("the server has stopped") }
