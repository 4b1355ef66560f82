// Package bench measures this client side by side with the official one, in one run on one machine. What counts are the
// ratios; the figures themselves are those of the machine.
//
//	go test -run '^$' -bench . ./bench
//
// The server is another process, so that the CPU time measured (cpu-ns/op, that of this process) is the client's. Where
// the client alone is to be seen it is one that answers with prepared bytes (nullserver.go), else a real etcd.
//
// What faults of a cluster's member do to both is shown by the command in faults.
package bench
