package bnb

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/lowrank"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
)

// LoftQ has the quantizer make, beside each weight W quantized to Q, the product B·A of
// a rank that best corrects it (arXiv 2310.08659): W - Q is decomposed, and for every
// further iteration what is quantized is W - B·A instead, and decomposed again. With one
// iteration, what PEFT takes if it is not told, the quantized weights are those without
// LoftQ, and so is the checkpoint.
//
// It serves one Plan.
type LoftQ struct {
	Rank, Iterations int

	// Targets says whether a module gets an adapter; nil is that all do whose weight is
	// quantized.
	Targets func(module string) bool

	// Store takes the factors of a module: A, Rank x in, and B, out x Rank. It is set
	// before the plan runs, and called concurrently.
	Store func(module string, a, b []float32) error

	mu   sync.Mutex
	made []Correction
}

// Correction is what LoftQ did for a module. Errors are root mean squares relative to
// that of the weight.
type Correction struct {
	Module string       `json:"module"`
	Shape  tensor.Shape `json:"shape"` // of the weight

	// Before is the error of the weight quantized as it is, Base that of the one that was
	// stored, by itself, After that with the adapter.
	Before float64 `json:"error_before"`
	Base   float64 `json:"error_of_base"`
	After  float64 `json:"error_after"`
}

// Corrections returns one for each module that gets an adapter, in the order of the
// source; without errors until the run.
func (l *LoftQ) Corrections() []Correction {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.made)
}

// wants reports whether a weight gets an adapter.
func (l *LoftQ) wants(info tensor.Info) bool {
	return l != nil && len(info.Shape) == 2 && moduleOf(info.Name) != info.Name && (l.Targets == nil || l.Targets(moduleOf(info.Name)))
}

// plan takes note of a weight, and returns what is to be called with its errors.
func (l *LoftQ) plan(info tensor.Info) func(before, base, after float64) {
	i := len(l.made)
	l.made = append(l.made, Correction{Module: moduleOf(info.Name), Shape: info.Shape})
	return func(before, base, after float64) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.made[i].Before, l.made[i].Base, l.made[i].After = before, base, after
	}
}

// corrected makes the tensors of a weight and its adapter.
type corrected struct {
	*quantizer
	account func(before, base, after float64)
}

// layout implements maker.
func (c *corrected) layout() ([]tensor.Info, error) {
	l := c.o.LoftQ
	if l.Iterations < 1 {
		return nil, fmt.Errorf("%w: LoftQ of %d iterations", tensor.ErrUnsupported, l.Iterations)
	}
	if most := min(c.in.Shape.Rows(), c.in.Shape.Cols()); l.Rank < 1 || int64(l.Rank) > most {
		return nil, hint.Add(fmt.Errorf("%w: an adapter of rank %d for a weight of %v", tensor.ErrUnsupported, l.Rank, c.in.Shape),
			"this weight takes ranks from 1 to %d", most)
	}
	return c.quantizer.layout()
}

// scratch implements maker.
func (c *corrected) scratch() int64 {
	rows, cols := int(c.in.Shape.Rows()), int(c.in.Shape.Cols())
	n := c.quantizer.scratch() + c.header().Sections(c.in.Shape.Elems()).Size()
	n += lowrank.Memory(rows, cols, c.o.LoftQ.Rank) + 4*int64(rows)*int64(c.o.LoftQ.Rank) // B, negated
	n += int64(runtime.GOMAXPROCS(0)) * decodedRows * int64(cols) * 8
	return n + c.weight.scratch() + 4*c.panel()
}

func (c *corrected) header() nf4.Header {
	return nf4.Header{BlockSize: int64(c.o.BlockSize), Double: c.o.DoubleQuant, Source: c.source}
}

// decodedRows is how many rows a product has decoded at a time by each processor.
const decodedRows = 16

// run implements maker.
func (c *corrected) run(ctx context.Context, src tensor.Source, out []io.WriterAt) error {
	l, elems := c.o.LoftQ, c.in.Shape.Elems()
	r, err := c.residual(ctx, src)
	if err != nil {
		return err
	}
	size := c.header().Sections(elems).Size()
	blob := make(memory, size)
	codes := blob[size-c.header().Sections(elems).Codes:]
	// The first time the elements are checked.
	each := func(f func(x []float32, row int64) error) error { return c.panels(ctx, src, true, f) }
	var enc *nf4.Encoder
	var dq *nf4.DoubleQuant
	var factors *lowrank.Factors
	var before float64
	for i := range l.Iterations {
		if enc, err = c.encode(codes, each); err != nil {
			return err
		}
		if dq = c.double(enc); i == 0 {
			before = enc.RelRMS(dq)
		}
		c.header().Assemble(blob, elems, enc.Absmax(), dq)
		if r.quantized, err = r.open(blob); err != nil {
			return err
		}
		if factors, err = lowrank.Truncate(r, l.Rank, 1); err != nil {
			return err
		}
		each = func(f func(x []float32, row int64) error) error { return r.without(factors, f) }
	}
	base, after, err := r.errors(factors)
	if err != nil {
		return err
	}
	if _, err := out[outCodes].WriteAt(codes, 0); err != nil {
		return err
	}
	if err := l.Store(moduleOf(c.in.Name), factors.A, factors.B); err != nil {
		return err
	}
	c.account(before, base, after)
	return c.store(out, enc, dq, base)
}

// memory is an io.WriterAt.
type memory []byte

// WriteAt implements io.WriterAt.
func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

// residual is what a quantized weight lacks, as a matrix that is decoded as it is used.
type residual struct {
	*weight
	ctx             context.Context
	rows, quantized tensor.Rows
	scratch         sync.Pool // *parts
}

var _ kernel.Matrix = (*residual)(nil)

// parts is what decoding some rows takes.
type parts struct {
	quantized []float32
	round     func([]float32) error
	atOnce    int // elements that round takes
}

func (c *corrected) residual(ctx context.Context, src tensor.Source) (*residual, error) {
	_, rows, err := c.codecs.OpenFrom(src, c.in.Name)
	return &residual{weight: c.weight, ctx: ctx, rows: rows}, err
}

// open returns the rows of a blob.
func (r *residual) open(blob []byte) (tensor.Rows, error) {
	h := nf4.Header{BlockSize: int64(r.o.BlockSize), Double: r.o.DoubleQuant, Source: r.source}
	return fourBits.Open(h.Info(r.in.Name, r.o.Type, r.in.Shape), tensor.Memory(blob))
}

var fourBits = tensor.NewCodecs(nf4.Codecs()...)

// Dims implements kernel.Matrix.
func (r *residual) Dims() (rows, cols int) { return int(r.in.Shape.Rows()), int(r.in.Shape.Cols()) }

// DecodeRows implements kernel.Matrix.
func (r *residual) DecodeRows(dst []float32, row int) error {
	p := r.parts(len(dst))
	defer r.scratch.Put(p)
	if err := r.read(p, dst, int64(row)); err != nil {
		return err
	}
	return r.subtract(p, dst, int64(row))
}

// parts returns scratch for n elements.
func (r *residual) parts(n int) *parts {
	p, _ := r.scratch.Get().(*parts)
	if p == nil {
		p = new(parts)
	}
	p.quantized = slices.Grow(p.quantized[:0], n)[:n]
	return p
}

// read reads rows of the weight, rounded to its source dtype.
func (r *residual) read(p *parts, dst []float32, row int64) (err error) {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if p.round == nil || p.atOnce < len(dst) {
		p.atOnce = len(dst)
		if p.round, err = rounding(r.codecs, r.in.DType, r.source, int64(p.atOnce)); err != nil {
			return err
		}
	}
	if err := r.rows.ReadRows(dst, row); err != nil {
		return fmt.Errorf("tensor %q: %w", r.in.Name, err)
	}
	if err := p.round(dst); err != nil {
		return err
	}
	// What is not finite has stopped the run already or counts as 0.
	if r.o.NonFinite != nil && r.o.NonFinite.AsZero {
		for i, v := range dst {
			if math.Float32bits(v)&^(1<<31) >= 0x7f800000 {
				dst[i] = 0
			}
		}
	}
	return nil
}

// subtract takes away the quantized rows.
func (r *residual) subtract(p *parts, dst []float32, row int64) error {
	q := p.quantized[:len(dst)]
	if err := r.quantized.ReadRows(q, row); err != nil {
		return err
	}
	kernel.AddScaled(dst, -1, q)
	return nil
}

// each reads the weight panel by panel.
func (r *residual) each(f func(p *parts, x []float32, row int64) error) error {
	rows, cols := r.in.Shape.Rows(), r.in.Shape.Cols()
	x := make([]float32, r.panel())
	p := r.parts(len(x))
	defer r.scratch.Put(p)
	for row, step := int64(0), r.panel()/cols; row < rows; row += step {
		panel := x[:min(step, rows-row)*cols]
		if err := r.read(p, panel, row); err != nil {
			return err
		}
		if err := f(p, panel, row); err != nil {
			return err
		}
	}
	return nil
}

// without calls next with the weight less the product of the factors.
func (r *residual) without(factors *lowrank.Factors, next func(x []float32, row int64) error) error {
	minus := negated(factors)
	return r.each(func(_ *parts, x []float32, row int64) error {
		if err := minus(x, row); err != nil {
			return err
		}
		return next(x, row)
	})
}

// errors returns the relative errors of the quantized weight by itself and with the
// factors.
func (r *residual) errors(factors *lowrank.Factors) (base, after float64, err error) {
	minus := negated(factors)
	var whole, lost, left float64
	err = r.each(func(p *parts, x []float32, row int64) error {
		whole += kernel.SumSquares(x)
		if err := r.subtract(p, x, row); err != nil {
			return err
		}
		lost += kernel.SumSquares(x)
		if err := minus(x, row); err != nil {
			return err
		}
		left += kernel.SumSquares(x)
		return nil
	})
	if whole == 0 {
		return 0, 0, err
	}
	return math.Sqrt(lost / whole), math.Sqrt(left / whole), err
}

// negated returns what takes the product of factors away from some rows.
func negated(f *lowrank.Factors) func(x []float32, row int64) error {
	b := make([]float32, len(f.B))
	for i, v := range f.B {
		b[i] = -v
	}
	cols := len(f.A) / f.Rank
	return func(x []float32, row int64) error {
		n := len(x) / cols
		return kernel.Mul(x, b[int(row)*f.Rank:][:n*f.Rank], n, kernel.Dense{Data: f.A, Rows: f.Rank, Cols: cols}, true)
	}
}
