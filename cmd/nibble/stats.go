package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"unicode"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/tensor"
)

// A figure is a number that JSON may not be able to hold.
type figure float64

// MarshalJSON writes what is no number as null.
func (f figure) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// valueFacts are statistics of the values of a tensor. All but the counts are of
// those that are finite.
type valueFacts struct {
	Min    figure `json:"min"`
	Max    figure `json:"max"`
	Mean   figure `json:"mean"`
	Std    figure `json:"std"`
	AbsMax figure `json:"absmax"`
	Zeros  int64  `json:"zeros"`
	NaN    int64  `json:"nan"`
	Inf    int64  `json:"inf"`
}

// moments are what statistics are computed from, so that those of parts give
// those of the whole.
type moments struct {
	n              int64 // finite values
	min, max       float32
	mean, m2       float64 // m2 is the sum of squared differences from the mean
	zeros, nan, in int64
}

// momentsOf computes the moments of a panel and counts its magnitudes.
func momentsOf(w []float32, h *magnitudes) moments {
	low, high := float32(math.Inf(1)), float32(math.Inf(-1))
	var m moments
	var sum float64
	for _, v := range w {
		bits := math.Float32bits(v) &^ (1 << 31)
		h[bits>>magnitudeShift%uint32(len(h))]++
		if bits-1 >= infBits-1 { // 0 has become the largest
			switch {
			case bits == 0:
				m.zeros++
			case bits == infBits:
				m.in++
				continue
			default:
				m.nan++
				continue
			}
		}
		if v < low {
			low = v
		}
		if v > high {
			high = v
		}
		sum += float64(v)
	}
	m.min, m.max, m.n = low, high, int64(len(w))-m.nan-m.in
	if m.n == 0 {
		return m
	}
	m.mean = sum / float64(m.n)
	for _, v := range w {
		if v-v == 0 {
			d := float64(v) - m.mean
			m.m2 += d * d
		}
	}
	return m
}

const infBits = 0xff << 23

// add makes m the moments of its values and those of o together (Chan, Golub and
// LeVeque's update).
func (m *moments) add(o moments) {
	m.zeros, m.nan, m.in = m.zeros+o.zeros, m.nan+o.nan, m.in+o.in
	switch {
	case o.n == 0:
		return
	case m.n == 0:
		zeros, nan, in := m.zeros, m.nan, m.in
		*m = o
		m.zeros, m.nan, m.in = zeros, nan, in
		return
	}
	m.min, m.max = min(m.min, o.min), max(m.max, o.max)
	n, d := float64(m.n+o.n), o.mean-m.mean
	m.m2 += o.m2 + d*d*float64(m.n)*float64(o.n)/n
	m.mean += d * float64(o.n) / n
	m.n += o.n
}

func (m *moments) facts() *valueFacts {
	f := &valueFacts{Zeros: m.zeros, NaN: m.nan, Inf: m.in}
	if m.n == 0 {
		nan := figure(math.NaN())
		f.Min, f.Max, f.Mean, f.Std, f.AbsMax = nan, nan, nan, nan, nan
		return f
	}
	f.Min, f.Max, f.Mean = figure(m.min), figure(m.max), figure(m.mean)
	f.Std, f.AbsMax = figure(math.Sqrt(m.m2/float64(m.n))), max(figure(m.max), -figure(m.min))
	return f
}

// survey is what --stats finds in a model.
type survey struct {
	tensors map[string]*valueFacts
	total   moments
	counts  map[group]*magnitudes
}

// survey reads every value of the tensors that have a decoder.
func (a *app) survey(ctx context.Context, src tensor.Source, m *arch.Model) (*survey, error) {
	var infos []tensor.Info
	var total int64
	for info := range src.All() {
		if _, ok := codecs[info.DType]; ok {
			infos = append(infos, info)
			total += info.Size()
		}
	}
	s := &survey{tensors: make(map[string]*valueFacts), counts: map[group]*magnitudes{everything: {}}}
	groupOf := func(string) group { return everything }
	if m != nil {
		byName := groupsOf(m)
		groupOf = func(name string) group {
			if g, ok := byName[name]; ok {
				return g
			}
			return others
		}
		for _, info := range infos {
			s.counts[groupOf(info.Name)] = new(magnitudes)
		}
	}
	bar := a.progress("read", total, bytesUnit)
	defer bar.stop()
	var mu sync.Mutex
	parts, err := scan(ctx, a.scanWorkers(1), len(infos),
		func(i int) []span { return spansOf(infos[i]) },
		func(i int) (*flat, error) { return openFlat(src, infos[i]) },
		func(f *flat, sp span, sc *scratch) (moments, error) {
			w, err := f.values(sc, sp)
			if err != nil {
				return moments{}, err
			}
			var h magnitudes
			out := momentsOf(w, &h)
			mu.Lock()
			defer mu.Unlock()
			to := s.counts[groupOf(f.info.Name)]
			for i, n := range h {
				to[i] += n
			}
			bar.add(sp.size(f.info))
			return out, nil
		})
	if err != nil {
		return nil, err
	}
	for i, info := range infos {
		var whole moments
		for _, p := range parts[i] {
			whole.add(p)
		}
		s.tensors[info.Name] = whole.facts()
		s.total.add(whole)
	}
	if m != nil {
		for g, h := range s.counts {
			for i, n := range h {
				if g != everything {
					s.counts[everything][i] += n
				}
			}
		}
	}
	return s, nil
}

// statsTable prints a line for each tensor, at most 120 columns wide.
func statsTable(w io.Writer, tensors []tensorFacts, total *valueFacts) {
	const row = "  %-40s %-6s %10s %10s %10s %9s %9s %7s %7s\n"
	fmt.Fprintf(w, row, "", "type", "min", "max", "mean", "std", "absmax", "zeros", "NaN/Inf")
	line := func(name, kind string, v *valueFacts) {
		kind, _, _ = strings.Cut(kind, " ")
		if v == nil {
			fmt.Fprintf(w, "  %-40s %-6s no values that nibble decodes\n", fit(name, 40), kind)
			return
		}
		bad := "0"
		if v.NaN+v.Inf > 0 {
			bad = count(v.NaN) + "/" + count(v.Inf)
		}
		fmt.Fprintf(w, row, fit(name, 40), kind, short(v.Min), short(v.Max), short(v.Mean), short(v.Std), short(v.AbsMax), count(v.Zeros), bad)
	}
	for _, t := range tensors {
		line(t.Name, t.DType, t.Values)
	}
	line("all", "", total)
}

func short(f figure) string {
	if math.IsNaN(float64(f)) {
		return "-"
	}
	return fmt.Sprintf("%.3g", float64(f))
}

// count writes a number with three digits and a unit.
func count(n int64) string {
	x, unit := float64(n), ""
	for _, u := range []string{"K", "M", "B", "T"} {
		if x < 999.5 {
			break
		}
		x, unit = x/1000, u
	}
	if unit == "" {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%.3g%s", x, unit)
}

// fit shortens a name to n characters by leaving out its middle. What a terminal
// would not print, or would obey, is replaced.
func fit(name string, n int) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, name)
	r := []rune(name)
	if len(r) <= n {
		return name
	}
	half := (n - 1) / 2
	return string(r[:n-1-half]) + "…" + string(r[len(r)-half:])
}
