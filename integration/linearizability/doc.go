// Package linearizability tests that what concurrent clients are told by a cluster under random faults fits together: that
// there is an order of their calls, each at one moment between its begin and its end, in which all results are right.
//
// A write that has failed with an error of which clientv3.MayHaveApplied is true may happen at any later time or never; one
// with another error never happens. Watches are checked against the same history.
//
// The environment: CLIENTV3_FAULT_SECONDS is how long the faults go on (20), CLIENTV3_SEED repeats a run's choices, and
// CLIENTV3_ARTIFACTS is the directory in which the history of a failed run is kept: as text, and as pages on which the
// calls that do not fit can be seen. By default it is that of go test -artifacts, or a new temporary one.
package linearizability
