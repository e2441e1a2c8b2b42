package engine

import (
	"math"
	"slices"

	"github.com/seed18967229/nibble/train/model"
)

// Divergence is how far a model's predictions are from those of a base: what
// model.Compare says of each label, put together. The figures are those of
// llama-perplexity --kl-divergence.
type Divergence struct {
	loss, base, kl, dp, square moments // of each label; dp is the difference of the label's probability
	cross                      float64 // sum of loss * base
	same                       int
	kls                        []float32
}

// moments are what mean and uncertainty are computed from.
type moments struct{ sum, squares float64 }

func (m *moments) add(v float64) {
	m.sum += v
	m.squares += v * v
}

// A Figure is a mean over labels and its statistical uncertainty: one standard
// deviation of the mean, 0 where there are too few labels to tell.
type Figure struct {
	Value       float64 `json:"value"`
	Uncertainty float64 `json:"uncertainty"`
}

// fewest is the number of labels that uncertainties begin at, llama-perplexity's.
const fewest = 11

func (m *moments) mean(n int) Figure {
	f := Figure{Value: m.sum / float64(n)}
	if v := m.squares/float64(n) - f.Value*f.Value; v > 0 && n >= fewest {
		f.Uncertainty = math.Sqrt(v / float64(n-1))
	}
	return f
}

func (d *Divergence) add(c model.Comparison) {
	dp := math.Exp(-c.Loss) - math.Exp(-c.Base)
	d.loss.add(c.Loss)
	d.base.add(c.Base)
	d.cross += c.Loss * c.Base
	d.kl.add(c.KL)
	d.dp.add(dp)
	d.square.add(dp * dp)
	d.kls = append(d.kls, float32(c.KL))
	if c.SameTop {
		d.same++
	}
}

// Labels returns the number of labels.
func (d *Divergence) Labels() int { return len(d.kls) }

// Loss returns the sum of the model's cross-entropies, in nats.
func (d *Divergence) Loss() float64 { return d.loss.sum }

// Perplexity and BasePerplexity are those of the two models.
func (d *Divergence) Perplexity() Figure     { return exp(d.loss.mean(d.Labels())) }
func (d *Divergence) BasePerplexity() Figure { return exp(d.base.mean(d.Labels())) }

// exp returns e to the power of a figure.
func exp(f Figure) Figure {
	v := math.Exp(f.Value)
	return Figure{v, v * f.Uncertainty}
}

// LogRatio is the logarithm of the ratio of the perplexities, which is surer than
// either since both models find the same tokens hard.
func (d *Divergence) LogRatio() Figure {
	n := d.Labels()
	own, base := d.loss.mean(n), d.base.mean(n)
	f := Figure{Value: own.Value - base.Value}
	if n >= fewest {
		covariance := (d.cross/float64(n) - own.Value*base.Value) / float64(n-1)
		v := own.Uncertainty*own.Uncertainty + base.Uncertainty*base.Uncertainty - 2*covariance
		f.Uncertainty = math.Sqrt(max(0, v))
	}
	return f
}

// KL is the mean divergence in nats.
func (d *Divergence) KL() Figure { return d.kl.mean(d.Labels()) }

// SameTop is the share of labels for which both models have the same token as the
// most likely.
func (d *Divergence) SameTop() Figure {
	n := float64(d.Labels())
	f := Figure{Value: float64(d.same) / n}
	if n > 1 {
		f.Uncertainty = math.Sqrt(f.Value * (1 - f.Value) / (n - 1))
	}
	return f
}

// RMSDeltaP is the root of the mean square of the difference of the label's
// probability.
func (d *Divergence) RMSDeltaP() Figure {
	f := d.square.mean(d.Labels())
	root := math.Sqrt(f.Value)
	if root == 0 {
		return Figure{}
	}
	return Figure{root, f.Uncertainty / (2 * root)}
}

// Percentiles returns the divergences below which the given shares of the labels
// are, 1 for the greatest; between two labels' it interpolates.
func (d *Divergence) Percentiles(shares ...float64) []float64 {
	sorted := slices.Sorted(slices.Values(d.kls))
	out := make([]float64, len(shares))
	for i, s := range shares {
		at := s * float64(len(sorted)-1)
		low := int(at)
		high := min(low+1, len(sorted)-1)
		part := at - float64(low)
		out[i] = (1-part)*float64(sorted[low]) + part*float64(sorted[high])
	}
	return out
}
