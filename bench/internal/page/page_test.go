package page

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTable(t *testing.T) {
	table := Table{Columns: []string{"a", "b"}, Rows: [][]string{{"1", "22"}, {"333", "4"}}}
	if got, want := table.Markdown(), "| a | b |\n|---|---|\n| 1 | 22 |\n| 333 | 4 |\n"; got != want {
		t.Errorf("Markdown:\n%s\nwant:\n%s", got, want)
	}
	var text strings.Builder
	if err := table.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if got, want := text.String(), "a    b\n1    22\n333  4\n"; got != want {
		t.Errorf("text:\n%s\nwant:\n%s", got, want)
	}
}

func TestWriteMakesTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if err := Write(dir, map[string]string{"a.md": "A", "b.svg": "B"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.md": "A", "b.svg": "B"} {
		if content, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(content) != want {
			t.Errorf("%s: %q, %v", name, content, err)
		}
	}
}

func TestPictureIsXML(t *testing.T) {
	p := NewPicture(100, 50)
	p.Text(1, 2, "a < b & c", `font-weight="bold"`)
	p.Line([][2]float64{{0, 0}, {10, 20.25}}, Own, 1.5)
	p.Dot(5, 6, 3, Official)
	elements := make(map[string]int)
	dec := xml.NewDecoder(strings.NewReader(p.String()))
	for {
		token, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			elements[token.Name.Local]++
		case xml.CharData:
			if s := strings.TrimSpace(string(token)); s != "" && s != "a < b & c" {
				t.Errorf("text %q", s)
			}
		}
	}
	for _, name := range []string{"svg", "rect", "text", "polyline", "circle"} {
		if elements[name] != 1 {
			t.Errorf("%d elements %s", elements[name], name)
		}
	}
}
