package bnb

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// quantizer makes the tensors of one weight.
type quantizer struct {
	o      Options
	in     tensor.Info
	source tensor.DType // what the weight is rounded to
	codecs tensor.Codecs
	out    []tensor.Info
	done   func(text int64, relRMS float64)
}

// The outputs, by their place. The last is the quant_state.
const (
	outCodes = iota
	outAbsmax
	outQuantMap
	outNestedAbsmax
	outNestedMap
)

// layout describes the outputs.
func (q *quantizer) layout() {
	elems := q.in.Shape.Elems()
	h := nf4.Header{BlockSize: int64(q.o.BlockSize), Double: q.o.DoubleQuant, Source: q.source}
	s := h.Sections(elems)
	add := func(suffix string, d tensor.DType, shape ...int64) {
		q.out = append(q.out, tensor.Info{Name: q.in.Name + suffix, DType: d, Shape: shape})
	}
	add("", tensor.U8, s.Codes, 1)
	if q.o.DoubleQuant {
		add(absmaxSuffix, tensor.U8, s.Absmax)
	} else {
		add(absmaxSuffix, tensor.F32, s.Absmax/4)
	}
	add(quantMapSuffix, tensor.F32, 16)
	if q.o.DoubleQuant {
		add(nestedAbsmaxSuffix, tensor.F32, s.Nested/4)
		add(nestedMapSuffix, tensor.F32, s.Map/4)
	}
	q.out = append(q.out, tensor.NewLate(q.in.Name+stateInfix+kindOf(q.o.Type)))
}

// panel returns the number of elements decoded at a time.
func (q *quantizer) panel() int64 {
	return min(pipeline.PanelRows(q.in.Shape.Cols()), q.in.Shape.Rows()) * q.in.Shape.Cols()
}

// floatBytes is how many bytes of float32 are written at a time.
const floatBytes = 32 << 10

// scratch returns the most memory that run takes.
func (q *quantizer) scratch() int64 {
	block, size := q.in.DType.Block()
	panel := q.panel()
	n := 4*panel + panel/block*size     // decoded and stored rows
	n += panel/2 + int64(q.o.BlockSize) // codes
	n += floatBytes + 2*256*4           // writing
	n += nf4.EncoderMemory(q.o.BlockSize, q.in.Shape.Elems())
	if q.source != q.in.DType {
		n += 4 * panel
	}
	if q.o.DoubleQuant {
		n += q.out[outAbsmax].Size() + q.out[outNestedAbsmax].Size()
	}
	return n
}

// run implements pipeline.Step.Run.
func (q *quantizer) run(ctx context.Context, src tensor.Source, out []io.WriterAt) error {
	enc, err := q.encode(ctx, src, out[outCodes])
	if err != nil {
		var bad *tensor.NonFiniteError
		if errors.As(err, &bad) {
			err = hint.Add(err, "the checkpoint is damaged or its training diverged; with --nan-as-zero such elements become 0, with --skip-modules %s the layer stays as it is", moduleOf(q.in.Name))
		}
		return err
	}
	values, err := nf4.Codebook(q.o.Type)
	if err != nil {
		return err
	}
	if err := writeFloats(out[outQuantMap], values[:]); err != nil {
		return err
	}
	var dq *nf4.DoubleQuant
	var offset *float32
	if q.o.DoubleQuant {
		dq = nf4.Double(enc.Absmax(), nf4.Mean(enc.Absmax()))
		offset = &dq.Offset
		if err := writeDouble(out, dq); err != nil {
			return err
		}
	} else if err := writeFloats(out[outAbsmax], enc.Absmax()); err != nil {
		return err
	}
	text := stateText(kindOf(q.o.Type), q.o.BlockSize, dtypeName(q.source), q.in.Shape, offset)
	if _, err := out[len(out)-1].WriteAt(text, 0); err != nil {
		return err
	}
	q.done(int64(len(text)), enc.RelRMS(dq))
	return nil
}

// encode streams the weight through an Encoder and writes its codes.
func (q *quantizer) encode(ctx context.Context, src tensor.Source, out io.WriterAt) (*nf4.Encoder, error) {
	enc, err := nf4.NewEncoder(q.o.Type, q.o.BlockSize, q.in.Shape.Elems())
	if err != nil {
		return nil, err
	}
	round, err := q.rounding()
	if err != nil {
		return nil, err
	}
	codes := make([]byte, 0, (q.panel()+int64(q.o.BlockSize))/2)
	var at int64
	write := func() error {
		_, err := out.WriteAt(codes, at)
		at += int64(len(codes))
		return err
	}
	err = pipeline.EachPanel(ctx, q.codecs, src, q.in.Name, func(w []float32, row int64) error {
		if err := round(w); err != nil {
			return err
		}
		if q.o.NonFinite != nil && q.o.NonFinite.AsZero {
			// Otherwise the encoder finds them itself, in the pass it makes anyway.
			if err := q.o.NonFinite.Check(q.in.Name, w, row*q.in.Shape.Cols()); err != nil {
				return err
			}
		}
		var err error
		if codes, err = enc.Append(codes[:0], w); err != nil {
			return err
		}
		return write()
	})
	if err != nil {
		return nil, err
	}
	if codes, err = enc.Finish(codes[:0]); err != nil {
		return nil, err
	}
	return enc, write()
}

// rounding returns what rounds a panel to the source dtype, in place.
func (q *quantizer) rounding() (func(w []float32) error, error) {
	if q.source == q.in.DType {
		return func([]float32) error { return nil }, nil
	}
	enc, err := q.codecs.Encoder(q.source)
	if err != nil {
		return nil, err
	}
	_, size := q.source.Block()
	buf := make([]byte, q.panel()*size)
	return func(w []float32) error {
		b := buf[:int64(len(w))*size]
		enc.Encode(b, w)
		row := tensor.Info{Name: q.in.Name, DType: q.source, Shape: tensor.Shape{int64(len(w))}}
		rows, err := enc.Open(row, tensor.Memory(b))
		if err != nil {
			return err
		}
		return rows.ReadRows(w, 0)
	}, nil
}

func writeDouble(out []io.WriterAt, dq *nf4.DoubleQuant) error {
	if _, err := out[outAbsmax].WriteAt(dq.Absmax, 0); err != nil {
		return err
	}
	if err := writeFloats(out[outNestedAbsmax], dq.NestedAbsmax); err != nil {
		return err
	}
	m := nf4.DynamicMap()
	return writeFloats(out[outNestedMap], m[:])
}

// writeFloats writes x as F32.
func writeFloats(w io.WriterAt, x []float32) error {
	b := make([]byte, 0, min(4*len(x), floatBytes))
	var at int64
	for i, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		if len(b) == cap(b) || i == len(x)-1 {
			if _, err := w.WriteAt(b, at); err != nil {
				return err
			}
			at += int64(len(b))
			b = b[:0]
		}
	}
	return nil
}
