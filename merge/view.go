package merge

import (
	"fmt"
	"io"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// View returns base with the changes done to it; those of one tensor in the
// order given. Each tensor gets the DType that dtype gives for it; one that
// keeps its own and has no change is passed on as it is stored.
//
// Changes are made in float32 and rounded once. A value that is not finite,
// before or after, is an error of the read.
func View(base tensor.Source, codecs tensor.Codecs, changes []Change, dtype func(tensor.Info) tensor.DType) (tensor.Source, error) {
	byTarget := make(map[string][]Change)
	for _, c := range changes {
		byTarget[c.Target()] = append(byTarget[c.Target()], c)
	}
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
			return nil, fmt.Errorf("tensor %q: %w", info.Name, err)
		}
		change := func(w []float32, row int64) error {
			if err := finite(info, w, row, "the base"); err != nil {
				return err
			}
			for _, c := range own {
				if err := c.Apply(w, row); err != nil {
					return err
				}
			}
			return finite(info, w, row, "the sum of base and adapter")
		}
		entries = append(entries, lazy(base, codecs, info, tensor.Info{Name: info.Name, DType: out, Shape: info.Shape}, change, enc))
	}
	for name := range byTarget {
		return nil, fmt.Errorf("tensor %q: %w in the base", name, tensor.ErrNotFound)
	}
	return tensor.NewTable(base.Meta(), entries)
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

// finite returns an error that gives the first element that is not finite.
func finite(info tensor.Info, w []float32, row int64, of string) error {
	for i, v := range w {
		if v-v != 0 { // NaN or Inf
			at := row*info.Shape.Cols() + int64(i)
			return hint.Add(fmt.Errorf("%w: element %d of %s is %v", tensor.ErrMalformed, at, of, v),
				"nibble verify lists every tensor with NaN or Inf")
		}
	}
	return nil
}
