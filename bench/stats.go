package main

import "slices"

// evaluate computes medians and ratios from the rounds.
func (r *result) evaluate() {
	var base []sample
	for _, f := range r.Clients {
		if f.Client == official {
			base = f.Rounds
		}
	}
	for i := range r.Clients {
		f := &r.Clients[i]
		f.Median, f.Ratio = make(sample), make(sample)
		for _, info := range shown {
			var values, ratios []float64
			for round, s := range f.Rounds {
				v, ok := s[info.metric]
				if !ok {
					continue
				}
				values = append(values, v)
				if round < len(base) && base[round][info.metric] > 0 {
					ratios = append(ratios, v/base[round][info.metric])
				}
			}
			if len(values) > 0 {
				f.Median[info.metric] = median(values)
			}
			if len(ratios) > 0 && f.Client != official {
				f.Ratio[info.metric] = median(ratios)
			}
		}
	}
}

// median returns the value in the middle, or the mean of the two there, of at least one.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
