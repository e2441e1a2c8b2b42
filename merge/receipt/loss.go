package receipt

import (
	"bytes"
	"math"

	"github.com/seed18967229/nibble/tensor"
)

// Loss tells of weights from which deltas were taken off again how many are not what
// they were. It is for models of which there is no receipt.
type Loss struct {
	p predictor
}

// NewLoss returns the Loss of a tensor that was merged as one type and was of another
// before, and whether both are floating-point types, without which nothing can be said.
func NewLoss(base, merged tensor.DType) (*Loss, bool) {
	f, ok := floatTypes[base]
	if _, also := floatTypes[merged]; !ok || !also {
		return nil, false
	}
	return &Loss{predictor{f, precisionOf(merged)}}, true
}

// Expected returns of how many weights it is expected, m being what was merged and v
// what is left of it. Where k bits were lost, one of 2^k values was the weight.
func (l *Loss) Expected(m, v []float32) float64 {
	var n float64
	for i := range m {
		if k := l.p.lost(m[i], v[i]); k > 0 {
			n += 1 - math.Ldexp(1, -k)
		}
	}
	return n
}

// Differ returns of how many weights it is so, base being their bytes.
func (l *Loss) Differ(v []float32, base []byte) int64 {
	code := make([]byte, len(base))
	l.p.base.encode(code, v)
	var n int64
	for size := l.p.base.size; len(code) > 0; code, base = code[size:], base[size:] {
		if !bytes.Equal(code[:size], base[:size]) {
			n++
		}
	}
	return n
}
