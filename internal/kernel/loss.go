package kernel

import "math"

// LogSumExp is the logarithm of a sum of exponentials that grows by chunks, so
// that the logits of a large vocabulary need never exist at once. The zero
// value is not ready; start with NewLogSumExp. Its error is that of Exp's arguments and
// of sums of float32 as sumGroup bounds them: in practice some 1e-7.
type LogSumExp struct{ top, sum float64 }

// NewLogSumExp returns the logarithm of an empty sum.
func NewLogSumExp() LogSumExp { return LogSumExp{top: math.Inf(-1)} }

// Add adds the exponentials of a chunk of logits.
func (l *LogSumExp) Add(logits []float32) {
	top := max(l.top, float64(use.max(logits)))
	if math.IsInf(top, -1) {
		return
	}
	// top is one of the logits, and so no more than a float32.
	l.sum = l.sum*math.Exp(l.top-top) + use.sumExp(logits, float32(top))
	l.top = top
}

// Weigh is Add that replaces the logits by their exponentials relative to the greatest
// logit so far, which are never more than 1. What was made of earlier ones is relative to
// the greatest again when it is multiplied by shrink (as in FlashAttention; Dao et al., 2022).
func (l *LogSumExp) Weigh(logits []float32) (shrink float32) {
	top := max(l.top, float64(use.max(logits)))
	if math.IsInf(top, -1) {
		clear(logits)
		return 1
	}
	down := math.Exp(l.top - top)
	l.sum = l.sum*down + use.expSum(logits, logits, float32(top))
	l.top = top
	return float32(down)
}

// Sum returns the sum of the exponentials relative to the greatest logit.
func (l *LogSumExp) Sum() float64 { return l.sum }

// Value returns the logarithm of the sum.
func (l *LogSumExp) Value() float64 { return l.top + math.Log(l.sum) }

// CrossEntropyGrad replaces a chunk of logits, which begin at token first, by
// scale times the gradient of -log softmax(logits)[label].
func CrossEntropyGrad(logits []float32, first, label int, lse float64, scale float32) {
	shift, rest := float32(lse), float32(0)
	if !math.IsInf(float64(shift), 0) {
		rest = float32(lse - float64(shift))
	}
	use.expScale(logits, shift, rest, scale)
	if i := label - first; i >= 0 && i < len(logits) {
		logits[i] -= scale
	}
}
