package engine

import (
	"context"

	"github.com/seed18967229/nibble/train/model"
)

// Evaluate returns the sum of the cross-entropies over n examples, in nats, and
// the number of labels. add appends example i to a batch. group examples go
// through the model at a time.
func Evaluate(ctx context.Context, e *Engine, n, group int, add func(b *model.Batch, i int) error) (sum float64, labels int, err error) {
	for at := 0; at < n; at += group {
		var batches []*model.Batch
		for i := at; i < min(n, at+group); i++ {
			b := &model.Batch{}
			if err := add(b, i); err != nil {
				return 0, 0, err
			}
			labels += b.NumLabels()
			batches = append(batches, b)
		}
		sums, err := e.Loss(ctx, batches)
		if err != nil {
			return 0, 0, err
		}
		for _, s := range sums {
			sum += s
		}
	}
	return sum, labels, nil
}
