package watchstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestResumeRevision(t *testing.T) {
	tests := []struct {
		name  string
		start int64
		play  func(s *fakeStream, id int64)
		want  int64
	}{
		{"from now, nothing yet", 0, func(*fakeStream, int64) {}, 11},
		{"from a revision, nothing yet", 5, func(*fakeStream, int64) {}, 5},
		{"from the future, nothing yet", 500, func(*fakeStream, int64) {}, 500},
		{"after events", 5, func(s *fakeStream, id int64) { s.reply(events(id, 6, 8)) }, 9},
		{"after events of a server that is ahead", 5, func(s *fakeStream, id int64) {
			// A watcher that is behind gets the server's revision in the header, and more events up to that later.
			resp := events(id, 6, 8)
			resp.Header.Revision = 100
			s.reply(resp)
		}, 9},
		{"after its own progress", 5, func(s *fakeStream, id int64) { s.reply(progress(id, 40)) }, 41},
		{"after the stream's progress", 5, func(s *fakeStream, _ int64) { s.reply(progress(-1, 40)) }, 41},
		{"after progress that tells nothing new", 0, func(s *fakeStream, id int64) { s.reply(progress(id, 3)) }, 11},
		{"in the middle of a revision", 5, func(s *fakeStream, id int64) { s.reply(fragment(events(id, 6, 7, 7))) }, 7},
		{"in the middle of the first revision", 5, func(s *fakeStream, id int64) {
			s.reply(fragment(events(id, 7, 7)), fragment(events(id, 7)))
		}, 5},
		{"after the last fragment", 5, func(s *fakeStream, id int64) {
			s.reply(fragment(events(id, 6, 7)), events(id, 7))
		}, 8},
		{"after events of another watch", 5, func(s *fakeStream, id int64) { s.reply(events(id+1, 50)) }, 5},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
				var s *fakeStream
				id, _ := b.open(&s, Request{StartRevision: test.start})
				test.play(s, id)
				s.end(errCut)
				s = b.stream()
				if got := s.create().StartRevision; got != test.want {
					t.Errorf("resumed at revision %d, want %d", got, test.want)
				}
			})
		})
	}
}

func TestWhatResumesAndWhatEnds(t *testing.T) {
	tests := []struct {
		err  error
		want error // nil: resumes
	}{
		{io.EOF, nil},
		{fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), nil},
		{status.Error(codes.Unavailable, "transport is closing"), nil},
		{status.Error(codes.Internal, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR"), nil},
		{status.Error(codes.Canceled, "stream terminated by RST_STREAM with error code: CANCEL"), nil},
		{rpctypes.ErrGRPCStopped, nil},
		{rpctypes.ErrGRPCWatchCanceled, nil},
		{rpctypes.ErrGRPCNotSupportedForLearner, nil},
		{rpctypes.ErrGRPCNoLeader, nil}, // the stream does not require one
		{rpctypes.ErrNoLeader, nil},     // in the form of an in-process server
		{rpctypes.ErrGRPCPermissionDenied, rpctypes.ErrPermissionDenied},
		{rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrInvalidAuthToken}, // there is no way to get another
		{rpctypes.ErrGRPCClusterIDMismatch, nil},
		{status.Error(codes.Canceled, "grpc: the client connection is closing"), nil},
		{status.Error(codes.Unimplemented, "unknown service"), nil},
		{status.Error(codes.InvalidArgument, "x"), nil},
		{status.Error(codes.ResourceExhausted, "received message larger than max"), nil},
		{errors.New("broken client"), nil},
	}
	for i := range tests[12:] {
		tests[12+i].want = rpctypes.Error(tests[12+i].err)
	}
	for _, test := range tests {
		for _, stage := range []string{"opening", "creating", "open"} {
			t.Run(fmt.Sprintf("%v when %s", test.err, stage), func(t *testing.T) {
				bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
					var s *fakeStream
					var ch <-chan Response
					switch stage {
					case "opening":
						first := true
						b.client.refuse = func() error {
							defer func() { first = false }()
							if first {
								return test.err
							}
							return nil
						}
						ch = b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 5})
					case "creating":
						ch = b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 5})
						s = b.stream()
						s.create()
						s.end(test.err)
					case "open":
						_, ch = b.open(&s, Request{StartRevision: 5})
						s.end(test.err)
					}
					if test.want != nil {
						if r := b.last(ch); !errors.Is(r.Err, test.want) {
							t.Errorf("ended with %v, want %v", r.Err, test.want)
						}
						return
					}
					s = b.stream()
					s.accept(10)
					b.nothing(ch)
				})
			})
		}
	}
}

func TestEndedWatchesDoNotKeepOthersFromOpening(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		_, ch := b.open(&s, Request{})
		s.end(rpctypes.ErrGRPCPermissionDenied)
		b.last(ch)
		s = nil
		b.open(&s, Request{})
	})
}

func TestAllWatchesAreReopenedPipelined(t *testing.T) {
	const n = 100
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		chs := make([]<-chan Response, n)
		for i := range chs {
			_, chs[i] = b.open(&s, Request{Key: []byte{byte(i)}})
		}
		s.end(io.EOF)
		s = b.stream()
		s.reply(created(s.create().WatchId, 20))
		for _, req := range s.creates(n - 1) {
			if req.StartRevision != 11 {
				t.Errorf("reopened at revision %d, want 11", req.StartRevision)
			}
			s.reply(created(req.WatchId, 20))
		}
		for _, ch := range chs {
			b.nothing(ch)
		}
	})
}

func TestReopeningIsPaced(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var refusals int
		b.client.refuse = func() error { refusals++; return errCut }
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		b.watch(ctx, Request{Key: []byte("k")})
		<-ctx.Done()
		synctest.Wait()
		// With full jitter the mean wait is half of the ceiling, 1.5 s.
		if refusals < 100 || refusals > 400 {
			t.Errorf("%d streams in 5 minutes, want about 200", refusals)
		}
		before := refusals
		time.Sleep(time.Minute)
		if refusals != before {
			t.Error("streams are opened though no watch is left")
		}
	})
}

func TestStreamThatLastedIsReopenedSoon(t *testing.T) {
	bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
		var s *fakeStream
		b.open(&s, Request{})
		for range 20 {
			time.Sleep(10 * time.Second)
			s.end(errCut)
			cut := time.Now()
			s = b.stream()
			s.accept(10)
			if d := time.Since(cut); d > reopen.Base {
				t.Fatalf("reopened after %v, want at most %v", d, reopen.Base)
			}
		}
	})
}

func TestNoLeader(t *testing.T) {
	requireLeader := []string{rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader}
	req := Request{Key: []byte("k"), StartRevision: 1}

	t.Run("ends the watches when no member has one", func(t *testing.T) {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			ch := b.Watch(withMetadata(t.Context(), requireLeader...), req)
			for range DefaultNoLeaderRefusals {
				b.nothing(ch)
				s := b.stream()
				s.end(rpctypes.ErrGRPCNoLeader)
			}
			if r := b.last(ch); r.Err != rpctypes.ErrNoLeader {
				t.Errorf("ended with %v, want %v", r.Err, rpctypes.ErrNoLeader)
			}
			b.noStream()
		})
	})
	t.Run("is forgotten when a member answers", func(t *testing.T) {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			ch := b.Watch(withMetadata(t.Context(), requireLeader...), req)
			for range 3 {
				for range DefaultNoLeaderRefusals - 1 {
					s := b.stream()
					s.end(rpctypes.ErrGRPCNoLeader)
				}
				s := b.stream()
				s.accept(10)
				s.end(errCut)
			}
			b.nothing(ch)
		})
	})
	t.Run("is the hook's decision", func(t *testing.T) {
		var asked []int
		cfg := Config[Response]{NoLeader: func(n int) bool { asked = append(asked, n); return n == 2 }}
		bubble(t, cfg, func(t *testing.T, b *bench) {
			ch := b.Watch(withMetadata(t.Context(), requireLeader...), req)
			for range 2 {
				s := b.stream()
				s.end(rpctypes.ErrGRPCNoLeader)
			}
			b.last(ch)
			if len(asked) != 2 || asked[0] != 1 {
				t.Errorf("asked for %v refusals, want 1 and 2", asked)
			}
		})
	})
}

func TestRefusedToken(t *testing.T) {
	reasons := []error{rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCAuthOldRevision, rpctypes.ErrGRPCUserEmpty}
	for _, reason := range reasons {
		t.Run("is renewed and the watch created again: "+reason.Error(), func(t *testing.T) {
			renewals := 0
			cfg := Config[Response]{Reauthenticate: func(context.Context) error { renewals++; return nil }}
			bubble(t, cfg, func(t *testing.T, b *bench) {
				var s *fakeStream
				for i := range 3 { // as often as tokens expire
					_, old := b.open(&s, Request{})
					opening := b.watch(t.Context(), Request{Key: []byte("l"), CreatedNotify: true})
					s.create()
					s.reply(refused(-1, reason.Error()))
					s = b.stream()
					for range 2*i + 2 {
						s.accept(20)
					}
					if r := b.next(b.opened(opening)); !r.Created {
						t.Errorf("response %+v, want the creation", r)
					}
					b.nothing(old)
					if renewals != i+1 {
						t.Errorf("%d renewals, want %d", renewals, i+1)
					}
				}
			})
		})
	}
	t.Run("is renewed again when the new one is refused too, for a while", func(t *testing.T) {
		renewals := 0
		cfg := Config[Response]{Reauthenticate: func(context.Context) error { renewals++; return nil }}
		bubble(t, cfg, func(t *testing.T, b *bench) {
			ch := b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 1})
			start := time.Now()
			for len(ch) == 0 {
				s := b.stream()
				s.create()
				s.reply(refused(-1, rpctypes.ErrGRPCInvalidAuthToken.Error()))
				synctest.Wait()
			}
			if r := b.last(ch); r.Err != rpctypes.ErrInvalidAuthToken {
				t.Errorf("ended with %v, want %v", r.Err, rpctypes.ErrInvalidAuthToken)
			}
			// The pauses grow to 3 s, of which a random part is waited.
			if took := time.Since(start); took < tokenPatience || took > tokenPatience+3*time.Second || renewals < 4 {
				t.Errorf("ended after %v and %d renewals", took, renewals)
			}
		})
	})
	t.Run("is renewed again after one that was good, if only for a watch that is gone", func(t *testing.T) {
		renewals := 0
		cfg := Config[Response]{Reauthenticate: func(context.Context) error { renewals++; return nil }}
		bubble(t, cfg, func(t *testing.T, b *bench) {
			ch := b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 1})
			ctx, cancel := context.WithCancel(t.Context())
			s := b.stream()
			s.create()
			s.reply(refused(-1, rpctypes.ErrGRPCInvalidAuthToken.Error()))
			s = b.stream()
			synctest.Wait()
			gone := b.Watch(ctx, Request{Key: []byte("l"), StartRevision: 1})
			s.create()
			s.reply(refused(-1, "mvcc: watcher range is empty")) // says nothing of the token
			b.last(ch)
			ch = b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 1})
			req := s.create()
			cancel()
			b.closed(gone)
			s.reply(created(req.WatchId, 10))
			s.cancel()
			s.create()
			s.reply(refused(-1, rpctypes.ErrGRPCInvalidAuthToken.Error()))
			s = b.stream()
			s.accept(10)
			b.nothing(ch)
			if renewals != 2 {
				t.Errorf("%d renewals, want 2", renewals)
			}
		})
	})
	t.Run("of a stream is renewed for a while", func(t *testing.T) {
		renewals := 0
		cfg := Config[Response]{Reauthenticate: func(context.Context) error { renewals++; return nil }}
		bubble(t, cfg, func(t *testing.T, b *bench) {
			ch := b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 1})
			start := time.Now()
			for len(ch) == 0 {
				s := b.stream()
				s.end(rpctypes.ErrGRPCInvalidAuthToken)
				synctest.Wait()
			}
			if r := b.last(ch); r.Err != rpctypes.ErrInvalidAuthToken || renewals < 4 || time.Since(start) < tokenPatience {
				t.Errorf("ended with %v after %d renewals and %v", r.Err, renewals, time.Since(start))
			}
		})
	})
	t.Run("is the end if there is no way to renew it", func(t *testing.T) {
		bubble(t, Config[Response]{}, func(t *testing.T, b *bench) {
			var s *fakeStream
			_, other := b.open(&s, Request{})
			ch := b.Watch(t.Context(), Request{Key: []byte("l"), StartRevision: 1})
			s.create()
			s.reply(refused(-1, rpctypes.ErrGRPCInvalidAuthToken.Error()))
			if r := b.last(ch); r.Err != rpctypes.ErrInvalidAuthToken {
				t.Errorf("ended with %v, want %v", r.Err, rpctypes.ErrInvalidAuthToken)
			}
			b.nothing(other)
		})
	})
	t.Run("waits for a server that can renew it", func(t *testing.T) {
		tries := 0
		cfg := Config[Response]{Reauthenticate: func(context.Context) error {
			if tries++; tries < 4 {
				return errCut
			}
			return nil
		}}
		bubble(t, cfg, func(t *testing.T, b *bench) {
			ch := b.Watch(t.Context(), Request{Key: []byte("k"), StartRevision: 1})
			s := b.stream()
			s.create()
			s.reply(refused(-1, rpctypes.ErrGRPCInvalidAuthToken.Error()))
			s = b.stream()
			s.accept(10)
			b.nothing(ch)
			if tries != 4 {
				t.Errorf("%d tries, want 4", tries)
			}
		})
	})
	t.Run("is the end of all if the user is no longer valid", func(t *testing.T) {
		cfg := Config[Response]{Reauthenticate: func(context.Context) error { return rpctypes.ErrGRPCAuthFailed }}
		bubble(t, cfg, func(t *testing.T, b *bench) {
			var s *fakeStream
			_, other := b.open(&s, Request{})
			ch := b.Watch(t.Context(), Request{Key: []byte("l"), StartRevision: 1})
			s.create()
			s.reply(refused(-1, rpctypes.ErrGRPCInvalidAuthToken.Error()))
			for _, ch := range []<-chan Response{ch, other} {
				if r := b.last(ch); r.Err != rpctypes.ErrAuthFailed {
					t.Errorf("ended with %v, want %v", r.Err, rpctypes.ErrAuthFailed)
				}
			}
		})
	})
}
