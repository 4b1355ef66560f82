package main

import (
	"encoding/json"
	"fmt"
	"io"
)

type report struct {
	Machine string   `json:"machine"`
	Note    string   `json:"note,omitempty"`
	Rounds  int      `json:"rounds"`
	Time    string   `json:"time"`
	Scale   scale    `json:"scale"`
	Results []result `json:"results"`
}

func thisMachine() string { return "" }
func (r *report) text(w io.Writer) error {
	for _, x := range r.Results {
		fmt.Fprintln(w, x.Case)
		for _, f := range x.Clients {
			for _, s := range shown {
				if v, ok := f.Median[s.metric]; ok {
					fmt.Fprintf(w, "%s %s (%.2f)  ", s.title, s.format(v), f.Ratio[s.metric])
				}
			}
			fmt.Fprintln(w, f.Client)
		}
	}
	return nil
}
func (r *report) write(string) error { _, err := json.Marshal(r); return err }
