package main

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func example() *report {
	r := &report{phases: phases{healthy: time.Second, fault: time.Second, recovery: time.Second}, note: "A note."}
	for _, s := range []string{"one <fault>", "another"} {
		for _, c := range contenders {
			r.results = append(r.results, result{
				scenario: s, client: c.name, work: 0.5, reads: tally{done: 7, failed: 3, worst: 2, gap: 1500 * time.Millisecond},
				series: series{
					perSecond: []float64{1, 2, 0}, fault: time.Second, recovery: 2 * time.Second, total: 3 * time.Second,
				},
			})
		}
	}
	return r
}

func TestReportHasARowForEachRun(t *testing.T) {
	var text strings.Builder
	r := example()
	if err := r.table().WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text.String(), "\n"); n != 1+len(r.results) {
		t.Errorf("%d lines:\n%s", n, &text)
	}
	page := r.markdown()
	for _, want := range []string{"A note.", "| another | clientv3 | 50.0 % | 7 | 3 (≤ 2 each) | 1.5 s |", "throughput.svg"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
}

func TestChartIsXMLWithALineForEachRun(t *testing.T) {
	r := example()
	lines := 0
	dec := xml.NewDecoder(strings.NewReader(chart(r.results)))
	for {
		token, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		start, ok := token.(xml.StartElement)
		if ok && start.Name.Local == "polyline" && slices.Contains(start.Attr, attribute("stroke-width", "1.5")) {
			lines++
		}
	}
	if lines != len(r.results) {
		t.Errorf("%d lines, want %d", lines, len(r.results))
	}
}

// attribute is what tells a run's line from those of the axes and the legend.
func attribute(name, value string) xml.Attr {
	return xml.Attr{Name: xml.Name{Local: name}, Value: value}
}

func TestReportIsWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if err := example().write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "throughput.svg"} {
		if content, err := os.ReadFile(filepath.Join(dir, name)); err != nil || len(content) == 0 {
			t.Error(name, err)
		}
	}
}
