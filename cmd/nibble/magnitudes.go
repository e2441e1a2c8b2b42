package main

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/chart"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
)

// magnitudes counts values by the exponent of their float32 and the two bits
// after it: four bins an octave.
type magnitudes [1 << (31 - magnitudeShift)]int64

const magnitudeShift = 21

// bound returns the magnitude at which bin i begins.
func bound(i int) float64 { return float64(math.Float32frombits(uint32(i) << magnitudeShift)) }

// Bins that hold no magnitude of a normal number: zero is in the first with the
// smallest subnormals, which float32 hardly tells apart; Inf and NaN in the last.
const (
	firstBin = 1 << (23 - magnitudeShift)
	lastBin  = infBits >> magnitudeShift
)

// group names what tensors have in common in the picture.
type group string

const everything, others group = "all weights", "norms, biases and others"

// groups are the roles of matrices.
var groups = map[arch.Role]group{
	arch.Embedding: "embeddings and head", arch.Position: "embeddings and head", arch.Head: "embeddings and head",
	arch.QKV: "attention", arch.Query: "attention", arch.Key: "attention", arch.Value: "attention", arch.AttnOut: "attention",
	arch.GateUp: "MLP", arch.Gate: "MLP", arch.Up: "MLP", arch.Down: "MLP", arch.Router: "MLP",
	arch.SharedGate: "MLP", arch.SharedUp: "MLP", arch.SharedDown: "MLP", arch.SharedRouter: "MLP",
}

// groupsOf returns the group of each tensor of a model by name.
func groupsOf(m *arch.Model) map[string]group {
	out := make(map[string]group)
	for _, t := range m.Tensors() {
		if g, ok := groups[t.Role]; ok && len(t.Dims) > 1 {
			out[t.Name] = g
		}
	}
	return out
}

// octave counts the values of magnitude 2^Exponent up to, but not including,
// twice that.
type octave struct {
	Exponent int   `json:"exponent"`
	Count    int64 `json:"count"`
}

// octaves returns the histogram of all weights, without the zeros.
func (s *survey) octaves() []octave {
	var out []octave
	h := s.counts[everything]
	for i := firstBin; i < lastBin; i += firstBin {
		o := octave{Exponent: i/firstBin - 127}
		for _, n := range h[i : i+firstBin] {
			o.Count += n
		}
		if o.Count > 0 {
			out = append(out, o)
		}
	}
	return out
}

// plot draws the magnitudes of all weights and of each group. Each curve has the
// same area, so that small groups can be seen beside large ones; that of the
// norms may leave the picture, for they are few and much alike.
func (s *survey) plot(title string) ([]byte, error) {
	first, last := s.visible()
	list := []chart.Distribution{s.distribution(everything, first, last)}
	for _, g := range []group{"embeddings and head", "attention", "MLP", others} {
		if s.counts[g] != nil {
			d := s.distribution(g, first, last)
			d.Minor = g == others
			list = append(list, d)
		}
	}
	return chart.Magnitudes(title, "magnitude", "share of the weights in an octave, %", list...)
}

// visible returns the bins to draw: all but the smallest thousandth of each
// group.
func (s *survey) visible() (first, last int) {
	first, last = lastBin, firstBin
	for _, h := range s.counts {
		var all, below int64
		for _, n := range h[firstBin:lastBin] {
			all += n
		}
		for i := firstBin; i < lastBin; i++ {
			below += h[i]
			if h[i] > 0 {
				last = max(last, i+1)
				if below*1000 >= all {
					first = min(first, i)
				}
			}
		}
	}
	return first, last
}

func (s *survey) distribution(g group, first, last int) chart.Distribution {
	h := s.counts[g]
	var all int64
	for _, n := range h[:lastBin] {
		all += n
	}
	d := chart.Distribution{Name: fmt.Sprintf("%s (%s)", g, count(all))}
	if all == 0 {
		return d
	}
	for i := first; i < last; i++ {
		from, to := bound(i), bound(i+1)
		d.Bins = append(d.Bins, chart.Bin{From: from, To: to, Density: 100 * float64(h[i]) / float64(all) / math.Log2(to/from)})
	}
	return d
}

// createPlot begins the picture, so that one that cannot be written is known
// before the work; nil if none is wanted.
func (a *app) createPlot(path, in string) (*fsx.File, error) {
	if path == "" {
		return nil, nil
	}
	if !strings.EqualFold(filepath.Ext(path), ".png") {
		return nil, badUsage(hint.Add(fmt.Errorf("--plot %s: the picture is a PNG", path), "give it a name that ends in .png"))
	}
	if err := fsx.CheckOutput(path, in); err != nil {
		return nil, badUsage(err)
	}
	return fsx.Create(path, a.force)
}
