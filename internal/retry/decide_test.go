package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-d18e112a/clientv3/internal/scripted"
)

// safe are the errors of etcd by which the server says that it has not proposed the request, and what is done about
// them even for a write.
var safe = map[error]Action{
	rpctypes.ErrGRPCInvalidAuthToken:       Reauthenticate,
	rpctypes.ErrGRPCAuthOldRevision:        Reauthenticate,
	rpctypes.ErrGRPCUserEmpty:              Reauthenticate,
	rpctypes.ErrGRPCRequestTooManyRequests: Again,
	rpctypes.ErrGRPCNotSupportedForLearner: Again,
	rpctypes.ErrGRPCNoLeader:               FindLeader,
}

func TestDecideAboutEveryErrorOfEtcd(t *testing.T) {
	for _, err := range scripted.EtcdErrors() {
		action, isSafe := safe[err]
		wantRead := action
		if !isSafe {
			switch status.Code(err) {
			case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
				wantRead = Again
			}
		}
		wantForwarded := action
		if errors.Is(err, rpctypes.ErrGRPCNoLeader) {
			wantForwarded = GiveUp
		}
		for kind, want := range map[Kind]Action{Read: wantRead, Write: action, ForwardedWrite: wantForwarded} {
			if got := Decide(kind, true, err); got != want {
				t.Errorf("kind %d, %v: action %d, want %d", kind, err, got, want)
			}
			// The text decides, not the code: servers send some of these errors as Unknown.
			if underUnknown := status.Error(codes.Unknown, status.Convert(err).Message()); isSafe {
				if got := Decide(kind, true, underUnknown); got != want {
					t.Errorf("kind %d, %v: action %d, want %d", kind, underUnknown, got, want)
				}
			}
		}
	}
}

func TestDecideAboutEveryCode(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		err := status.Error(code, "some text")
		wantRead := GiveUp
		switch code {
		case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
			wantRead = Again
		}
		for kind, want := range map[Kind]Action{Read: wantRead, Write: GiveUp, ForwardedWrite: GiveUp} {
			if got := Decide(kind, true, err); got != want {
				t.Errorf("kind %d, %v: action %d, want %d", kind, code, got, want)
			}
		}
		wantUnsent := GiveUp
		if code == codes.Unavailable {
			wantUnsent = Reconnect
		}
		for _, kind := range []Kind{Read, Write, ForwardedWrite} {
			if got := Decide(kind, false, err); got != wantUnsent {
				t.Errorf("unsent, kind %d, %v: action %d, want %d", kind, code, got, wantUnsent)
			}
		}
	}
}

func TestDecideAboutADroppedProposal(t *testing.T) {
	err := status.Error(codes.Unknown, "raft proposal dropped")
	for _, kind := range []Kind{Read, Write, ForwardedWrite} {
		if got := Decide(kind, true, err); got != Again {
			t.Errorf("kind %d: action %d, want Again", kind, got)
		}
	}
}

func TestDecideGivesUpOnAClosedClient(t *testing.T) {
	for _, kind := range []Kind{Read, Write, ForwardedWrite} {
		for _, sent := range []bool{true, false} {
			if got := Decide(kind, sent, grpc.ErrClientConnClosing); got != GiveUp {
				t.Errorf("kind %d, sent %t: action %d, want GiveUp", kind, sent, got)
			}
		}
	}
}

func TestDecideGivesUpOnWhatIsNoStatus(t *testing.T) {
	for _, err := range []error{io.EOF, errors.New("etcdserver: something")} {
		for _, kind := range []Kind{Read, Write, ForwardedWrite} {
			if got := Decide(kind, true, err); got != GiveUp {
				t.Errorf("%v, kind %d: action %d, want GiveUp", err, kind, got)
			}
		}
	}
}

func TestElsewhereTellsMembersFromTheCluster(t *testing.T) {
	for err, want := range map[error]bool{
		rpctypes.ErrGRPCNotSupportedForLearner:              true,
		rpctypes.ErrGRPCNoLeader:                            true,
		rpctypes.ErrGRPCStopped:                             true,
		status.Error(codes.Unavailable, "connection reset"): true,
		status.Error(codes.Unknown, proposalDropped):        true,
		rpctypes.ErrGRPCRequestTooManyRequests:              false,
		rpctypes.ErrGRPCTimeout:                             false,
		rpctypes.ErrGRPCLeaderChanged:                       false,
		rpctypes.ErrGRPCTimeoutDueToLeaderFail:              false,
	} {
		if got := Elsewhere(err); got != want {
			t.Errorf("%v: %t, want %t", err, got, want)
		}
	}
}

func TestFromLearner(t *testing.T) {
	if !FromLearner(rpctypes.ErrGRPCNotSupportedForLearner) {
		t.Error("a learner's refusal is not taken for one")
	}
	if FromLearner(rpctypes.ErrGRPCNoLeader) {
		t.Error("a member without leader is taken for a learner")
	}
}

// perhapsApplied are the errors of etcd that leave open whether the write was applied. All others refuse it.
var perhapsApplied = map[error]bool{
	rpctypes.ErrGRPCWatchCanceled:              true, // by its code; no unary call gets it
	rpctypes.ErrGRPCLeaderChanged:              true,
	rpctypes.ErrGRPCStopped:                    true,
	rpctypes.ErrGRPCTimeout:                    true,
	rpctypes.ErrGRPCTimeoutDueToLeaderFail:     true,
	rpctypes.ErrGRPCTimeoutDueToConnectionLost: true,
	rpctypes.ErrGRPCTimeoutWaitAppliedIndex:    true, // by its code; only reads get it
	rpctypes.ErrGRPCNoSpace:                    true, // also said of a write that was applied while space ran out
	rpctypes.ErrGRPCCanceled:                   true,
	rpctypes.ErrGRPCDeadlineExceeded:           true,
}

func TestMayHaveAppliedForEveryErrorOfEtcd(t *testing.T) {
	for _, err := range scripted.EtcdErrors() {
		want := perhapsApplied[err]
		for form, err := range map[string]error{
			"as sent":       err,
			"as a value":    rpctypes.Error(err),
			"wrapped value": fmt.Errorf("put: %w", rpctypes.Error(err)),
		} {
			if got := MayHaveApplied(err); got != want {
				t.Errorf("%s, %v: %t, want %t", form, err, got, want)
			}
		}
	}
}

func TestMayHaveAppliedForEveryCode(t *testing.T) {
	unknownFate := map[codes.Code]bool{
		codes.Canceled: true, codes.Unknown: true, codes.DeadlineExceeded: true, codes.Aborted: true,
		codes.Internal: true, codes.Unavailable: true,
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		err := status.Error(code, "some text")
		if got := MayHaveApplied(err); got != unknownFate[code] {
			t.Errorf("%v: %t, want %t", code, got, unknownFate[code])
		}
		if MayHaveApplied(&UnsentError{Err: err}) {
			t.Errorf("%v, unsent: true, want false", code)
		}
		if MayHaveApplied(fmt.Errorf("put: %w", &UnsentError{Err: err})) {
			t.Errorf("%v, unsent and wrapped: true, want false", code)
		}
	}
}

func TestMayHaveAppliedForSpecialErrors(t *testing.T) {
	tests := map[string]struct {
		err  error
		want bool
	}{
		"nil":                       {nil, false},
		"canceled":                  {context.Canceled, true},
		"deadline":                  {context.DeadlineExceeded, true},
		"wrapped deadline":          {fmt.Errorf("put: %w", context.DeadlineExceeded), true},
		"plain error":               {errors.New("something"), true},
		"proposal dropped":          {status.Error(codes.Unknown, proposalDropped), false},
		"request over our limit":    {status.Error(codes.ResourceExhausted, "trying to send message larger than max (9 vs. 8)"), false},
		"response over our limit":   {status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 8)"), true},
		"decompressed over limit":   {status.Error(codes.ResourceExhausted, "grpc: received message after decompression larger than max 8"), true},
		"client closed before call": {grpc.ErrClientConnClosing, false},
		"client closed under call":  {status.Error(codes.Unavailable, grpc.ErrClientConnClosing.Error()), true},
	}
	for name, tt := range tests {
		if got := MayHaveApplied(tt.err); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}

func TestUnsentErrorShowsWhatGRPCSaid(t *testing.T) {
	inner := status.Error(codes.Unavailable, "no endpoint is reachable")
	err := error(&UnsentError{Err: inner})
	if err.Error() != inner.Error() {
		t.Errorf("message %q, want %q", err, inner)
	}
	if st, ok := status.FromError(err); !ok || st.Code() != codes.Unavailable || st.Message() != "no endpoint is reachable" {
		t.Errorf("status %v, %t", st, ok)
	}
	if !errors.Is(err, inner) {
		t.Error("does not unwrap to what gRPC said")
	}
}
