package main

import (
	"slices"
	"testing"
	"time"
)

// A short run of each client, in which the fault is too short to do much: what is checked is the measuring.
func TestRunsMeasureSomething(t *testing.T) {
	for _, c := range contenders {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			times := phases{healthy: time.Second, fault: time.Second, recovery: 2 * time.Second}
			s := scenarios[len(scenarios)-1] // with the member's restart
			got, err := try(t.Context(), s, c, times)
			if err != nil {
				t.Fatal(err)
			}
			if got.scenario != s.name || got.client != c.name || slices.Max(got.series.perSecond) == 0 {
				t.Errorf("%+v", got)
			}
			if got.lost != 0 || got.repeated != 0 {
				t.Errorf("%d events lost, %d repeated", got.lost, got.repeated)
			}
		})
	}
}
