// Package servers says what the etcd servers of different versions cannot do, so that tests of that are skipped, with the
// reason, where they have an older one; and in one place only.
package servers

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed-d18e112a/clientv3/etcdtest"
)

// A Feature is something that not all servers do.
type Feature struct {
	Since   string // the first release that does, such as 3.5
	Name    string
	Without string // what becomes of it before that
}

// String describes the feature.
func (f *Feature) String() string {
	return fmt.Sprintf("%s: from etcd %s; before that %s", f.Name, f.Since, f.Without)
}

// What servers do not all do. Features lists them.
var (
	AuthStatus = &Feature{
		"3.5", "`AuthStatus`", "`Unimplemented`",
	}
	CompactionPermission = &Feature{
		"3.5", "compaction as a right of root's", "anybody may compact",
	}
	CompactionKeepsDeletion = &Feature{
		"3.5", "a watch from the very revision of a compaction sees a deletion at it", "the deletion is lost (3.4.23)",
	}
	CompactionEndsEveryWatch = &Feature{
		"3.5", "every watch that a compaction overtakes ends with `ErrCompacted`",
		"one whose stream has a full queue in the server goes on, and what it had to catch up with is lost " +
			"(etcd issue 17529, mended in 3.4.31 and 3.5.13)",
	}
	PermissionRangeCheck = &Feature{
		"3.5", "refusal of a permission for a range that ends before it begins", "it is granted, of no use",
	}
	NoSpaceBesideCorrupt = &Feature{
		"3.6", "a `NOSPACE` alarm that outlives a `CORRUPT` one", "writes go through once the latter is disarmed",
	}
	Downgrade = &Feature{
		"3.6", "`Downgrade`", "`Unimplemented` or, from 3.5, a timeout",
	}
	HashRevision = &Feature{
		"3.6", "`HashKVResponse.HashRevision`", "0",
	}
	SnapshotVersion = &Feature{
		"3.6", "`SnapshotResponse.Version`, and the versions and quota in `StatusResponse`", "empty",
	}
	RangeStream = &Feature{
		"3.7", "`GetStream` in one stream", "the client reads pages of the same revision",
	}
	FailedTxnChangesNothing = &Feature{
		"3.7", "a transaction that fails since a read in it is of a compacted or future revision changes nothing",
		"members other than the one that was asked carry out its writes, and differ from then on " +
			"(`MayHaveApplied` does not know)",
	}
	UnixSockets = &Feature{
		"3.7", "unix sockets as advertised client URLs", "the server does not start",
	}
)

// Features are all features, by release.
var Features = []*Feature{
	AuthStatus, CompactionPermission, CompactionKeepsDeletion, CompactionEndsEveryWatch,
	PermissionRangeCheck,
	NoSpaceBesideCorrupt, Downgrade, HashRevision, SnapshotVersion,
	RangeStream, FailedTxnChangesNothing, UnixSockets,
}

// Table is the list of features for people, in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| from etcd | what | before that |\n|---|---|---|\n")
	for _, f := range Features {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.Since, f.Name, f.Without)
	}
	return b.String()
}

// Need skips the test, and says why, if the server that tests run against is too old for the feature.
func Need(t testing.TB, f *Feature) {
	t.Helper()
	if !Has(t, f) {
		t.Skipf("etcd %s lacks %v", Version(t), f)
	}
}

// Has reports whether the server that tests run against has the feature.
func Has(t testing.TB, f *Feature) bool {
	t.Helper()
	return !Before(t, f.Since)
}

// Before reports whether the server that tests run against is older than the release.
func Before(t testing.TB, release string) bool {
	t.Helper()
	major, minor := Release(t)
	wantMajor, wantMinor := parse(t, release+".")
	return major < wantMajor || major == wantMajor && minor < wantMinor
}

// Version is that of the server that tests run against.
func Version(t testing.TB) string {
	t.Helper()
	v, err := etcdtest.Version()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Release is the release of that server.
func Release(t testing.TB) (major, minor int) {
	t.Helper()
	return parse(t, Version(t))
}

func parse(t testing.TB, version string) (major, minor int) {
	t.Helper()
	if _, err := fmt.Sscanf(version, "%d.%d.", &major, &minor); err != nil {
		t.Fatalf("version %q: %v", version, err)
	}
	return major, minor
}
