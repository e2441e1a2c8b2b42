package kernel

import "math"

// Divergence is the Kullback-Leibler divergence of a distribution from a base,
// both given by logits that come by chunks of the vocabulary. All of it is float64:
// what two models differ by after rounding weights is small beside the logits. The
// zero value is not ready; start with NewDivergence.
type Divergence struct {
	base, own leader
	gap       float64 // sum of exp(base - base.top) * (base - own)
	count     int
}

// leader is a sum of exponentials of logits, relative to the greatest of them.
type leader struct {
	top, sum float64
	at       int // where the first of the greatest is
}

// NewDivergence returns the divergence of nothing from nothing.
func NewDivergence() Divergence {
	none := leader{top: math.Inf(-1)}
	return Divergence{base: none, own: none}
}

// Add adds a chunk of the logits of both.
func (d *Divergence) Add(base, own []float32) {
	d.gap *= d.base.raise(base, d.count)
	d.own.raise(own, d.count)
	for i, b := range base {
		b, o := float64(b), float64(own[i])
		p := math.Exp(b - d.base.top)
		d.base.sum += p
		d.gap += p * (b - o)
		d.own.sum += math.Exp(o - d.own.top)
	}
	d.count += len(base)
}

// raise makes the sum relative to what is greatest with more logits, which begin
// at the given place, and returns what that multiplies it by.
func (l *leader) raise(logits []float32, first int) float64 {
	old := l.top
	for i, v := range logits {
		if float64(v) > l.top {
			l.top, l.at = float64(v), first+i
		}
	}
	if l.top == old {
		return 1
	}
	by := math.Exp(old - l.top)
	l.sum *= by
	return by
}

func (l *leader) logSumExp() float64 { return l.top + math.Log(l.sum) }

// KL returns the divergence in nats. It is not a number if a logit is not finite.
func (d *Divergence) KL() float64 {
	return d.gap/d.base.sum + d.own.logSumExp() - d.base.logSumExp()
}

// LogSumExps returns the logarithms of the sums of the exponentials.
func (d *Divergence) LogSumExps() (base, own float64) { return d.base.logSumExp(), d.own.logSumExp() }

// SameTop reports whether both have the same place as the most likely, of several
// the first.
func (d *Divergence) SameTop() bool { return d.base.at == d.own.at }
