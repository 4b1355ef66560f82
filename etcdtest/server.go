package etcdtest

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// A server is one run of a member's etcd, from its start to its end.
type server interface {
	// stop asks the server to shut down and waits until it has. When ctx ends first, the server is ended at once, and
	// the context's error returned.
	stop(ctx context.Context) error
	// kill ends the server as fast as it can be ended, and waits until it has. It may be called at any time, also
	// during stop.
	kill()
	// done is closed once the server has ended, for whatever reason.
	done() <-chan struct{}
	// err says how the server ended. It is to be called after done only.
	err() error
}

// A launch is what a server is started with. It becomes a configuration for a member in process, and flags for a
// child process.
type launch struct {
	*options
	name, dir       string
	listenClient    string // URLs from here on
	advertiseClient string
	listenPeer      string
	advertisePeer   string
	peers           *Proxy // before listenPeer, or nil
	initialCluster  string
	token           string
	existing        bool // the cluster exists already, and the member joins it
	cert            *Cert
	caFile          string // clients must have a certificate of this authority
	authToken       string // the kind of authentication token and its settings, as etcd's flag takes it
}

func (l *launch) state() string {
	if l.existing {
		return embed.ClusterStateFlagExisting
	}
	return embed.ClusterStateFlagNew
}

func (l *launch) flags() []string {
	flags := []string{
		"--name=" + l.name,
		"--data-dir=" + l.dir,
		"--listen-client-urls=" + l.listenClient,
		"--advertise-client-urls=" + l.advertiseClient,
		"--listen-peer-urls=" + l.listenPeer,
		"--initial-advertise-peer-urls=" + l.advertisePeer,
		"--initial-cluster=" + l.initialCluster,
		"--initial-cluster-token=" + l.token,
		"--initial-cluster-state=" + l.state(),
		"--heartbeat-interval=" + strconv.FormatInt(l.heartbeat.Milliseconds(), 10),
		"--election-timeout=" + strconv.FormatInt(l.election.Milliseconds(), 10),
		"--enable-grpc-gateway=false",
		"--logger=zap",
		"--log-outputs=stderr",
	}
	add := func(set bool, name string, value any) {
		if set {
			flags = append(flags, fmt.Sprintf("--%s=%v", name, value))
		}
	}
	add(!l.fsync, "unsafe-no-fsync", true)
	add(l.quota != 0, "quota-backend-bytes", l.quota)
	add(l.maxRequestBytes != 0, "max-request-bytes", l.maxRequestBytes)
	add(l.maxTxnOps != 0, "max-txn-ops", l.maxTxnOps)
	add(l.maxLearners != 0, "max-learners", l.maxLearners)
	add(l.snapshotCount != 0, "snapshot-count", l.snapshotCount)
	progress := "watch-progress-notify-interval"
	if l.release.before(3, 6) {
		progress = "experimental-" + progress
	}
	add(l.progress != 0, progress, l.progress)
	add(true, "bcrypt-cost", bcryptCost)
	if l.cert != nil {
		add(true, "cert-file", l.cert.CertFile)
		add(true, "key-file", l.cert.KeyFile)
	}
	if l.caFile != "" {
		add(true, "client-cert-auth", true)
		add(true, "trusted-ca-file", l.caFile)
	}
	if l.auth != nil {
		add(true, "auth-token", l.authToken)
		add(!l.auth.JWT && l.auth.TokenTTL != 0, "auth-token-ttl", int64(l.auth.TokenTTL/time.Second))
	}
	return append(flags, l.options.flags...)
}

func (l *launch) config(log *memberLog) (*embed.Config, error) {
	cfg := embed.NewConfig()
	cfg.Name = l.name
	cfg.Dir = l.dir
	for _, u := range []struct {
		to   *[]url.URL
		from string
	}{
		{&cfg.ListenClientUrls, l.listenClient},
		{&cfg.AdvertiseClientUrls, l.advertiseClient},
		{&cfg.ListenPeerUrls, l.listenPeer},
		{&cfg.AdvertisePeerUrls, l.advertisePeer},
	} {
		parsed, err := url.Parse(u.from)
		if err != nil {
			return nil, err
		}
		*u.to = []url.URL{*parsed}
	}
	cfg.InitialCluster = l.initialCluster
	cfg.InitialClusterToken = l.token
	cfg.ClusterState = l.state()
	cfg.TickMs = uint(l.heartbeat.Milliseconds())
	cfg.ElectionMs = uint(l.election.Milliseconds())
	cfg.EnableGRPCGateway = false
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log.logger())
	cfg.UnsafeNoFsync = !l.fsync
	cfg.QuotaBackendBytes = l.quota
	if l.maxRequestBytes != 0 {
		cfg.MaxRequestBytes = l.maxRequestBytes
	}
	if l.maxTxnOps != 0 {
		cfg.MaxTxnOps = l.maxTxnOps
	}
	if l.maxLearners != 0 {
		cfg.MaxLearners = l.maxLearners
	}
	if l.snapshotCount != 0 {
		cfg.SnapshotCount = l.snapshotCount
	}
	if l.progress != 0 {
		cfg.WatchProgressNotifyInterval = l.progress
	}
	cfg.BcryptCost = bcryptCost
	if l.cert != nil {
		cfg.ClientTLSInfo.CertFile = l.cert.CertFile
		cfg.ClientTLSInfo.KeyFile = l.cert.KeyFile
	}
	if l.caFile != "" {
		cfg.ClientTLSInfo.ClientCertAuth = true
		cfg.ClientTLSInfo.TrustedCAFile = l.caFile
	}
	if l.auth != nil {
		cfg.AuthToken = l.authToken
		if l.auth.TokenTTL != 0 {
			cfg.AuthTokenTTL = uint(l.auth.TokenTTL / time.Second)
		}
	}
	if l.tweak != nil {
		l.tweak(cfg)
	}
	return cfg, nil
}
