package model

import (
	"fmt"
	"math"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Final is a model and the last block's hidden states of its batches.
type Final struct {
	*Model
	Xs      [][]float32
	Weights Weights
}

// Comparison is how a model and the base it is compared with predict one label.
type Comparison struct {
	// Loss and Base are the cross-entropies of the two, in nats.
	Loss, Base float64

	// KL is the divergence of the model's distribution from the base's, in nats.
	KL float64

	// SameTop says that both have the same token as the most likely.
	SameTop bool
}

// Compare compares the predictions of m with those of a base of the same
// vocabulary, for every label of the batches. Both heads are gone through once, a
// chunk of the vocabulary at a time.
func Compare(m, base Final, batches []*Batch) ([]Comparison, error) {
	if m.Vocab() != base.Vocab() {
		return nil, fmt.Errorf("%w: %d logits, and %d of the base to compare them with", tensor.ErrUnsupported, m.Vocab(), base.Vocab())
	}
	own, err := m.top(m.Xs, batches, m.Weights)
	if err != nil {
		return nil, err
	}
	other, err := base.top(base.Xs, batches, base.Weights)
	if err != nil {
		return nil, fmt.Errorf("the base: %w", err)
	}
	n := len(own.labels)
	chunk := m.chunk(2 * n)
	logits, baseLogits := m.headScr.take(n*chunk), base.headScr.take(n*chunk)
	sums, labels := make([]kernel.Divergence, n), make([]Comparison, n)
	for i := range sums {
		sums[i] = kernel.NewDivergence()
	}
	if err := m.sweep(own.head, logits, own.x, n, chunk, func(part []float32, first, width int) error {
		basePart := baseLogits[:n*width]
		if err := base.logits(other.head, basePart, other.x, n, first, width); err != nil {
			return fmt.Errorf("the base: %w", err)
		}
		kernel.Parallel(n, int64(n)*int64(width)*32, func(i int) {
			row, baseRow := part[i*width:(i+1)*width], basePart[i*width:(i+1)*width]
			sums[i].Add(baseRow, row)
			if at := int(own.labels[i]) - first; at >= 0 && at < width {
				labels[i].Loss, labels[i].Base = -float64(row[at]), -float64(baseRow[at])
			}
		})
		return nil
	}); err != nil {
		return nil, err
	}
	for i, d := range sums {
		baseSum, sum := d.LogSumExps()
		labels[i].Loss += sum
		labels[i].Base += baseSum
		labels[i].KL, labels[i].SameTop = d.KL(), d.SameTop()
		if math.IsNaN(labels[i].KL) || math.IsInf(labels[i].KL, 0) {
			return nil, hint.Add(fmt.Errorf("%w: the logits that predict token %d are not all finite", tensor.ErrMalformed, own.labels[i]),
				"nibble verify tells whether the weights are")
		}
	}
	return labels, nil
}
