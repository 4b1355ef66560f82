package linearizability

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/seed-d18e112a/clientv3/internal/watchstream/watchcheck"
)

// artifacts is the directory in which what is known of a failed run is kept. It is made when it is asked for first.
type artifacts struct {
	t   *testing.T
	dir string
}

// save writes a file, and complains only.
func (a *artifacts) save(name string, content []byte) {
	if a.dir == "" {
		dir, err := artifactDir(a.t)
		if err != nil {
			a.t.Log("no directory for artifacts: ", err)
			return
		}
		a.dir = dir
		a.t.Log("what is known of this run is in ", dir)
	}
	if err := os.WriteFile(filepath.Join(a.dir, name), content, 0o600); err != nil {
		a.t.Log(err)
	}
}

func artifactDir(t *testing.T) (string, error) {
	if dir := os.Getenv("CLIENTV3_ARTIFACTS"); dir != "" {
		return dir, os.MkdirAll(dir, 0o750)
	}
	if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
		return t.ArtifactDir(), nil
	}
	return os.MkdirTemp("", "clientv3-linearizability-") //nolint:usetesting // it is to outlive the test
}

// saveRun writes the calls, in the order in which they began, for people and for programs, the events, and what the
// watches saw that were wrong.
func (a *artifacts) saveRun(records []record, truth *watchcheck.History, wrong []observation) {
	slices.SortFunc(records, func(x, y record) int { return int(x.Call - y.Call) })
	var plain, machine bytes.Buffer
	enc := json.NewEncoder(&machine)
	for _, r := range records {
		fmt.Fprintln(&plain, r)
		if err := enc.Encode(r); err != nil {
			a.t.Log(err)
		}
	}
	a.save("calls.txt", plain.Bytes())
	a.save("calls.jsonl", machine.Bytes())
	if truth != nil {
		var events bytes.Buffer
		printEvents(&events, truth.Events(0))
		a.save("events.txt", events.Bytes())
	}
	if len(wrong) == 0 {
		return
	}
	var watches bytes.Buffer
	for _, o := range wrong {
		fmt.Fprintf(&watches, "watch %+v %s\n", o.Watch, o.Err)
		for _, r := range o.Responses {
			fmt.Fprintf(&watches, "  response at revision %d, created %v, canceled %v\n", r.Revision, r.Created, r.Canceled)
			printEvents(&watches, r.Events)
		}
	}
	a.save("watches.txt", watches.Bytes())
}

func printEvents(w io.Writer, events []*mvccpb.Event) {
	for _, e := range events {
		fmt.Fprintf(w, "    %d %v %s %s\n", e.Kv.ModRevision, e.Type, e.Kv.Key, e.Kv.Value)
	}
}

// String returns the call on one line.
func (r record) String() string {
	result := describe(r.Op, r.Outcome)
	if r.failed() {
		result = describe(r.Op, outcome{Unknown: true})
		if r.Op.Write && !r.MayHaveApplied {
			result += ", but not applied"
		}
		result += ": " + r.Err
	}
	return fmt.Sprintf("%12v to %12v caller %d %s %s", r.Call.Round(time.Microsecond), r.Return.Round(time.Microsecond),
		r.Caller, r.Op.Group, result)
}

// saveGroup writes a page that shows the calls of a group and how far they can be explained.
func (a *artifacts) saveGroup(group string, info porcupine.LinearizationInfo) {
	var page bytes.Buffer
	if err := porcupine.Visualize(model, info, &page); err != nil {
		a.t.Log(err)
		return
	}
	a.save(strings.ReplaceAll(strings.Trim(group, "/"), "/", "-")+".html", page.Bytes())
}
