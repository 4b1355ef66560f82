package page

import (
	"fmt"
	"html"
	"strings"
)

// Colours of the contenders, and of what is not theirs.
const (
	Official = "#d1495b"
	Own      = "#00798c"
	Further  = "#edae49"
	Grey     = "#999"
	Pale     = "#eee"
)

// Picture is an SVG under construction, on white, so that it can be read on dark pages, too. Measures are in pixels.
type Picture struct{ b strings.Builder }

// NewPicture returns an empty picture.
func NewPicture(width, height int) *Picture {
	p := &Picture{}
	fmt.Fprintf(&p.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" `+
		`font-family="sans-serif" font-size="12" fill="#333">`+"\n", width, height, width, height)
	p.Rect(0, 0, float64(width), float64(height), "white")
	return p
}

// Text writes a text that begins at the place. Attributes are as in SVG, such as `text-anchor="end"` for a text that ends
// there.
func (p *Picture) Text(x, y float64, text string, attributes ...string) {
	fmt.Fprintf(&p.b, `<text x="%.1f" y="%.1f"%s>%s</text>`+"\n", x, y, spaced(attributes), html.EscapeString(text))
}

// Rect draws a filled rectangle.
func (p *Picture) Rect(x, y, width, height float64, colour string) {
	fmt.Fprintf(&p.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, width, height, colour)
}

// Line draws a line through points, each given as x and y.
func (p *Picture) Line(points [][2]float64, colour string, width float64) {
	texts := make([]string, len(points))
	for i, at := range points {
		texts[i] = fmt.Sprintf("%.1f,%.1f", at[0], at[1])
	}
	fmt.Fprintf(&p.b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%.1f"/>`+"\n",
		strings.Join(texts, " "), colour, width)
}

// Dot draws a filled circle.
func (p *Picture) Dot(x, y, radius float64, colour string) {
	fmt.Fprintf(&p.b, `<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s"/>`+"\n", x, y, radius, colour)
}

// String returns the finished picture.
func (p *Picture) String() string { return p.b.String() + "</svg>\n" }

func spaced(attributes []string) string {
	if len(attributes) == 0 {
		return ""
	}
	return " " + strings.Join(attributes, " ")
}
