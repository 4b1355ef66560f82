// Package etcdtest starts real etcd clusters for tests, and does to them what happens to clusters: members are
// killed, frozen, restarted, added and removed, and their links to clients cut, frozen and slowed. It is for the
// users of any etcd client, and needs nothing but Go: the server is etcd's own, compiled into the program that
// imports this package.
//
// # Start
//
// One call starts a cluster, waits until it is ready, and stops it with the test:
//
//	func TestSomething(t *testing.T) {
//		cluster := etcdtest.Run(t, etcdtest.WithMembers(3))
//		client := connect(cluster.Endpoints())
//		...
//	}
//
// [Start] and [Cluster.Close] do the same for programs that are no tests. A single member is there after some 50
// milliseconds, three after some 300, so each test can have a cluster of its own; tests may run in parallel, also in
// several processes, since no two clusters are given the same port.
//
// Without options a cluster is one member that serves plain HTTP/2 on a port of 127.0.0.1. [WithTLS],
// [WithMutualTLS], [WithAuth] and [WithUnixSockets] change how clients reach it; [WithQuota], [WithMaxTxnOps] and the
// like set the server's limits; [WithEmbedConfig] and [WithFlags] reach every other setting of etcd.
//
// # Members
//
// Members run inside the calling process by default. They start fastest, and their code shows in the test's profile
// and race reports. What cannot be done to a part of a process takes [WithChildProcesses], where each member is a
// process of its own:
//
//   - [Member.Kill] ends the process at once, as a crash does;
//   - [Member.Freeze] halts it, as a long pause of its machine does: connections stay, and nothing answers;
//   - [Member.Thaw] lets it run on.
//
// [Member.Stop] and [Member.Restart] are for both. A member keeps its data, its name and its addresses when it
// restarts.
//
// The child process is the running executable itself: importing this package is enough to make it etcd when it is
// started as a child of a cluster. It becomes one while the package is initialised, so neither TestMain nor main, nor
// any test, runs in it. Children end when their parent does, even if that crashes, and even the frozen ones; on
// systems other than Linux, though, those of [WithBinary] live on.
//
// # Versions
//
// [WithBinary] runs another etcd server, from 3.4 on. So does the path of one in the environment variable
// ETCDTEST_BINARY, for all clusters that do not choose a server themselves: this is how a whole suite of tests runs
// against another version without a change, provided that it has no use for [WithEmbedConfig]. [Version] tells the tests
// which one it is. The servers 3.5 and 3.6 are in modules below the package's folder, servers, to be built there:
//
//	cd servers/3.5 && GOWORK=off go build -o /tmp/etcd-3.5 .
//
// # Links
//
// [WithProxies] puts a [Proxy] in front of each member, which clients then get as the member's endpoint:
//
//	proxy := cluster.Member(0).Proxy()
//	proxy.Freeze()                           // packets vanish, connections stay
//	proxy.Cut()                              // connections are reset, new ones refused
//	proxy.Slow(20*time.Millisecond, 1<<20)   // 20 ms and 1 MiB/s each way
//	proxy.Impair(etcdtest.Impairment{Latency: time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.01})
//	proxy.Heal()
//	proxy.Stats()                            // connections and bytes so far
//
// [WithPeerProxies] does the same between the members, and [Member.CutPeers] cuts one off from the others, in one
// direction or both, while its clients still reach it.
//
// The kit's own questions to the members go past the proxies, and so does [Member.Dial]: they work whatever is done
// to the links, and are not in the counts. [NewProxy] stands before any other server as well.
//
// # Random faults
//
// A [Nemesis] does all this at random, for as long as a test wants, and makes it good each time. What it does follows
// from a seed.
//
// # Certificates
//
// A cluster with TLS has an authority of its own, [Cluster.CA], which makes the members' certificates and those for
// clients: as files and as a [tls.Config]. For what should fail, there are certificates that have expired, are for
// another host ([WithServerCert], [CA.Issue]) or come from an authority that the cluster does not trust ([NewCA]).
//
// # What is left behind
//
// Nothing. When Close returns, or a Start fails, all processes, goroutines, sockets and temporary files of the
// cluster are gone, so a test may end with a check for leaked goroutines. No global state is touched: not the loggers
// of gRPC or zap, and no number of clusters in a process disturbs the metrics registry.
//
// # Not like production
//
// To be fast, members do not sync their files to the disk ([WithFsync]), elect a leader within half a second
// ([WithTimings]), hash passwords at the lowest cost, and serve no HTTP gateway.
package etcdtest
