package merge

import (
	"fmt"
	"io"
	"math"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// View returns base with the changes done to it; those of one tensor in the
// order given. Each tensor gets the DType that dtype gives for it; one that
// keeps its own and has no change is passed on as it is stored.
//
// Changes are made in float32 and rounded once. A value that is not finite,
// before or after, is an error of the read.
func View(base tensor.Source, codecs tensor.Codecs, changes []Change, dtype func(tensor.Info) tensor.DType) (tensor.Source, error) {
	v, _, err := Measured(base, codecs, changes, dtype)
	return v, err
}

// Measured is View with an account of how much the changes amount to, which is
// complete once the view has been read.
func Measured(base tensor.Source, codecs tensor.Codecs, changes []Change, dtype func(tensor.Info) tensor.DType) (tensor.Source, *Account, error) {
	byTarget := make(map[string][]Change)
	for _, c := range changes {
		byTarget[c.Target()] = append(byTarget[c.Target()], c)
	}
	account := &Account{}
	var entries []tensor.Entry
	for info := range base.All() {
		out := dtype(info)
		own := byTarget[info.Name]
		delete(byTarget, info.Name)
		if len(own) == 0 && out == info.DType {
			entries = append(entries, tensor.Forward(base, info, info.Name))
			continue
		}
		enc, err := codecs.Encoder(out)
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", info.Name, err)
		}
		change := func(w []float32, row int64) error { return eachRow(info, w, row, "the base", nil) }
		if len(own) > 0 {
			m := newMeter(info, newChain(own), enc)
			account.meters = append(account.meters, m)
			change = m.apply
		}
		entries = append(entries, lazy(base, codecs, info, tensor.Info{Name: info.Name, DType: out, Shape: info.Shape}, change, enc))
	}
	for name := range byTarget {
		return nil, nil, fmt.Errorf("tensor %q: %w in the base", name, tensor.ErrNotFound)
	}
	v, err := tensor.NewTable(base.Meta(), entries)
	return v, account, err
}

// lazy is tensor.Compute over a tensor of base that is opened when it is read.
func lazy(base tensor.Source, codecs tensor.Codecs, in, out tensor.Info, change func([]float32, int64) error, enc tensor.Encoder) tensor.Entry {
	return tensor.Entry{Info: out, Open: func() (io.ReaderAt, error) {
		_, rows, err := codecs.OpenFrom(base, in.Name)
		if err != nil {
			return nil, err
		}
		return tensor.Compute(out, rows, change, enc).Open()
	}}
}

// eachRow gives the sums of squares of rows to f, which may be nil. A row with an
// element that is not finite is an error.
func eachRow(info tensor.Info, w []float32, row int64, of string, f func(row int64, squares float64)) error {
	cols := int(info.Shape.Cols())
	for ; len(w) > 0; w, row = w[cols:], row+1 {
		squares := kernel.SumSquares(w[:cols])
		if err := finite(info, w[:cols], row, squares, of); err != nil {
			return err
		}
		if f != nil {
			f(row, squares)
		}
	}
	return nil
}

// finite returns an error that gives the first element that is not finite, given
// the sum of the squares.
func finite(info tensor.Info, w []float32, row int64, squares float64, of string) error {
	if squares-squares == 0 {
		return nil
	}
	for i, v := range w {
		if v-v != 0 { // NaN or Inf
			at := row*info.Shape.Cols() + int64(i)
			return hint.Add(fmt.Errorf("%w: element %d of %s is %v", tensor.ErrMalformed, at, of, v),
				"nibble verify lists every tensor with NaN or Inf")
		}
	}
	return nil
}

// overflow returns an error if an element becomes infinite where it is stored.
func overflow(info tensor.Info, to tensor.DType, w []float32, row int64, squares float64) error {
	var least float64 // that is rounded up to infinity
	switch to {
	case tensor.F16:
		least = 65520
	case tensor.BF16:
		least = 0x1.ffp127
	default:
		return nil
	}
	if squares < least*least {
		return nil
	}
	for i, v := range w {
		if math.Abs(float64(v)) >= least {
			at := row*info.Shape.Cols() + int64(i)
			return hint.Add(fmt.Errorf("%w: element %d of the sum of base and adapter is %v, more than %v holds", tensor.ErrMalformed, at, v, to),
				"write another type: --dtype bf16 or f32")
		}
	}
	return nil
}
