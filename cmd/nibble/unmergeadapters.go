package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/merge/receipt"
	"github.com/seed18967229/nibble/tensor"
)

// unmergeAdapters subtracts adapters.
func (a *app) unmergeAdapters(ctx context.Context, merged string, o *unmergeOptions) (err error) {
	var list []weighted
	inputs := []string{merged, o.base}
	for _, s := range o.adapters {
		w, err := parseWeighted(s)
		if err != nil {
			return err
		}
		list = append(list, w)
		inputs = append(inputs, w.path)
	}
	if err := fsx.CheckOutput(o.out, inputs...); err != nil {
		return badUsage(err)
	}
	m, err := openModel(merged)
	if err != nil {
		return err
	}
	defer m.Close()
	var base *model
	if o.base != "" {
		if base, err = openModel(o.base); err != nil {
			return err
		}
		defer base.Close()
	}
	mo := &mergeOptions{base: merged, out: o.out, output: outputOptions{dtype: o.dtype}}
	x, err := m.adapted(list, merge.Once, mo)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	if len(x.config) > 0 {
		return hint.Add(fmt.Errorf("%s: %w: the adapter gave the model another shape, which is not subtracted", merged, tensor.ErrUnsupported),
			"a receipt of the merge gives the base back")
	}
	losses, err := x.negate(base, o)
	if err != nil {
		return err
	}
	r, err := a.writeMerged(ctx, newMergedModel(x), o.out, &mo.output)
	if err != nil {
		return err
	}
	return a.print(newUnmergedResult(r, losses))
}

// negate turns the changes into their opposites, which count what they lose.
func (x *adapted) negate(base *model, o *unmergeOptions) ([]*loss, error) {
	d, err := parseOutType(o.dtype)
	if isGGUF(o.out) {
		d, err = tensor.F32, nil
	}
	if err != nil {
		return nil, err
	}
	var losses []*loss
	for i, c := range x.changes {
		deltas, added := merge.Within(c)
		if !added || len(deltas) == 0 {
			return nil, hint.Add(fmt.Errorf("tensor %q: %w: the adapter does more than to add to it, which cannot be subtracted", c.Target(), tensor.ErrUnsupported),
				"a receipt of the merge (nibble merge --receipt) gives the base back")
		}
		slices.Reverse(deltas)
		for j, d := range deltas {
			deltas[j] = merge.Scaled(d, -1)
		}
		l, err := newLoss(x.model, base, merge.Sum(deltas...), d)
		if err != nil {
			return nil, err
		}
		losses = append(losses, l)
		x.changes[i] = l
	}
	return losses, nil
}

// loss is a change that counts the weights it cannot bring back. Rows may be asked for
// more than once.
type loss struct {
	merge.Change
	cols int64

	of   *receipt.Loss
	base io.ReaderAt // the true bytes, nil if they are not known
	size int64       // of a row of them

	mu       sync.Mutex
	seen     []bool // rows
	weights  int64
	expected float64
	differ   int64
}

func newLoss(m, base *model, c merge.Change, to tensor.DType) (*loss, error) {
	info, err := m.view.Info(c.Target())
	if err != nil {
		return nil, err
	}
	l := &loss{Change: c, cols: info.Shape.Cols(), seen: make([]bool, info.Shape.Rows())}
	was := plainType(m.view, info, to)
	if base != nil {
		b, err := base.view.Info(c.Target())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", base.Path, err)
		}
		if !b.Shape.Equal(info.Shape) {
			return nil, hint.Add(fmt.Errorf("%s: tensor %q: %w: shape %v, the merged model's is %v", base.Path, c.Target(), tensor.ErrMalformed, b.Shape, info.Shape),
				"is it the base of this model?")
		}
		was = b.DType
		if b.DType.Float() {
			if l.base, err = base.view.Raw(c.Target()); err != nil {
				return nil, err
			}
			l.size = b.RowSize()
		}
	}
	var ok bool
	if l.of, ok = receipt.NewLoss(was, info.DType); !ok {
		l.base = nil
	}
	return l, nil
}

// Apply implements merge.Change.
func (l *loss) Apply(w []float32, row int64) error {
	m := slices.Clone(w)
	if err := l.Change.Apply(w, row); err != nil {
		return err
	}
	for ; len(m) > 0; m, w, row = m[l.cols:], w[l.cols:], row+1 {
		if err := l.count(m[:l.cols], w[:l.cols], row); err != nil {
			return err
		}
	}
	return nil
}

func (l *loss) count(m, v []float32, row int64) error {
	l.mu.Lock()
	seen := l.seen[row]
	l.seen[row] = true
	l.mu.Unlock()
	if seen || l.of == nil {
		return nil
	}
	expected, differ := l.of.Expected(m, v), int64(0)
	if l.base != nil {
		b := make([]byte, l.size)
		if n, err := l.base.ReadAt(b, row*l.size); int64(n) < l.size {
			return err
		}
		differ = l.of.Differ(v, b)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.weights += int64(len(m))
	l.expected += expected
	l.differ += differ
	return nil
}

// unmergedResult is the account of a subtraction.
type unmergedResult struct {
	writeResult
	Subtracted int `json:"tensors_subtracted"`

	// Weights are those of which can be said what comes back; Expected of them are
	// expected not to, and Differ do not, if there is a base to compare with.
	Weights  int64        `json:"weights"`
	Expected float64      `json:"expected_inexact"`
	Differ   *int64       `json:"inexact,omitempty"`
	Losses   []lostResult `json:"losses"`
}

type lostResult struct {
	Name     string  `json:"name"`
	Weights  int64   `json:"weights"`
	Expected float64 `json:"expected_inexact"`
	Differ   *int64  `json:"inexact,omitempty"`
}

func newUnmergedResult(r *writeResult, losses []*loss) *unmergedResult {
	r.rename("merge", "subtract")
	u := &unmergedResult{writeResult: *r, Subtracted: len(losses), Losses: []lostResult{}}
	for _, l := range losses {
		one := lostResult{Name: l.Target(), Weights: l.weights, Expected: l.expected}
		u.Weights += l.weights
		u.Expected += l.expected
		if l.base != nil {
			one.Differ = &l.differ
			if u.Differ == nil {
				u.Differ = new(int64)
			}
			*u.Differ += l.differ
		}
		u.Losses = append(u.Losses, one)
	}
	return u
}

func (r *unmergedResult) text(w io.Writer) {
	r.writeResult.text(w)
	fmt.Fprintf(w, "  deltas subtracted from %s\n", plural(r.Subtracted, "tensor"))
	all := float64(max(1, r.Weights))
	switch {
	case r.Weights == 0:
		fmt.Fprintf(w, "  how much of the base comes back exactly is not known: its weights or the merged ones are no plain floats\n")
	case r.Differ != nil:
		fmt.Fprintf(w, "  lost to rounding when they were added: %d of %d weights (%.3f %%) are not the base's; %.0f were expected\n",
			*r.Differ, r.Weights, 100*float64(*r.Differ)/all, r.Expected)
	default:
		fmt.Fprintf(w, "  lost to rounding when they were added: about %.0f of %d weights (%.3f %%) are not the base's, by a few of their last places\n",
			r.Expected, r.Weights, 100*r.Expected/all)
	}
	fmt.Fprintln(w, "  a receipt, which nibble merge --receipt writes, brings all of them back")
}
