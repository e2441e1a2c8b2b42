package bnb

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
)

// quantizer makes the tensors of a weight of 4 bits.
type quantizer struct {
	*weight
	out []tensor.Info
}

// The outputs, by their place. The last is the quant_state.
const (
	outCodes = iota
	outAbsmax
	outQuantMap
	outNestedAbsmax
	outNestedMap
)

// layout implements maker.
func (q *quantizer) layout() ([]tensor.Info, error) {
	elems := q.in.Shape.Elems()
	h := nf4.Header{BlockSize: int64(q.o.BlockSize), Double: q.o.DoubleQuant, Source: q.source}
	s := h.Sections(elems)
	add := func(suffix string, d tensor.DType, shape ...int64) {
		q.out = append(q.out, tensor.Info{Name: q.in.Name + suffix, DType: d, Shape: shape})
	}
	storage := q.o.storage()
	_, width := storage.Block()
	if s.Codes%width != 0 {
		return nil, hint.Add(fmt.Errorf("%w: %d bytes of 4-bit codes are no whole number of %v", tensor.ErrUnsupported, s.Codes, storage),
			"store them as uint8, or skip module %s", moduleOf(q.in.Name))
	}
	add("", storage, s.Codes/width, 1)
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
	return q.out, nil
}

// floatBytes is how many bytes of float32 are written at a time.
const floatBytes = 32 << 10

// scratch implements maker.
func (q *quantizer) scratch() int64 {
	n := q.weight.scratch() + q.panel()/2 + int64(q.o.BlockSize) // codes
	n += floatBytes + 2*256*4                                    // writing
	n += nf4.EncoderMemory(q.o.BlockSize, q.in.Shape.Elems())
	if q.o.DoubleQuant {
		n += q.out[outAbsmax].Size() + q.out[outNestedAbsmax].Size()
	}
	return n
}

// run implements maker.
func (q *quantizer) run(ctx context.Context, src tensor.Source, out []io.WriterAt) error {
	enc, err := q.encode(out[outCodes], func(f func(x []float32, row int64) error) error { return q.panels(ctx, src, true, f) })
	if err != nil {
		return err
	}
	dq := q.double(enc)
	return q.store(out, enc, dq, enc.RelRMS(dq))
}

// double returns the absmax after double quantization, nil without.
func (q *quantizer) double(enc *nf4.Encoder) *nf4.DoubleQuant {
	if !q.o.DoubleQuant {
		return nil
	}
	return nf4.Double(enc.Absmax(), nf4.Mean(enc.Absmax()))
}

// store writes all tensors but the codes, and ends the account of the weight.
func (q *quantizer) store(out []io.WriterAt, enc *nf4.Encoder, dq *nf4.DoubleQuant, relRMS float64) error {
	values, err := nf4.Codebook(q.o.Type)
	if err != nil {
		return err
	}
	if err := writeFloats(out[outQuantMap], values[:]); err != nil {
		return err
	}
	var offset *float32
	if dq != nil {
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
	q.done(int64(len(text)), relRMS)
	return nil
}

// encode puts a matrix through an Encoder and writes its codes. each calls its argument
// with the matrix, panel by panel.
func (q *quantizer) encode(out io.WriterAt, each func(f func(x []float32, row int64) error) error) (*nf4.Encoder, error) {
	enc, err := nf4.NewEncoder(q.o.Type, q.o.BlockSize, q.in.Shape.Elems())
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
	err = each(func(x []float32, _ int64) error {
		var err error
		if codes, err = enc.Append(codes[:0], x); err != nil {
			return err
		}
		return write()
	})
	if err != nil {
		return nil, err
	}
	if codes, err = enc.Finish(codes[:0]); err != nil {
		return nil, q.explain(err)
	}
	return enc, write()
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
