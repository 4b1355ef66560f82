package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/seed-d18e112a/clientv3/bench/internal/page"
)

// report is the results of a run of the command.
type report struct {
	Machine string   `json:"machine"`
	Note    string   `json:"note,omitempty"`
	Rounds  int      `json:"rounds"`
	Time    string   `json:"time"`
	Scale   scale    `json:"scale"`
	Results []result `json:"results"`
}

// command line that makes the report for the repository.
const reportCommand = "go run ./bench -out docs/bench"

// about returns the topic's results.
func (r *report) about(t topic) []result {
	var found []result
	for _, res := range r.Results {
		if res.Topic == t {
			found = append(found, res)
		}
	}
	return found
}

// table has a row for each contender of each case, and a column for each metric that any of them has.
func table(results []result) *page.Table {
	measured := make(map[metric]bool)
	for _, res := range results {
		for _, f := range res.Clients {
			for m := range f.Median {
				measured[m] = true
			}
		}
	}
	t := &page.Table{Columns: []string{"case", "client"}}
	var columns []metricInfo
	for _, info := range shown {
		if measured[info.metric] {
			columns = append(columns, info)
			t.Columns = append(t.Columns, info.title)
		}
	}
	for _, res := range results {
		for i, f := range res.Clients {
			row := []string{"", f.Client}
			if i == 0 {
				row[0] = res.Case
				if res.Operation != "call" {
					row[0] += " (per " + res.Operation + ")"
				}
			}
			for _, info := range columns {
				row = append(row, cell(f, info))
			}
			t.Rows = append(t.Rows, row)
		}
	}
	return t
}

// cell is a median, and how it compares with the official client's.
func cell(f figures, info metricInfo) string {
	v, ok := f.Median[info.metric]
	if !ok {
		return ""
	}
	text := info.format(v)
	if ratio, ok := f.Ratio[info.metric]; ok {
		text += fmt.Sprintf(" (%s)", formatRatio(ratio))
	}
	return text
}

func formatRatio(ratio float64) string {
	switch {
	case ratio >= 10:
		return fmt.Sprintf("%.0f×", ratio)
	case ratio >= 0.1:
		return fmt.Sprintf("%.2f×", ratio)
	}
	return fmt.Sprintf("%.3f×", ratio)
}

// text writes the tables as text.
func (r *report) text(w io.Writer) error {
	for _, t := range topics {
		results := r.about(t)
		if len(results) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n%s\n\n", t); err != nil {
			return err
		}
		if err := table(results).WriteText(w); err != nil {
			return err
		}
	}
	return nil
}

// write writes the report, its pictures and the raw figures to the directory.
func (r *report) write(dir string) error {
	raw, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	files := map[string]string{"README.md": r.markdown(), "results.json": string(raw) + "\n"}
	for _, c := range charts {
		if picture, ok := r.chart(c); ok {
			files[c.file] = picture
		}
	}
	return page.Write(dir, files)
}

// markdown returns the report as a page.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Side by side\n\nWritten by `%s`, on %s.\n", reportCommand, r.Machine)
	if r.Note != "" {
		fmt.Fprintf(&b, "%s\n", r.Note)
	}
	b.WriteString("\n")
	for _, c := range charts {
		if _, ok := r.chart(c); ok {
			fmt.Fprintf(&b, "![%s](%s)\n\n", c.title, c.file)
		}
	}
	fmt.Fprintf(&b, `Each client is a process of its own, and so is the server: one that answers with prepared bytes (null
server), so that little more than the client is seen, or a real etcd of one member that does not sync its files, a new
one for each case. The clients have their default configuration; those named *coalesced* read through
`+"`coalesce.NewKV` and write through `coalesce.NewWriter`"+`. *gRPC stub* is the stub generated for gRPC on one
connection, with neither retries nor anything else: the floor that every client on gRPC stands on. In each of up to
%d rounds the clients take turns, %s each; figures are medians of the rounds, ratios to the official client are medians of
the rounds' ratios.

CPU is that of the client's process, its callers included, in user and kernel mode. It, allocations and allocated bytes
are per operation: a call, or what is said. *Memory held*: live heap and stacks of what is open and idle, each. Values
have %d bytes, those of streams %s.
`, r.Rounds, r.Time, valueSize, formatBytes(streamValueSize))
	for _, t := range topics {
		if results := r.about(t); len(results) > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n%s", t, table(results).Markdown())
		}
	}
	b.WriteString("\n## Where this client is behind the official one\n\n")
	if behind := r.behind(); len(behind.Rows) > 0 {
		fmt.Fprintf(&b, "By more than %.0f %%:\n\n%s", 100*(tolerance-1), behind.Markdown())
	} else {
		fmt.Fprintf(&b, "By more than %.0f %%: nowhere.\n", 100*(tolerance-1))
	}
	return b.String()
}

// tolerance is the ratio from which a client counts as behind.
const tolerance = 1.05

// behind has a row for each metric in which this client, or a form of it, is behind the official one.
func (r *report) behind() *page.Table {
	t := &page.Table{Columns: []string{"case", "client", "", "official", "this one"}}
	for _, res := range r.Results {
		base := slices.IndexFunc(res.Clients, func(f figures) bool { return f.Client == official })
		if base < 0 {
			continue
		}
		for _, f := range res.Clients {
			if f.Client == official || f.Client == stub {
				continue
			}
			for _, info := range shown {
				ratio, ok := f.Ratio[info.metric]
				if !ok || info.higher && ratio >= 1/tolerance || !info.higher && ratio <= tolerance {
					continue
				}
				t.Rows = append(t.Rows, []string{
					res.Case, f.Client, info.title, info.format(res.Clients[base].Median[info.metric]), cell(f, info),
				})
			}
		}
	}
	return t
}
