package main

import (
	"fmt"
	"time"

	"github.com/seed-d18e112a/clientv3/bench/internal/page"
)

// The picture's measures, in pixels.
const (
	chartWidth  = 860
	panelHeight = 150
	panelLeft   = 60
	panelRight  = 20
	panelTop    = 46 // above the panel's own plot: its title
	chartTop    = 34 // the legend
)

var lineColours = map[string]string{"official": page.Official, "clientv3": page.Own}

// chart returns a picture in SVG: a panel for each fault, in which each client's calls done per second are a line over
// time.
func chart(results []result) string {
	var panels [][]result
	for _, r := range results {
		if n := len(panels); n > 0 && panels[n-1][0].scenario == r.scenario {
			panels[n-1] = append(panels[n-1], r)
			continue
		}
		panels = append(panels, []result{r})
	}
	height := chartTop + len(panels)*(panelTop+panelHeight) + 40
	p := page.NewPicture(chartWidth, height)
	p.Text(panelLeft, 22, "calls done per second")
	x := panelLeft + 180.0
	for _, c := range contenders {
		p.Line([][2]float64{{x, 18}, {x + 24, 18}}, lineColours[c.name], 2)
		p.Text(x+30, 22, c.name)
		x += 120
	}
	p.Rect(x, 12, 24, 12, page.Pale)
	p.Text(x+30, 22, "the fault")
	for i, results := range panels {
		panel(p, float64(chartTop+i*(panelTop+panelHeight)+panelTop), results)
	}
	p.Text(chartWidth-panelRight, float64(height-8), "seconds", `text-anchor="end"`)
	return p.String()
}

// panel draws the lines of one fault, with the plot's upper edge at top.
func panel(p *page.Picture, top float64, results []result) {
	var total time.Duration
	most := 1.0
	for _, r := range results {
		total = max(total, r.series.total)
		for _, v := range r.series.perSecond {
			most = max(most, v)
		}
	}
	const right = chartWidth - panelRight
	bottom := top + panelHeight
	x := func(at time.Duration) float64 { return panelLeft + (right-panelLeft)*at.Seconds()/total.Seconds() }
	y := func(v float64) float64 { return bottom - panelHeight*v/most }

	first := results[0].series
	p.Text(panelLeft, top-10, results[0].scenario, `font-size="14"`, `font-weight="bold"`)
	p.Rect(x(first.fault), top, x(first.recovery)-x(first.fault), panelHeight, page.Pale)
	p.Line([][2]float64{{panelLeft, top}, {panelLeft, bottom}, {right, bottom}}, page.Grey, 1)
	p.Text(panelLeft-6, top+10, fmt.Sprintf("%.0f", most), `text-anchor="end"`)
	p.Text(panelLeft-6, bottom, "0", `text-anchor="end"`)
	for at := time.Duration(0); at < total; at += 5 * time.Second {
		p.Text(x(at), bottom+14, fmt.Sprintf("%.0f", at.Seconds()), `text-anchor="middle"`, `font-size="10"`)
	}
	for _, r := range results {
		points := make([][2]float64, len(r.series.perSecond))
		for i, v := range r.series.perSecond {
			points[i] = [2]float64{x(time.Duration(i)*seriesStep + seriesStep/2), y(v)}
		}
		p.Line(points, lineColours[r.client], 1.5)
	}
}
