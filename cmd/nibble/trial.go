package main

import (
	"context"
	"fmt"
	"math"

	"github.com/seed18967229/nibble/internal/distortion"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// encoding is one way to store a matrix.
type encoding struct {
	dtype  tensor.DType
	block  int // of NF4 and FP4
	double bool
}

// String names the encoding as the command line does.
func (e encoding) String() string {
	if e.block > 0 {
		return fmt.Sprintf("%s:%d", lower(e.dtype), e.block)
	}
	return lower(e.dtype)
}

// bnbState is about what bitsandbytes stores beside a 4-bit weight whatever its size:
// the codebook and the quant_state, which is a little shorter than this.
const bnbState = 16*4 + 184

// size returns how many bytes a matrix takes, of NF4 and FP4 at most.
func (e encoding) size(shape tensor.Shape) int64 {
	switch e.dtype {
	case tensor.NF4, tensor.FP4:
		s := nf4.Header{BlockSize: int64(e.block), Double: e.double}.Sections(shape.Elems())
		return s.Map + s.Nested + s.Absmax + s.Codes + bnbState
	case tensor.INT8:
		return shape.Elems() + 4*shape.Rows() + 1
	}
	return tensor.Info{DType: e.dtype, Shape: shape}.Size()
}

// fits reports whether the encoding can store the rows of a matrix.
func (e encoding) fits(shape tensor.Shape) bool {
	n, _ := e.dtype.Block()
	return n == 0 || shape.Cols()%n == 0
}

// outcome is what an encoding would lose of a matrix.
type outcome struct {
	values      int64
	square, err float64 // sums of squares of values and differences

	// The same with each column's importance; those above where none is known.
	wSquare, wErr float64
}

func (o outcome) relRMS() float64 {
	if o.err == 0 {
		return 0
	}
	return math.Sqrt(o.err / o.square)
}

// relative returns the weighted squared error relative to the weighted squares.
func (o outcome) relative() float64 {
	if o.wErr == 0 || o.wSquare == 0 {
		return 0
	}
	return o.wErr / o.wSquare
}

// A trial stores a matrix, whole rows at a time, and measures what is lost; nothing is
// kept of what it stores.
type trial interface {
	// add stores the next rows x. y is scratch of x's length; importance, of each
	// column, is nil if it is not known.
	add(x, y, importance []float32) error
	outcome() (outcome, error)
}

// newTrial begins a trial of an encoding that fits.
func newTrial(e encoding, shape tensor.Shape) (trial, error) {
	cols := int(shape.Cols())
	switch e.dtype {
	case tensor.NF4, tensor.FP4:
		enc, err := nf4.NewEncoder(e.dtype, e.block, shape.Elems())
		if err != nil {
			return nil, err
		}
		values, err := nf4.Codebook(e.dtype)
		if err != nil {
			return nil, err
		}
		return &fourTrial{e: e, enc: enc, values: values, cols: cols}, nil
	case tensor.INT8:
		return &rowTrial{cols: cols}, nil
	}
	enc, err := codecs.Encoder(e.dtype)
	if err != nil {
		return nil, err
	}
	return &blockTrial{enc: enc, cols: cols}, nil
}

// sums add up the error of what was stored and decoded again.
type sums struct{ o outcome }

func (s *sums) count(x, y, importance []float32) {
	m := distortion.NewMeter(0)
	m.Add(x, y)
	f := m.Figures()
	s.o.values += f.Values
	s.o.square += f.Square
	s.o.err += f.Error
	if f.MadeNonFinite > 0 {
		s.o.err = math.Inf(1)
	}
	square, err := f.Square, f.Error
	if importance != nil {
		square, err = distortion.Weighted(x, y, importance)
	}
	s.o.wSquare, s.o.wErr = s.o.wSquare+square, s.o.wErr+err
}

func (s *sums) outcome() (outcome, error) { return s.o, nil }

// blockTrial is of an encoding whose rows are stored each for itself.
type blockTrial struct {
	sums
	enc  tensor.Encoder
	cols int
	buf  []byte
}

func (t *blockTrial) add(x, y, importance []float32) error {
	info := tensor.Info{Name: "rows", DType: t.enc.DType(), Shape: tensor.Shape{int64(len(x) / t.cols), int64(t.cols)}}
	if n := int(info.Size()); cap(t.buf) < n {
		t.buf = make([]byte, n)
	} else {
		t.buf = t.buf[:n]
	}
	if w, ok := t.enc.(tensor.WeightedEncoder); ok && importance != nil {
		w.EncodeWeighted(t.buf, x, importance)
	} else {
		t.enc.Encode(t.buf, x)
	}
	rows, err := t.enc.Open(info, tensor.Memory(t.buf))
	if err != nil {
		return err
	}
	if err := rows.ReadRows(y, 0); err != nil {
		return err
	}
	t.count(x, y, importance)
	return nil
}

// rowTrial is of LLM.int8.
type rowTrial struct {
	sums
	cols int
}

func (t *rowTrial) add(x, y, importance []float32) error {
	for at := 0; at < len(x); at += t.cols {
		if !bnb.RoundTrip8(y[at:at+t.cols], x[at:at+t.cols]) {
			t.o.err = math.Inf(1)
		}
	}
	t.count(x, y, importance)
	return nil
}

// fourTrial is of NF4 and FP4, whose encoder knows its error.
type fourTrial struct {
	e        encoding
	enc      *nf4.Encoder
	values   [16]float32
	cols     int
	codes    []byte
	o        outcome
	weighted bool // wSquare and wErr were measured
}

func (t *fourTrial) add(x, y, importance []float32) (err error) {
	first := len(t.enc.Absmax())
	if t.codes, err = t.enc.Append(t.codes[:0], x); err != nil {
		return err
	}
	t.o.values += int64(len(x))
	for at := 0; at < len(x); at += t.cols {
		var s float64
		for _, v := range x[at : at+t.cols] {
			s += float64(v) * float64(v)
		}
		t.o.square += s
	}
	if importance == nil || t.cols%t.e.block != 0 {
		return nil
	}
	t.weighted = true
	kernel.Decode4(y, t.codes, &t.values, t.enc.Absmax()[first:], t.e.block)
	square, wErr := distortion.Weighted(x, y, importance)
	t.o.wSquare, t.o.wErr = t.o.wSquare+square, t.o.wErr+wErr
	return nil
}

// outcome implements trial. Where double quantization counts, the weighted error was
// measured without, and grows as the plain one does.
func (t *fourTrial) outcome() (outcome, error) {
	if _, err := t.enc.Finish(nil); err != nil {
		return outcome{}, err
	}
	rel := t.enc.RelRMS(nil)
	grown := 1.0
	if t.e.double {
		with := t.enc.RelRMS(nf4.Double(t.enc.Absmax(), nf4.Mean(t.enc.Absmax())))
		if rel > 0 {
			grown = with * with / (rel * rel)
		}
		rel = with
	}
	t.o.err = rel * rel * t.o.square
	if t.weighted {
		t.o.wErr *= grown
	} else {
		t.o.wSquare, t.o.wErr = t.o.square, t.o.err
	}
	return t.o, nil
}

// try reads a matrix once and stores it in each of the encodings that fit it. importance
// is that of its columns, of one matrix after another if the tensor is a stack of them;
// nil if it is not known.
func try(ctx context.Context, src tensor.Source, name string, encodings []encoding, importance []float32, bad *pipeline.NonFinite) (map[encoding]outcome, error) {
	info, err := src.Info(name)
	if err != nil {
		return nil, err
	}
	trials := make(map[encoding]trial)
	for _, e := range encodings {
		if trials[e] == nil && e.fits(info.Shape) {
			if trials[e], err = newTrial(e, info.Shape); err != nil {
				return nil, fmt.Errorf("tensor %q: %w", name, err)
			}
		}
	}
	cols, perMat := info.Shape.Cols(), info.Shape.Rows()
	if importance != nil {
		mats := int64(len(importance)) / max(1, cols)
		if mats < 1 || int64(len(importance)) != mats*cols || perMat%mats != 0 {
			return nil, hint.Add(fmt.Errorf("tensor %q: %w: the importance matrix has %d values, its shape is %v", name, tensor.ErrMalformed, len(importance), info.Shape),
				"the importance matrix was made of another model")
		}
		perMat /= mats
	}
	var y []float32
	err = pipeline.EachPanel(ctx, codecs, src, name, func(x []float32, row int64) error {
		if err := bad.Check(name, x, row*cols); err != nil {
			return err
		}
		if y == nil {
			y = make([]float32, len(x))
		}
		for len(x) > 0 {
			n, columns := len(x), []float32(nil)
			if importance != nil {
				mat := row / perMat
				n, columns = int(min(int64(n), ((mat+1)*perMat-row)*cols)), importance[mat*cols:(mat+1)*cols]
			}
			for _, t := range trials {
				if err := t.add(x[:n], y[:n], columns); err != nil {
					return err
				}
			}
			x, row = x[n:], row+int64(n)/cols
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	out := make(map[encoding]outcome)
	for e, t := range trials {
		if out[e], err = t.outcome(); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	return out, nil
}
