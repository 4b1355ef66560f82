package concurrency

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	"github.com/seed-d18e112a/clientv3/etcdtest"
	"github.com/seed-d18e112a/clientv3/integration/internal/shared"
)

var levels = []struct {
	name  string
	level concurrency.Isolation
	// snapshot: reads are of one revision. protected: nothing that was read changes before the commit.
	snapshot, protected bool
}{
	{"SerializableSnapshot", concurrency.SerializableSnapshot, true, true},
	{"Serializable", concurrency.Serializable, true, true},
	{"RepeatableReads", concurrency.RepeatableReads, false, true},
	{"ReadCommitted", concurrency.ReadCommitted, false, false},
}

// put writes a key past the transaction.
func (e *env) put(t testing.TB, key, val string) {
	t.Helper()
	_, err := e.Put(e.ctx, key, val)
	shared.Must(t, err)
}

func (e *env) value(t testing.TB, key string) string {
	t.Helper()
	resp, err := e.Get(e.ctx, key)
	shared.Must(t, err)
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

// list is what a range has in it: "key=value", without the prefix.
func list(stm concurrency.STM, prefix string) string {
	var items []string
	for _, kv := range stm.(concurrency.RangeSTM).GetRange(prefix, clientv3.GetPrefixRangeEnd(prefix)) {
		items = append(items, fmt.Sprintf("%s=%s", strings.TrimPrefix(string(kv.Key), prefix), kv.Value))
	}
	return strings.Join(items, " ")
}

func TestSTMReadsAndWrites(t *testing.T) {
	for _, l := range levels {
		t.Run(l.name, func(t *testing.T) {
			e := newEnv(t)
			a, b, none, c := e.prefix+"/a", e.prefix+"/b", e.prefix+"/none", e.prefix+"/c"
			e.put(t, a, "1")
			e.put(t, b, "2")
			resp, err := e.Get(e.ctx, b)
			shared.Must(t, err)
			rev := resp.Kvs[0].ModRevision
			txn, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
				if got := s.Get(a) + s.Get(b) + s.Get(none) + s.Get(); got != "12" {
					t.Errorf("read %q", got)
				}
				s.Put(c, "3")
				s.Del(b)
				if got := s.Get(c) + s.Get(b) + s.Get(a); got != "31" {
					t.Errorf("read what was written as %q", got)
				}
				if got := []int64{s.Rev(b), s.Rev(c), s.Rev(none)}; !slices.Equal(got, []int64{rev, 0, 0}) {
					t.Errorf("revisions %v, want %d, 0, 0", got, rev)
				}
				if got := s.Get(a, c) + s.Get(c, a) + s.Get(none, a) + s.Get(e.prefix+"/d", a); got != "13" {
					t.Errorf("read several as %q", got)
				}
				return nil
			}, concurrency.WithIsolation(l.level))
			if err != nil || !txn.Succeeded || len(txn.Responses) != 2 {
				t.Fatal(txn, err)
			}
			if got := e.value(t, a) + e.value(t, b) + e.value(t, c); got != "13" {
				t.Errorf("left %q", got)
			}
		})
	}
}

func TestSTMIsolation(t *testing.T) {
	for _, l := range levels {
		t.Run(l.name, func(t *testing.T) {
			e := newEnv(t)
			a, b, w := e.prefix+"/a", e.prefix+"/b", e.prefix+"/w"
			run := func(apply func(s concurrency.STM, first bool)) (attempts int) {
				t.Helper()
				e.put(t, a, "1")
				e.put(t, b, "1")
				_, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
					attempts++
					apply(s, attempts == 1)
					return nil
				}, concurrency.WithIsolation(l.level))
				shared.Must(t, err)
				return attempts
			}
			want := func(what string, got, protected int) {
				t.Helper()
				if !l.protected {
					protected = 1
				}
				if got != protected {
					t.Errorf("%s: %d attempts, want %d", what, got, protected)
				}
			}

			// Others change both between two reads.
			var seen []string
			attempts := run(func(s concurrency.STM, first bool) {
				x := s.Get(a)
				if first {
					e.put(t, a, "2")
					e.put(t, b, "2")
				}
				seen = append(seen, x+s.Get(b)+s.Get(a))
			})
			want("changed", attempts, 2)
			if first := map[bool]string{true: "111", false: "121"}[l.snapshot]; seen[0] != first {
				t.Errorf("first attempt saw %s, want %s", seen[0], first)
			}
			if last := seen[len(seen)-1]; l.protected && last != "222" {
				t.Errorf("last attempt saw %s", last)
			}

			// Others change what is not read but written.
			attempts = run(func(s concurrency.STM, first bool) {
				s.Get(a)
				if first {
					e.put(t, w, "theirs")
				}
				s.Put(w, "ours")
			})
			if writes := 1 + bit(l.level == concurrency.SerializableSnapshot); attempts != writes {
				t.Errorf("written meanwhile: %d attempts, want %d", attempts, writes)
			}
			if got := e.value(t, w); got != "ours" {
				t.Errorf("written %q", got)
			}

			// Others create, and delete, what was read.
			n := 0
			attempts = run(func(s concurrency.STM, _ bool) {
				n++
				s.Get(e.prefix + "/none")
				switch n {
				case 1:
					e.put(t, e.prefix+"/none", "")
				case 2:
					_, err := e.Delete(e.ctx, e.prefix+"/none")
					shared.Must(t, err)
				}
			})
			want("created and deleted", attempts, 3)

			// Writes of what nobody reads are never in conflict.
			attempts = run(func(s concurrency.STM, _ bool) {
				e.put(t, w, "theirs")
				s.Put(w, "ours")
			})
			if attempts != 1 {
				t.Errorf("blind write: %d attempts", attempts)
			}
		})
	}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestSTMRangesAreProtectedFromPhantoms(t *testing.T) {
	for _, l := range levels {
		t.Run(l.name, func(t *testing.T) {
			e := newEnv(t)
			p := e.prefix + "/"
			changes := []struct {
				name   string
				change clientv3.Op
				before string
				after  string
				free   bool // nothing that was read has changed
			}{
				{name: "key comes", change: clientv3.OpPut(p+"b", "2"), before: "a=1 c=3", after: "a=1 b=2 c=3"},
				{name: "key comes first", change: clientv3.OpPut(p, "0"), before: "a=1 c=3", after: "=0 a=1 c=3"},
				{name: "key goes", change: clientv3.OpDelete(p + "a"), before: "a=1 c=3", after: "c=3"},
				{name: "all go", change: clientv3.OpDelete(p, clientv3.WithPrefix()), before: "a=1 c=3", after: ""},
				{name: "key changes", change: clientv3.OpPut(p+"c", "4"), before: "a=1 c=3", after: "a=1 c=4"},
				{name: "same again", change: clientv3.OpPut(p+"c", "3"), before: "a=1 c=3", after: "a=1 c=3"},
				{
					name: "beyond the end", change: clientv3.OpPut(clientv3.GetPrefixRangeEnd(p), ""),
					before: "a=1 c=3", after: "a=1 c=3", free: true,
				},
			}
			for _, c := range changes {
				_, err := e.Delete(e.ctx, p, clientv3.WithPrefix())
				shared.Must(t, err)
				e.put(t, p+"a", "1")
				e.put(t, p+"c", "3")
				var seen []string
				_, err = concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
					seen = append(seen, list(s, p))
					if len(seen) == 1 {
						_, err := e.Do(e.ctx, c.change)
						shared.Must(t, err)
					}
					if again := list(s, p); again != seen[len(seen)-1] {
						t.Errorf("%s: read %q, and then %q", c.name, seen[len(seen)-1], again)
					}
					s.Put(e.prefix+"-out", "")
					return nil
				}, concurrency.WithIsolation(l.level))
				shared.Must(t, err)
				want := []string{c.before}
				if l.protected && !c.free {
					want = append(want, c.after)
				}
				if !slices.Equal(seen, want) {
					t.Errorf("%s: attempts read %q, want %q", c.name, seen, want)
				}
			}
		})
	}
}

func TestSTMRangesAndWhatIsWritten(t *testing.T) {
	for _, l := range levels {
		t.Run(l.name, func(t *testing.T) {
			e := newEnv(t)
			p := e.prefix + "/"
			for _, key := range []string{"a", "b", "c", "d"} {
				e.put(t, p+key, key)
			}
			_, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
				r := s.(concurrency.RangeSTM)
				want := func(what, got, want string) {
					t.Helper()
					if got != want {
						t.Errorf("%s: %q, want %q", what, got, want)
					}
				}
				s.Put(p+"bb", "new")
				s.Put(p+"c", "changed")
				s.Del(p + "d")
				want("with writes", list(s, p), "a=a b=b bb=new c=changed")
				r.DelRange(p+"b", p+"c")
				want("range deleted", list(s, p), "a=a c=changed")
				s.Put(p+"b", "again")
				want("written into it", list(s, p)+s.Get(p+"b"), "a=a b=again c=changedagain")
				want("part of it", fmt.Sprint(len(r.GetRange(p+"b", p+"bb"))), "1")
				want("nothing", fmt.Sprint(len(r.GetRange(p+"b", p+"b")), len(r.GetRange(p+"b", p+"a"))), "0 0")
				want("a key", string(r.GetRange(p+"c", "")[0].Value), "changed")
				r.DelRange(p+"a", "")
				r.DelRange(p+"z", p+"a") // nothing
				want("key deleted", list(s, p), "b=again c=changed")
				return nil
			}, concurrency.WithIsolation(l.level))
			shared.Must(t, err)
			var left []string
			resp, err := e.Get(e.ctx, p, clientv3.WithPrefix())
			shared.Must(t, err)
			for _, kv := range resp.Kvs {
				left = append(left, fmt.Sprintf("%s=%s", strings.TrimPrefix(string(kv.Key), p), kv.Value))
			}
			if got := strings.Join(left, " "); got != "b=again c=changed" {
				t.Errorf("left %q", got)
			}
		})
	}
}

// A range may be read in parts, and parts of it again as keys: within one attempt it stays what it was.
func TestSTMOverlappingReadsAreRepeatable(t *testing.T) {
	for _, l := range levels {
		t.Run(l.name, func(t *testing.T) {
			e := newEnv(t)
			p := e.prefix + "/"
			e.put(t, p+"a", "1")
			e.put(t, p+"b", "1")
			attempts := 0
			_, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
				attempts++
				r := s.(concurrency.RangeSTM)
				s.Get(p + "a")
				s.Get(p + "none")
				r.GetRange(p+"b", p+"c")
				if attempts == 1 {
					_, err := e.Txn(e.ctx).Then(clientv3.OpPut(p+"a", "2"), clientv3.OpPut(p+"none", "2"),
						clientv3.OpDelete(p+"b"), clientv3.OpPut(p+"bb", "2")).Commit()
					shared.Must(t, err)
					if got := list(s, p); got != "a=1 b=1" {
						t.Errorf("read %q after other values", got)
					}
					if got := s.Get(p+"a") + s.Get(p+"bb") + s.Get(p+"none"); got != "1" {
						t.Errorf("keys are %q", got)
					}
				}
				return nil
			}, concurrency.WithIsolation(l.level))
			shared.Must(t, err)
			if want := 1 + bit(l.protected); attempts != want {
				t.Errorf("%d attempts, want %d", attempts, want)
			}
		})
	}
}

func TestSTMPrefetch(t *testing.T) {
	e := newEnv(t)
	var requests atomic.Int64
	cli := shared.ClientFor(t, e.cluster, counted(&requests))
	for _, l := range levels {
		requests.Store(0)
		_, err := concurrency.NewSTM(cli, func(s concurrency.STM) error {
			s.Get(e.prefix + "/a")
			s.Get(e.prefix + "/b")
			s.Get(e.prefix+"/b", e.prefix+"/a")
			return nil
		}, concurrency.WithIsolation(l.level), concurrency.WithPrefetch(e.prefix+"/a"), concurrency.WithPrefetch(e.prefix+"/b"))
		shared.Must(t, err)
		if got := requests.Load(); got != 2 { // the read, and the commit
			t.Errorf("%s: %d requests", l.name, got)
		}
	}
}

func TestSTMAborts(t *testing.T) {
	e := newEnv(t)
	mine := errors.New("mine")
	if resp, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
		s.Put(e.prefix, "x")
		return mine
	}); resp != nil || err != mine { //nolint:errorlint // as it is
		t.Errorf("apply's error: %v, %v", resp, err)
	}

	// A read that fails ends apply, and there is nothing to recover from.
	var deferred, recovered, resumed any
	if _, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
		defer func() { deferred, recovered = true, recover() }()
		s.Put(e.prefix, "x")
		s.Get("")
		resumed = true
		return nil
	}); err != rpctypes.ErrEmptyKey { //nolint:errorlint // bare, as Get has it
		t.Errorf("failing read: %v", err)
	}
	if deferred == nil || recovered != nil || resumed != nil {
		t.Errorf("after a failing read: deferred %v, recovered %v, resumed %v", deferred, recovered, resumed)
	}

	ctx, cancel := context.WithCancel(e.ctx)
	if _, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
		s.Get(e.prefix)
		cancel()
		s.Put(e.prefix, "x")
		return nil
	}, concurrency.WithAbortContext(ctx)); err != context.Canceled { //nolint:errorlint // bare
		t.Errorf("context ended: %v", err)
	}

	// The context ends while apply is run again and again.
	ctx, cancel = context.WithCancel(e.ctx)
	attempts := 0
	if _, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
		if attempts++; attempts == 8 {
			cancel()
		}
		s.Get(e.prefix + "/busy")
		e.put(t, e.prefix+"/busy", "")
		return nil
	}, concurrency.WithAbortContext(ctx)); err != context.Canceled { //nolint:errorlint // bare
		t.Errorf("context ended between attempts: %v", err)
	}

	if got := e.value(t, e.prefix); got != "" {
		t.Errorf("an aborted transaction has written %q", got)
	}
}

func TestSTMPassesOnPanics(t *testing.T) {
	e := newEnv(t)
	func() {
		defer func() {
			if got := recover(); got != "mine" {
				t.Errorf("recovered %v", got)
			}
		}()
		_, _ = concurrency.NewSTM(e.Client, func(concurrency.STM) error { panic("mine") })
	}()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic at a level that there is not")
			}
		}()
		_, _ = concurrency.NewSTM(e.Client, func(concurrency.STM) error { return nil }, concurrency.WithIsolation(7))
	}()
	exited := make(chan bool)
	go func() {
		defer close(exited)
		_, _ = concurrency.NewSTM(e.Client, func(concurrency.STM) error { runtime.Goexit(); return nil })
		t.Error("NewSTM returned, though its function has ended the goroutine")
	}()
	<-exited
}

// Where reads are of one revision, a range is read as it was in that of the first read, though it has changed since.
func TestSTMRangesAreReadAtTheSnapshot(t *testing.T) {
	for _, l := range levels {
		t.Run(l.name, func(t *testing.T) {
			e := newEnv(t)
			p := e.prefix + "/"
			for _, c := range []struct {
				changes []clientv3.Op
				after   string
			}{
				{[]clientv3.Op{clientv3.OpPut(p+"bb", "2")}, "=1 b=2, a=1 b=1 bb=2 c=1"},
				{[]clientv3.Op{clientv3.OpDelete(p + "b")}, ", a=1 c=1"},
				{[]clientv3.Op{
					clientv3.OpPut(p+"a", "2"), clientv3.OpDelete(p + "b"), clientv3.OpPut(p+"bb", "2"),
				}, "b=2, a=2 bb=2 c=1"},
			} {
				_, err := e.Delete(e.ctx, p, clientv3.WithPrefix())
				shared.Must(t, err)
				for _, key := range []string{"-first", "/a", "/b", "/c"} {
					e.put(t, e.prefix+key, "1")
				}
				var seen []string
				_, err = concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
					s.Get(e.prefix + "-first")
					if len(seen) == 0 {
						_, err := e.Txn(e.ctx).Then(c.changes...).Commit()
						shared.Must(t, err)
					}
					// The second read goes beyond the first one.
					seen = append(seen, list(s, p+"b")+", "+list(s, p))
					return nil
				}, concurrency.WithIsolation(l.level))
				shared.Must(t, err)
				want := []string{c.after}
				if l.snapshot {
					want = []string{"=1, a=1 b=1 c=1", c.after}
				}
				if !slices.Equal(seen, want) {
					t.Errorf("attempts read %q, want %q", seen, want)
				}
			}
		})
	}
}

// The revision of an attempt's first read may be compacted before the second one.
func TestSTMReadsAnewAfterCompaction(t *testing.T) {
	e := newEnv(t)
	for name, read := range map[string]func(concurrency.STM) string{
		"key":   func(s concurrency.STM) string { return s.Get(e.prefix + "/b") },
		"range": func(s concurrency.STM) string { return list(s, e.prefix+"/b") },
	} {
		_, err := e.Delete(e.ctx, e.prefix, clientv3.WithPrefix())
		shared.Must(t, err)
		var seen []string
		_, err = concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
			s.Get(e.prefix + "/a")
			if len(seen) == 0 {
				e.put(t, e.prefix+"/b", "1")
				resp, err := e.Put(e.ctx, e.prefix+"/b", "2")
				shared.Must(t, err)
				_, err = e.Compact(e.ctx, resp.Header.Revision)
				shared.Must(t, err)
			}
			seen = append(seen, "none") // unless the read returns
			seen[len(seen)-1] = read(s)
			return nil
		})
		if want := map[string]string{"key": "2", "range": "=2"}[name]; err != nil || !slices.Equal(seen, []string{"none", want}) {
			t.Errorf("%s: attempts read %q, %v", name, seen, err)
		}
	}
}

// etcd bounds the comparisons of a transaction, 128 by default. There are none where nothing is protected, and a range
// is one for itself.
func TestSTMReadsManyKeys(t *testing.T) {
	e := newEnv(t)
	const n = 150
	_, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
		for i := range n {
			s.Get(fmt.Sprint(e.prefix, "/", i))
		}
		return nil
	}, concurrency.WithIsolation(concurrency.ReadCommitted))
	shared.Must(t, err)
	for _, l := range levels {
		_, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
			list(s, e.prefix)
			for i := range n {
				s.Get(fmt.Sprint(e.prefix, "/", i)) // part of what was read
			}
			return nil
		}, concurrency.WithIsolation(l.level))
		shared.Must(t, err)
	}
}

// bankTime returns how long money is moved between accounts at each isolation level: what CLIENTV3_BANK_TIME says, in the
// form of time.ParseDuration, or a short time. For a run that tells more:
//
//	CLIENTV3_BANK_TIME=20s go test -run TestSTMBank -v .
func bankTime(t testing.TB) time.Duration {
	t.Helper()
	env := os.Getenv("CLIENTV3_BANK_TIME")
	if env == "" {
		return 1500 * time.Millisecond
	}
	d, err := time.ParseDuration(env)
	shared.Must(t, err)
	return d
}

// Money is moved between accounts. The sum never changes, in no committed transaction, and at the levels where reads are
// of one revision in no attempt.
func TestSTMBank(t *testing.T) {
	const (
		accounts = 20
		workers  = 20
		money    = 100
	)
	t.Parallel()
	duration := bankTime(t)
	cluster := etcdtest.Run(t, etcdtest.WithMembers(3))
	clients := make([]*clientv3.Client, 3)
	for i := range clients {
		clients[i] = shared.ClientFor(t, cluster)
	}
	for _, l := range levels {
		if !l.protected {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), duration+shared.Timeout)
			defer cancel()
			prefix := l.name + "/"
			names := make([]string, accounts)
			for i := range names {
				names[i] = fmt.Sprintf("%s%02d", prefix, i)
				_, err := clients[0].Put(ctx, names[i], strconv.Itoa(money))
				shared.Must(t, err)
			}
			var (
				wg                      sync.WaitGroup
				moved, audits, attempts atomic.Int64
				end                     = time.Now().Add(duration)
				level                   = concurrency.WithIsolation(l.level)
				abort                   = concurrency.WithAbortContext(ctx)
			)
			for i := range workers {
				cli := clients[i%len(clients)]
				wg.Go(func() {
					for n := 0; time.Now().Before(end) && !t.Failed(); n++ {
						if n%4 == 0 {
							sum := 0
							_, err := concurrency.NewSTM(cli, func(s concurrency.STM) error {
								sum = total(s, prefix, names, n%8 == 0)
								if l.snapshot && sum != accounts*money {
									t.Errorf("an attempt has seen a sum of %d", sum)
								}
								return nil
							}, level, abort)
							if err != nil || sum != accounts*money {
								t.Errorf("a sum of %d was committed, %v", sum, err)
							}
							audits.Add(1)
							continue
						}
						from, to := names[rand.N(accounts)], names[rand.N(accounts)]
						_, err := concurrency.NewSTM(cli, func(s concurrency.STM) error {
							attempts.Add(1)
							return move(s, from, to, 1+rand.N(10))
						}, level, abort)
						if err != nil {
							t.Error(err)
						}
						moved.Add(1)
					}
				})
			}
			wg.Wait()
			t.Logf("%d moves in %d attempts, %d audits", moved.Load(), attempts.Load(), audits.Load())
		})
	}
}

// total returns the sum of the accounts, read by themselves or as a range.
func total(s concurrency.STM, prefix string, names []string, asRange bool) (sum int) {
	var values []string
	if asRange {
		for _, kv := range s.(concurrency.RangeSTM).GetRange(prefix, clientv3.GetPrefixRangeEnd(prefix)) {
			values = append(values, string(kv.Value))
		}
	} else {
		s.Get(names...) // in one request
		for _, name := range names {
			values = append(values, s.Get(name))
		}
	}
	for _, value := range values {
		sum += amountOf(value)
	}
	return sum
}

// move moves an amount of money, or less if there is less. An account without money is closed, and opened again by the
// first money that comes.
func move(s concurrency.STM, from, to string, amount int) error {
	if from == to {
		return nil
	}
	source, target := amountOf(s.Get(from)), amountOf(s.Get(to))
	amount = min(amount, source)
	if source == amount {
		s.(concurrency.RangeSTM).DelRange(from, from+"\x00")
	} else {
		s.Put(from, strconv.Itoa(source-amount))
	}
	if target+amount > 0 {
		s.Put(to, strconv.Itoa(target+amount))
	}
	return nil
}

// amountOf is the money of an account; that of one which is closed is none.
func amountOf(value string) int {
	if value == "" {
		return 0
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		panic(err)
	}
	return n
}
