package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/seed-d18e112a/clientv3/bench/internal/page"
)

// chartInfo is a picture of the report: a row for each case, a panel for each metric.
type chartInfo struct {
	file, title string
	topics      []topic
	metrics     []metric
}

var charts = []chartInfo{
	{"calls.svg", "Calls, ranges and streams", []topic{topicCalls, topicRanges}, []metric{metricCPU, metricRate}},
	{
		"stateful.svg", "Watches, leases, locks and clients", []topic{topicStateful},
		[]metric{metricCPU, metricHeld, metricRate},
	},
}

// The pictures' measures, in pixels.
const (
	chartWidth = 1000
	labelWidth = 350
	panelGap   = 56 // right of a panel: there the ratios are written
	rowHeight  = 20
	headHeight = 76
	footHeight = 30
)

var dotColours = map[string]string{official: page.Official, stub: page.Grey, own: page.Own, ownCoalesced: page.Further}

// chart returns the picture, if the report has anything to show in it. In a panel each contender is a dot, at how it
// compares with the official client; the axis is logarithmic.
func (r *report) chart(c chartInfo) (picture string, ok bool) {
	var rows []result
	for _, t := range c.topics {
		rows = append(rows, r.about(t)...)
	}
	if len(rows) == 0 {
		return "", false
	}
	bottom := headHeight + len(rows)*rowHeight
	p := page.NewPicture(chartWidth, bottom+footHeight)
	p.Text(10, 22, c.title+", compared with the official client", `font-size="14"`, `font-weight="bold"`)
	legend(p, rows)
	for i, res := range rows {
		y := float64(headHeight + i*rowHeight)
		if i%2 == 0 {
			p.Rect(0, y, chartWidth, rowHeight, "#f6f6f6")
		}
		p.Text(10, y+14, res.Case, `font-size="11"`)
	}
	width := float64(chartWidth-labelWidth) / float64(len(c.metrics))
	for i, m := range c.metrics {
		panel{p, labelWidth + float64(i)*width, width - panelGap, float64(bottom), m}.draw(rows)
	}
	return p.String(), true
}

func legend(p *page.Picture, rows []result) {
	x := 10.0
	for _, c := range contenders {
		if !slices.ContainsFunc(rows, func(r result) bool { return r.has(c.name) }) {
			continue
		}
		p.Dot(x+5, 40, 5, dotColours[c.name])
		p.Text(x+15, 44, c.name)
		x += 40 + 7*float64(len(c.name))
	}
}

func (r *result) has(client string) bool {
	return slices.ContainsFunc(r.Clients, func(f figures) bool { return f.Client == client })
}

// panel is a metric's.
type panel struct {
	*page.Picture
	left, width, bottom float64
	metric              metric
}

func (p panel) draw(rows []result) {
	info := shown[slices.IndexFunc(shown, func(i metricInfo) bool { return i.metric == p.metric })]
	better := "less is better"
	if info.higher {
		better = "more is better"
	}
	p.Text(p.left, headHeight-10, fmt.Sprintf("%s (%s)", info.title, better))
	low, high := bounds(rows, p.metric)
	x := func(ratio float64) float64 {
		return p.left + p.width*(math.Log2(ratio)-float64(low))/float64(high-low)
	}
	step := 1 + (high-low)/8
	for power := low; power <= high; power++ {
		ratio, colour := math.Exp2(float64(power)), "#ddd"
		if power == 0 {
			colour = page.Official
		}
		p.Line([][2]float64{{x(ratio), headHeight}, {x(ratio), p.bottom}}, colour, 1)
		if power%step == 0 {
			p.Text(x(ratio), p.bottom+16, powerOfTwo(power), `text-anchor="middle"`, `font-size="10"`)
		}
	}
	for i, res := range rows {
		y := headHeight + (float64(i)+0.5)*rowHeight
		for _, f := range res.Clients {
			ratio, ok := f.Ratio[p.metric]
			if !ok || ratio <= 0 {
				continue
			}
			p.Dot(x(ratio), y, 5, dotColours[f.Client])
			if f.Client == own {
				p.Text(p.left+p.width+10, y+4, formatRatio(ratio), `font-size="11"`)
			}
		}
	}
}

// powerOfTwo writes two to that power.
func powerOfTwo(power int) string {
	if power < 0 {
		return fmt.Sprintf("1/%d", 1<<-power)
	}
	return strconv.Itoa(1 << power)
}

// bounds returns the powers of two between which the metric's ratios are. One is in the middle of them somewhere.
func bounds(rows []result, m metric) (low, high int) {
	low, high = -1, 1
	for _, res := range rows {
		for _, f := range res.Clients {
			if ratio := f.Ratio[m]; ratio > 0 {
				low = min(low, int(math.Floor(math.Log2(ratio))))
				high = max(high, int(math.Ceil(math.Log2(ratio))))
			}
		}
	}
	return low, high
}
