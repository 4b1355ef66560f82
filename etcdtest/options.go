package etcdtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// An Option changes how a cluster is set up. Options are applied in order, the last one wins. A combination that
// cannot work is reported by [Start], all mistakes at once.
type Option func(*options)

type options struct {
	members     int
	children    bool
	binary      string
	release     release // of the server
	proxies     bool
	peerProxies bool
	unix        bool
	host        string
	tls         bool
	clientTLS   bool
	serverCrt   CertSpec
	auth        *Auth

	quota           int64
	maxRequestBytes uint
	maxTxnOps       uint
	maxLearners     int
	snapshotCount   uint64
	progress        time.Duration
	heartbeat       time.Duration
	election        time.Duration
	fsync           bool

	dataDir string
	logs    io.Writer
	tweak   func(*embed.Config)
	flags   []string
}

// WithMembers sets the number of members. The default is 1.
func WithMembers(n int) Option { return func(o *options) { o.members = n } }

// WithChildProcesses runs each member as a process of its own instead of inside the calling one. Only such members
// can be killed, frozen and thawed. The process is the running executable, started again as etcd; see the package
// documentation.
func WithChildProcesses() Option { return func(o *options) { o.children = true } }

// WithBinary runs each member as a process of the etcd server at path, 3.4 or later. It implies [WithChildProcesses].
// An option that the server is too old for is an error of [Start]. By default the path is that in the environment
// variable ETCDTEST_BINARY, and the server compiled in where that is empty.
func WithBinary(path string) Option {
	return func(o *options) { o.children, o.binary = true, path }
}

// WithProxies puts a [Proxy] in front of each member. The endpoints of the cluster are then those of the proxies, and
// the members advertise them as their client URLs, so that a client which asks the cluster for its members stays on
// them.
func WithProxies() Option { return func(o *options) { o.proxies = true } }

// WithPeerProxies puts a [Proxy] between the members too, for [Member.CutPeers] and [Member.PeerProxy]. Members in
// process have them always.
func WithPeerProxies() Option { return func(o *options) { o.peerProxies = true } }

// WithUnixSockets makes the members serve their clients on unix sockets instead of TCP. They still talk to each other
// over TCP. A server has to be 3.7 or later to advertise them.
func WithUnixSockets() Option { return func(o *options) { o.unix = true } }

// WithIPv6 makes the members listen on [::1] instead of 127.0.0.1.
func WithIPv6() Option { return func(o *options) { o.host = "::1" } }

// WithTLS makes the members serve their clients over TLS, with certificates made on the spot by an authority of the
// cluster's own. [Cluster.ClientTLS] is what a client needs.
func WithTLS() Option { return func(o *options) { o.tls = true } }

// WithMutualTLS is [WithTLS] with members that demand a certificate from each client. [Cluster.ClientTLS] holds one,
// [Cluster.ClientCert] names its files.
func WithMutualTLS() Option {
	return func(o *options) { o.tls, o.clientTLS = true, true }
}

// WithServerCert changes the certificate that the members show to clients: one which has expired, say, or is for
// another host. It implies [WithTLS].
func WithServerCert(spec CertSpec) Option {
	return func(o *options) { o.tls, o.serverCrt = true, spec }
}

// WithQuota limits the size of each member's database, in bytes; beyond it, writes are refused and an alarm is
// raised. The default is etcd's, 2 GiB. The smallest database takes some 20 KiB.
func WithQuota(bytes int64) Option { return func(o *options) { o.quota = bytes } }

// WithMaxRequestBytes limits the size of a request. The default is etcd's, 1.5 MiB.
func WithMaxRequestBytes(n uint) Option { return func(o *options) { o.maxRequestBytes = n } }

// WithMaxTxnOps limits the number of operations in a transaction. The default is etcd's, 128.
func WithMaxTxnOps(n uint) Option { return func(o *options) { o.maxTxnOps = n } }

// WithMaxLearners limits the number of learners in the cluster. The default is etcd's, 1. A server has to be 3.6 or
// later.
func WithMaxLearners(n int) Option { return func(o *options) { o.maxLearners = n } }

// WithSnapshotCount sets after how many applied entries a member takes a raft snapshot and drops older log entries. A
// small number makes a member that was away catch up by snapshot. The default is etcd's, 10,000 (100,000 before 3.6).
func WithSnapshotCount(n uint64) Option { return func(o *options) { o.snapshotCount = n } }

// WithWatchProgressInterval sets after how long without an event a watch that wants to hear about progress does. The
// default is etcd's, 10 minutes.
func WithWatchProgressInterval(d time.Duration) Option { return func(o *options) { o.progress = d } }

// A single member has nobody to be late for.
const (
	singleHeartbeat = 10 * time.Millisecond
	singleElection  = 100 * time.Millisecond
	multiHeartbeat  = 50 * time.Millisecond
	multiElection   = 500 * time.Millisecond
)

// WithTimings sets the interval at which a leader sends heartbeats and the time without one after which the others
// elect another. Both are in whole milliseconds, and etcd demands that election is at least five times heartbeat. The
// default is 50 ms and 500 ms, faster than etcd's own 100 ms and 1 s; and 10 ms and 100 ms for a cluster that starts
// with a single member, which is too fast for one that is to grow.
func WithTimings(heartbeat, election time.Duration) Option {
	return func(o *options) { o.heartbeat, o.election = heartbeat, election }
}

// WithFsync makes the members write through to the disk, as etcd does in production. By default they leave that to
// the operating system: the data survive the end of a process all the same, though not that of the machine.
func WithFsync() Option { return func(o *options) { o.fsync = true } }

// WithDataDir keeps the cluster's files in dir, which is made when missing and not removed at the end. A single
// member goes on from the data that it finds there; several do not find each other, for they are given other ports.
// By default the files are in a temporary directory that goes with the cluster.
func WithDataDir(dir string) Option { return func(o *options) { o.dataDir = dir } }

// WithLogs writes the members' logs to w, in whole lines, each with the member's name in front. Writes to w never
// overlap, and none comes once the cluster is closed, so [testing.T.Output] is a good w. By default the logs are kept
// for [Member.LogTail] and error messages only.
func WithLogs(w io.Writer) Option { return func(o *options) { o.logs = w } }

// WithEmbedConfig calls tweak with the configuration of each member before it starts, also when it starts again. It
// is for members in process only; the counterpart for child processes is [WithFlags].
func WithEmbedConfig(tweak func(*embed.Config)) Option {
	return func(o *options) { o.tweak = tweak }
}

// WithFlags adds command-line flags for the etcd server, such as "--max-concurrent-streams=10". Where one sets what
// another option sets, the flag wins. It is for child processes only; the counterpart for members in process is
// [WithEmbedConfig].
func WithFlags(flags ...string) Option {
	return func(o *options) { o.flags = append(o.flags, flags...) }
}

func newOptions(opts []Option) (*options, error) {
	o := &options{members: 1, host: "127.0.0.1"}
	if path := os.Getenv(binaryEnv); path != "" {
		WithBinary(path)(o)
	}
	for _, opt := range opts {
		opt(o)
	}
	v, err := versionOf(o.binary)
	if err != nil {
		return nil, err
	}
	if o.release, err = parseRelease(v); err != nil {
		return nil, err
	}
	if o.heartbeat == 0 && o.election == 0 {
		o.heartbeat, o.election = multiHeartbeat, multiElection
		if o.members == 1 {
			o.heartbeat, o.election = singleHeartbeat, singleElection
		}
	}
	return o, o.validate()
}

func (o *options) validate() error {
	var errs []error
	if o.members < 1 {
		errs = append(errs, fmt.Errorf("WithMembers(%d): a cluster has at least one member", o.members))
	}
	if o.heartbeat < time.Millisecond || o.election < 5*o.heartbeat {
		errs = append(errs, fmt.Errorf("WithTimings(%v, %v): heartbeat must be at least 1ms and election 5 times that",
			o.heartbeat, o.election))
	}
	if o.children && o.tweak != nil {
		errs = append(errs, errors.New("WithEmbedConfig does not reach child processes, as with WithChildProcesses, "+
			"WithBinary or "+binaryEnv+"; use WithFlags"))
	}
	if !o.children && len(o.flags) > 0 {
		errs = append(errs, errors.New("WithFlags is for child processes; use WithEmbedConfig"))
	}
	errs = append(errs,
		o.release.demand(o.unix, "WithUnixSockets", 3, 7),
		o.release.demand(o.maxLearners != 0, "WithMaxLearners", 3, 6))
	if o.unix && o.host != "127.0.0.1" {
		errs = append(errs, errors.New("WithUnixSockets and WithIPv6 exclude each other"))
	}
	if o.auth != nil {
		errs = append(errs, o.auth.validate())
	}
	return errors.Join(errs...)
}
