package merge

import (
	"fmt"
	"io"
	"math"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// Config is what an adapter's arithmetic depends on, whatever file it was
// written in.
type Config struct {
	// Rank and Alpha give the scale alpha/rank, or alpha/sqrt(rank) if
	// UseRSLoRA is set (Kalajdzievski, 2023).
	Rank      int
	Alpha     float64
	UseRSLoRA bool

	// FanInFanOut says that the base stores weights as [in, out], as GPT-2's
	// Conv1D does.
	FanInFanOut bool
}

// Scale returns what the product of the low-rank matrices is multiplied by.
func (c Config) Scale() float64 {
	if c.UseRSLoRA {
		return c.Alpha / math.Sqrt(float64(c.Rank))
	}
	return c.Alpha / float64(c.Rank)
}

// A Delta is what an adapter adds to one base tensor.
type Delta interface {
	// Target names the base tensor.
	Target() string

	// AddRows adds sign times the delta to whole rows of the target, w, the
	// first of which is row. It is called concurrently.
	AddRows(w []float32, row int64, sign float32) error

	// Zero reports whether the delta changes nothing.
	Zero() bool
}

// A Method reads the adapters of one kind.
type Method interface {
	// Name is PEFT's peft_type in lower case.
	Name() string

	// Match returns the deltas of an adapter to the tensors of a base. It
	// reads the adapter's tensors and checks everything there is to check, of
	// the base its headers only: that every adapter tensor is used, that its
	// target is there and that the shapes fit.
	Match(base, adapter tensor.Source, codecs tensor.Codecs, cfg Config) ([]Delta, error)
}

// Methods returns every method there is.
func Methods() []Method { return []Method{LoRA{}} }

// View returns base with the deltas added, times sign. Each tensor gets the
// DType that dtype gives for it; one that keeps its own and has no delta is
// passed on as it is stored.
//
// Sums are taken in float32 and rounded once. A value that is not finite,
// before or after, is an error of the read.
func View(base tensor.Source, codecs tensor.Codecs, deltas []Delta, sign float32, dtype func(tensor.Info) tensor.DType) (tensor.Source, error) {
	byTarget := make(map[string][]Delta)
	for _, d := range deltas {
		byTarget[d.Target()] = append(byTarget[d.Target()], d)
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
			for _, d := range own {
				if err := d.AddRows(w, row, sign); err != nil {
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
