package bnb

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// rowQuantizer makes the tensors of a weight of LLM.int8.
type rowQuantizer struct{ *weight }

// The outputs, by their place.
const (
	outElements = iota
	outSCB
	outFormat
)

// layout implements maker.
func (q *rowQuantizer) layout() ([]tensor.Info, error) {
	layer := strings.TrimSuffix(q.in.Name, ".weight")
	return []tensor.Info{
		{Name: q.in.Name, DType: tensor.I8, Shape: q.in.Shape},
		{Name: layer + scbSuffix, DType: tensor.F32, Shape: q.in.Shape[:1]},
		{Name: layer + formatSuffix, DType: tensor.U8, Shape: tensor.Shape{}},
	}, nil
}

// scratch implements maker.
func (q *rowQuantizer) scratch() int64 {
	panel := q.panel()
	return q.weight.scratch() + 2*panel + panel + 4*panel/q.in.Shape.Cols() // F16, elements, scales
}

// run implements maker. As bitsandbytes does (Int8Params._quantize and
// int8_vectorwise_quant of the default backend), weights are rounded to F16,
// whatever they were, each row has its largest magnitude as its scale, and the
// nearest integer is taken, of two the even one. A row of zeros has the scale 0.
func (q *rowQuantizer) run(ctx context.Context, src tensor.Source, out []io.WriterAt) error {
	half, err := rounding(q.codecs, q.source, tensor.F16, q.panel())
	if err != nil {
		return err
	}
	cols := int(q.in.Shape.Cols())
	elements := make([]byte, q.panel())
	scales := make([]byte, 0, 4*q.panel()/int64(cols))
	var sum, errSum float64
	err = q.panels(ctx, src, false, func(x []float32, row int64) error {
		if err := half(x); err != nil {
			return err
		}
		scales = scales[:0]
		for at := 0; at < len(x); at += cols {
			w := x[at : at+cols]
			scale := kernel.Absmax(w)
			if math.IsInf(float64(scale), 0) {
				return beyondHalf(w, row*int64(cols)+int64(at))
			}
			scales = binary.LittleEndian.AppendUint32(scales, math.Float32bits(scale))
			square, e := quantizeRow(elements[at:at+cols], w, scale)
			sum, errSum = sum+square, errSum+e
		}
		if _, err := out[outElements].WriteAt(elements[:len(x)], row*int64(cols)); err != nil {
			return err
		}
		_, err := out[outSCB].WriteAt(scales, 4*row)
		return err
	})
	if err != nil {
		return err
	}
	if _, err := out[outFormat].WriteAt([]byte{0}, 0); err != nil {
		return err
	}
	relRMS := 0.0
	if sum > 0 {
		relRMS = math.Sqrt(errSum / sum)
	}
	q.done(0, relRMS)
	return nil
}

// quantizeRow stores the row x, whose largest magnitude is scale, as I8, and
// returns the sums of the squares of the elements and of the errors.
func quantizeRow(dst []byte, x []float32, scale float32) (sum, errSum float64) {
	if scale == 0 {
		clear(dst)
		return 0, 0
	}
	// Adding this to a number much smaller leaves the nearest integer, of two the
	// even one, in the lowest bits.
	const toInteger = 3 << 22
	// 127 divided by a tensor is 127 times its reciprocal in torch (__rtruediv__).
	up, down := float32(1/scale)*127, scale*reciprocal
	var s, e float32
	for i, v := range x {
		rounded := float32(v*up) + toInteger
		dst[i] = byte(math.Float32bits(rounded))
		d := v - float32((rounded-toInteger)*down)
		s += float32(v * v)
		e += float32(d * d)
	}
	return float64(s), float64(e)
}

// beyondHalf returns the error for the first element of a row, the number of
// whose first is given, that is finite but not as an F16.
func beyondHalf(row []float32, first int64) error {
	for i, v := range row {
		if math.IsInf(float64(v), 0) {
			return fmt.Errorf("%w: element %d is beyond the range of F16, which LLM.int8 rounds weights to", tensor.ErrUnsupported, first+int64(i))
		}
	}
	panic("bnb: a row without infinity has an infinite magnitude")
}
