package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/seed-d18e112a/clientv3/bench/internal/page"
)

// report is the results of all runs, in the order of scenarios and contenders.
type report struct {
	phases  phases
	note    string
	results []result
}

var columns = []string{
	"fault", "client", "work done", "reads done", "failed", "longest gap", "writes done", "failed", "longest gap",
	"sessions lost", "watch gap", "events lost", "repeated", "cluster's own gap",
}

func (r *result) row() []string {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
	failed := func(t tally) string {
		if t.failed == 0 {
			return "0"
		}
		return fmt.Sprintf("%d (≤ %d each)", t.failed, t.worst)
	}
	sessions := fmt.Sprintf("%d of %d", r.sessionsLost, clients)
	if r.lostLate > 0 {
		sessions += fmt.Sprintf(" (%d after it)", r.lostLate)
	}
	return []string{
		r.scenario, r.client, fmt.Sprintf("%.1f %%", 100*r.work),
		fmt.Sprint(r.reads.done), failed(r.reads), seconds(r.reads.gap),
		fmt.Sprint(r.writes.done), failed(r.writes), seconds(r.writes.gap),
		sessions, seconds(r.watchGap),
		fmt.Sprint(r.lost), fmt.Sprint(r.repeated), seconds(r.clusterGap),
	}
}

// table has a row for each run.
func (r *report) table() *page.Table {
	t := &page.Table{Columns: columns}
	for i := range r.results {
		t.Rows = append(t.Rows, r.results[i].row())
	}
	return t
}

// write writes the report and its picture to the directory.
func (r *report) write(dir string) error {
	return page.Write(dir, map[string]string{"README.md": r.markdown(), "throughput.svg": chart(r.results)})
}

// markdown returns the report as a page.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# What one bad member does

Written by %[1]sgo run ./bench/faults -out docs/faults%[1]s, on %[2]s.
`, "`", page.Machine())
	if r.note != "" {
		fmt.Fprintf(&b, "%s\n", r.note)
	}
	fmt.Fprintf(&b, `
![Calls done per second, over time](throughput.svg)

A cluster of three etcd processes with etcd's default timings (heartbeat 100 ms, election 1 s). %d clients with their
default configuration, each with a caller that reads (linearizably), one that writes, a session with a TTL of %d s and a
watch. Callers give each call %v, and pause %v between two. After %v without a fault comes the fault, for
%v, and %v after its end. The two clients take turns, each on a new cluster.

`, clients, sessionTTL, callTimeout, callPause, r.phases.healthy, r.phases.fault, r.phases.recovery)
	b.WriteString(r.table().Markdown())
	b.WriteString(`
- *Work done*: calls done per second in the fault, reads and writes, as a part of those before it.
- *Done*: in the fault. *Failed*, and all gaps: from the beginning of the fault to the end of the run; in brackets the most
  that failed of one caller.
- *Longest gap*: the longest time without success of one caller. *Watch gap*: the longest time without an event of one
  watch.
- *Sessions lost*: the client said so, or its lease was gone in the end; in brackets those lost only after the fault. A
  leader that was frozen may, once it goes on, revoke leases as expired before it has learnt that another leads: that is
  the server's doing, and takes the sessions of either client.
- The watched keys are written by neither client but straight to a member that no fault hits, every 20 ms. The *cluster's
  own gap* is the longest time in which that got nothing written: while there is no leader, nobody can.
`)
	return b.String()
}
