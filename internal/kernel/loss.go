package kernel

import "math"

// LogSumExp is the logarithm of a sum of exponentials that grows by chunks, so
// that the logits of a large vocabulary need never exist at once. The zero
// value is not ready; start with NewLogSumExp.
type LogSumExp struct{ top, sum float64 }

// NewLogSumExp returns the logarithm of an empty sum.
func NewLogSumExp() LogSumExp { return LogSumExp{top: math.Inf(-1)} }

// Add adds the exponentials of a chunk of logits.
func (l *LogSumExp) Add(logits []float32) {
	top := l.top
	for _, v := range logits {
		top = max(top, float64(v))
	}
	if math.IsInf(top, -1) {
		return
	}
	sum := l.sum * math.Exp(l.top-top)
	var chunk float32
	for i, v := range logits {
		chunk += Exp(float32(float64(v) - top))
		// Short partial sums keep float32 exact enough for any vocabulary.
		if i&255 == 255 {
			sum += float64(chunk)
			chunk = 0
		}
	}
	l.top, l.sum = top, sum+float64(chunk)
}

// Value returns the logarithm of the sum.
func (l *LogSumExp) Value() float64 { return l.top + math.Log(l.sum) }

// CrossEntropyGrad replaces a chunk of logits, which begin at token first, by
// scale times the gradient of -log softmax(logits)[label].
func CrossEntropyGrad(logits []float32, first, label int, lse float64, scale float32) {
	for i, v := range logits {
		logits[i] = scale * Exp(float32(float64(v)-lse))
	}
	if i := label - first; i >= 0 && i < len(logits) {
		logits[i] -= scale
	}
}
