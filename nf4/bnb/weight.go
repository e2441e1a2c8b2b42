package bnb

import (
	"context"
	"errors"
	"io"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// weight is one that is quantized.
type weight struct {
	o      *Options
	in     tensor.Info
	source tensor.DType // what it is rounded to first
	codecs tensor.Codecs
	done   func(text int64, relRMS float64) // takes note of how it went
}

// A maker makes the tensors of a weight.
type maker interface {
	// layout describes them.
	layout() ([]tensor.Info, error)
	// scratch returns the most memory that run takes.
	scratch() int64
	// run implements pipeline.Step.Run.
	run(ctx context.Context, src tensor.Source, out []io.WriterAt) error
}

func (w *weight) maker() maker {
	if w.o.Type == tensor.INT8 {
		return &rowQuantizer{weight: w}
	}
	if q := (&quantizer{weight: w}); w.o.LoftQ.wants(w.in) {
		return &corrected{quantizer: q, account: w.o.LoftQ.plan(w.in)}
	} else {
		return q
	}
}

// panel returns the number of elements decoded at a time.
func (w *weight) panel() int64 {
	return min(pipeline.PanelRows(w.in.Shape.Cols()), w.in.Shape.Rows()) * w.in.Shape.Cols()
}

// scratch returns the most memory that panels takes.
func (w *weight) scratch() int64 {
	panel := w.panel()
	n := 2 * 4 * panel // decoded and stored rows
	if block, size := w.in.DType.Block(); block > 0 {
		n = 4*panel + panel/block*size
	}
	if w.source != w.in.DType {
		n += 4 * panel
	}
	return n
}

// panels calls f with the weight, panel by panel, rounded to the source dtype.
// checked says that f refuses elements that are not finite by itself.
func (w *weight) panels(ctx context.Context, src tensor.Source, checked bool, f func(x []float32, row int64) error) error {
	round, err := rounding(w.codecs, w.in.DType, w.source, w.panel())
	if err != nil {
		return err
	}
	bad := w.o.NonFinite
	checked = checked && (bad == nil || !bad.AsZero)
	err = pipeline.EachPanel(ctx, w.codecs, src, w.in.Name, func(x []float32, row int64) error {
		if err := round(x); err != nil {
			return err
		}
		if !checked {
			if err := bad.Check(w.in.Name, x, row*w.in.Shape.Cols()); err != nil {
				return err
			}
		}
		return f(x, row)
	})
	return w.explain(err)
}

// explain adds to the error of an element that is not finite what can be done.
func (w *weight) explain(err error) error {
	var bad *tensor.NonFiniteError
	if !errors.As(err, &bad) {
		return err
	}
	return hint.Add(err, "the checkpoint is damaged or its training diverged; with --nan-as-zero such elements become 0, with --skip-modules %s the layer stays as it is",
		moduleOf(w.in.Name))
}

// rounding returns what rounds a panel of at most n elements of one dtype to
// another, in place.
func rounding(codecs tensor.Codecs, from, to tensor.DType, n int64) (func(x []float32) error, error) {
	if from == to {
		return func([]float32) error { return nil }, nil
	}
	enc, err := codecs.Encoder(to)
	if err != nil {
		return nil, err
	}
	_, size := to.Block()
	buf := make([]byte, n*size)
	return func(x []float32) error {
		b := buf[:int64(len(x))*size]
		enc.Encode(b, x)
		rows, err := enc.Open(tensor.Info{DType: to, Shape: tensor.Shape{int64(len(x))}}, tensor.Memory(b))
		if err != nil {
			return err
		}
		return rows.ReadRows(x, 0)
	}, nil
}
