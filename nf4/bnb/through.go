package bnb

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/scaled"
)

// Through returns src as it is behind a quantized checkpoint: what View makes of the
// tensors that Plan would have stored. Nothing is stored: a weight is quantized in
// memory each time that it is opened, and dropped with its reader. The Account knows the
// errors of those that have been.
//
// Weights of src may not be quantized already.
func Through(src tensor.Source, codecs tensor.Codecs, o Options) (tensor.Source, *Account, error) {
	o.Was = nil
	plan, account, err := Plan(src, codecs, o)
	if err != nil {
		return nil, nil, err
	}
	var entries []tensor.Entry
	for _, s := range plan.Steps {
		info, err := src.Info(s.In[0])
		if err != nil {
			return nil, nil, err
		}
		if s.Action != kindOf(o.Type) {
			entries = append(entries, tensor.Forward(src, info, info.Name))
			continue
		}
		stored := o.stored(info, cmp.Or(o.DType, info.DType))
		entries = append(entries, tensor.Entry{Info: stored, Open: func() (io.ReaderAt, error) {
			return quantized(src, s, stored, cmp.Or(o.DType, info.DType))
		}})
	}
	view, err := tensor.NewTable(src.Meta(), entries)
	return view, account, err
}

// stored describes the tensor that View makes of a weight which was of the dtype source.
func (o *Options) stored(info tensor.Info, source tensor.DType) tensor.Info {
	if o.Type == tensor.INT8 {
		h := scaled.Header{Element: tensor.I8, Source: source, Factor: reciprocal, Rows: info.Shape.Rows(), BlockRows: 1, BlockCols: info.Shape.Cols()}
		return h.Info(info.Name, info.Shape)
	}
	size, other := o.BlockSizes[info.Name]
	if !other {
		size = o.BlockSize
	}
	h := nf4.Header{BlockSize: int64(size), Double: o.DoubleQuant, Source: source}
	return h.Info(info.Name, o.Type, info.Shape)
}

// quantized runs the step of a weight in memory and returns the bytes of the tensor that
// View makes of what it wrote.
func quantized(src tensor.Source, s pipeline.Step, stored tensor.Info, source tensor.DType) (io.ReaderAt, error) {
	out := make([]io.WriterAt, len(s.Out))
	bodies := make([]*body, len(s.Out))
	for i, info := range s.Out {
		bodies[i] = &body{}
		if !info.Late() {
			bodies[i].b = make([]byte, info.Size())
		}
		out[i] = bodies[i]
	}
	if err := s.Run(context.Background(), src, out); err != nil {
		return nil, err
	}
	var entries []tensor.Entry
	for i, info := range s.Out {
		b := bodies[i]
		if info.Late() {
			info = tensor.Info{Name: info.Name, DType: info.DType, Shape: tensor.Shape{int64(len(b.b))}}
		}
		entries = append(entries, tensor.Entry{Info: info, Open: func() (io.ReaderAt, error) { return b, nil }})
	}
	table, err := tensor.NewTable(nil, entries)
	if err != nil {
		return nil, err
	}
	view, err := View(table, source)
	if err != nil {
		return nil, err
	}
	if info, err := view.Info(stored.Name); err != nil || info.DType != stored.DType || info.Size() != stored.Size() {
		return nil, fmt.Errorf("tensor %q: quantized it is %v in %d bytes, not %v in %d: %w", stored.Name, info.DType, info.Size(), stored.DType, stored.Size(), err)
	}
	return view.Raw(stored.Name)
}

// body is a tensor in memory, as long as what is written to it.
type body struct{ b []byte }

// WriteAt implements io.WriterAt.
func (m *body) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(m.b) {
		m.b = append(m.b, make([]byte, end-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

// ReadAt implements io.ReaderAt.
func (m *body) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(p, m.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
