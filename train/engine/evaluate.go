package engine

import (
	"context"

	"github.com/seed18967229/nibble/train/model"
)

// Evaluate returns the sum of the cross-entropies over n examples, in nats, and
// the number of labels. add appends example i to a batch. group examples go
// through the model at a time.
func Evaluate(ctx context.Context, e *Engine, n, group int, add func(b *model.Batch, i int) error) (sum float64, labels int, err error) {
	err = inGroups(ctx, n, group, add, func(batches []*model.Batch) error {
		sums, err := e.Loss(ctx, batches)
		for i, s := range sums {
			sum += s
			labels += batches[i].NumLabels()
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	return sum, labels, nil
}

// Compare compares how e and the base predict the labels of n examples, which
// both take through all their blocks group by group.
func Compare(ctx context.Context, e, base *Engine, n, group int, add func(b *model.Batch, i int) error) (*Divergence, error) {
	d := &Divergence{}
	err := inGroups(ctx, n, group, add, func(batches []*model.Batch) error {
		list, err := e.compare(ctx, base, batches)
		for _, c := range list {
			d.add(c)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// inGroups makes batches of n examples, one each, and calls f with groups of
// them.
func inGroups(ctx context.Context, n, group int, add func(b *model.Batch, i int) error, f func(batches []*model.Batch) error) error {
	for at := 0; at < n; at += group {
		if err := ctx.Err(); err != nil {
			return err
		}
		var batches []*model.Batch
		for i := at; i < min(n, at+group); i++ {
			b := &model.Batch{}
			if err := add(b, i); err != nil {
				return err
			}
			batches = append(batches, b)
		}
		if err := f(batches); err != nil {
			return err
		}
	}
	return nil
}
