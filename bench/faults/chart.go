package main

import (
	"fmt"
	"html"
	"strings"
	"time"
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

var lineColours = map[string]string{"official": "#d1495b", "clientv3": "#00798c"}

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
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" `+
		`font-family="sans-serif" font-size="12" fill="#333">`+"\n", chartWidth, height, chartWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", chartWidth, height)
	fmt.Fprintf(&b, `<text x="%d" y="22">calls done per second</text>`+"\n", panelLeft)
	x := panelLeft + 180
	for _, c := range contenders {
		fmt.Fprintf(&b, `<line x1="%d" y1="18" x2="%d" y2="18" stroke="%s" stroke-width="2"/><text x="%d" y="22">%s</text>`+"\n",
			x, x+24, lineColours[c.name], x+30, c.name)
		x += 120
	}
	fmt.Fprintf(&b, `<rect x="%d" y="12" width="24" height="12" fill="#eee"/>`+"\n", x)
	fmt.Fprintf(&b, `<text x="%d" y="22">the fault</text>`+"\n", x+30)
	for i, p := range panels {
		panel(&b, chartTop+i*(panelTop+panelHeight)+panelTop, p)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">seconds</text>`+"\n", chartWidth-panelRight, height-8)
	b.WriteString("</svg>\n")
	return b.String()
}

// panel draws the lines of one fault, with the plot's upper edge at top.
func panel(b *strings.Builder, top int, results []result) {
	var total time.Duration
	most := 1.0
	for _, r := range results {
		total = max(total, r.series.total)
		for _, v := range r.series.perSecond {
			most = max(most, v)
		}
	}
	width := float64(chartWidth - panelLeft - panelRight)
	x := func(at time.Duration) float64 { return panelLeft + width*at.Seconds()/total.Seconds() }
	y := func(v float64) float64 { return float64(top+panelHeight) - panelHeight*v/most }

	first := results[0].series
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="14" font-weight="bold">%s</text>`+"\n",
		panelLeft, top-10, html.EscapeString(results[0].scenario))
	fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#eee"/>`+"\n",
		x(first.fault), top, x(first.recovery)-x(first.fault), panelHeight)
	fmt.Fprintf(b, `<path d="M%d %dV%dH%d" fill="none" stroke="#999"/>`+"\n",
		panelLeft, top, top+panelHeight, chartWidth-panelRight)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%.0f</text><text x="%d" y="%d" text-anchor="end">0</text>`+"\n",
		panelLeft-6, top+10, most, panelLeft-6, top+panelHeight)
	for at := time.Duration(0); at < total; at += 5 * time.Second {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle" font-size="10">%.0f</text>`+"\n",
			x(at), top+panelHeight+14, at.Seconds())
	}
	for _, r := range results {
		points := make([]string, len(r.series.perSecond))
		for i, v := range r.series.perSecond {
			points[i] = fmt.Sprintf("%.1f,%.1f", x(time.Duration(i)*seriesStep+seriesStep/2), y(v))
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n",
			strings.Join(points, " "), lineColours[r.client])
	}
}
