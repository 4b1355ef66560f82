package main

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// example is a report of a case in which this client has half the costs, and one in which it has four times the memory.
func example() *report {
	r := &report{Machine: "a machine", Note: "A note.", Rounds: 1, Time: "1s"}
	for _, c := range []struct {
		name        string
		topic       topic
		own, theirs sample
	}{
		{"a < call, etcd", topicCalls, sample{metricCPU: 1e-3, metricRate: 200}, sample{metricCPU: 2e-3, metricRate: 100}},
		{"idle, etcd", topicStateful, sample{metricCPU: 1, metricHeld: 4096}, sample{metricCPU: 1, metricHeld: 1024}},
	} {
		res := result{Case: c.name, Topic: c.topic, Operation: "call", Clients: []figures{
			{Client: official, Rounds: []sample{c.theirs}},
			{Client: own, Rounds: []sample{c.own}},
		}}
		res.evaluate()
		r.Results = append(r.Results, res)
	}
	return r
}

func TestReportTellsFiguresAndRatios(t *testing.T) {
	r := example()
	page := r.markdown()
	for _, want := range []string{
		"A note.", "on a machine", "(calls.svg)", "(stateful.svg)",
		"| a < call, etcd | official | 100 | 2 ms |\n|  | clientv3 | 200 (2.00×) | 1 ms (0.50×) |",
		"| idle, etcd | clientv3 | memory held | 1 KiB | 4 KiB (4.00×) |",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if n := len(r.behind().Rows); n != 1 {
		t.Errorf("behind in %d metrics, want one", n)
	}
	var text strings.Builder
	if err := r.text(&text); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text.String(), string(topicRanges)) || !strings.Contains(text.String(), string(topicStateful)) {
		t.Errorf("topics:\n%s", &text)
	}
}

func TestBehindIsWhatIsWorse(t *testing.T) {
	for _, test := range []struct {
		metric metric
		own    float64
		behind bool
	}{
		{metricRate, 90, true},
		{metricRate, 98, false},
		{metricRate, 110, false},
		{metricCPU, 90, false},
		{metricCPU, 103, false},
		{metricCPU, 110, true},
	} {
		res := result{Clients: []figures{
			{Client: official, Rounds: []sample{{test.metric: 100}}},
			{Client: own, Rounds: []sample{{test.metric: test.own}}},
			{Client: stub, Rounds: []sample{{test.metric: 1}}},
		}}
		res.evaluate()
		r := &report{Results: []result{res}}
		if got := len(r.behind().Rows) == 1; got != test.behind {
			t.Errorf("%s of %v to 100: behind is %v", test.metric, test.own, got)
		}
	}
}

func TestReportIsWrittenWithRawFigures(t *testing.T) {
	dir := t.TempDir()
	if err := example().write(dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Results) != 2 || got.Results[0].Clients[1].Rounds[0][metricRate] != 200 {
		t.Errorf("raw figures: %s", raw)
	}
}

func TestChartHasADotForEachRatio(t *testing.T) {
	r := example()
	for _, c := range charts {
		picture, ok := r.chart(c)
		if !ok {
			t.Fatalf("%s: nothing to show", c.file)
		}
		dots := 0
		dec := xml.NewDecoder(strings.NewReader(picture))
		for {
			token, err := dec.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(c.file, err)
			}
			if start, ok := token.(xml.StartElement); ok && start.Name.Local == "circle" {
				dots++
			}
		}
		if want := 2 + 2; dots != want { // those of the legend, and this client's two
			t.Errorf("%s: %d dots, want %d", c.file, dots, want)
		}
	}
	r.Results = r.Results[:1]
	if _, ok := r.chart(charts[1]); ok {
		t.Error("a picture of nothing")
	}
}

func TestBoundsOfAPanel(t *testing.T) {
	with := func(ratios ...float64) []result {
		res := result{}
		for _, r := range ratios {
			res.Clients = append(res.Clients, figures{Ratio: sample{metricCPU: r}})
		}
		return []result{res}
	}
	for _, test := range []struct {
		ratios    []float64
		low, high int
	}{
		{nil, -1, 1},
		{[]float64{0.9, 1.1}, -1, 1},
		{[]float64{0.2, 5}, -3, 3},
		{[]float64{0, 16}, -1, 4},
	} {
		if low, high := bounds(with(test.ratios...), metricCPU); low != test.low || high != test.high {
			t.Errorf("%v: from %d to %d, want %d and %d", test.ratios, low, high, test.low, test.high)
		}
	}
}
