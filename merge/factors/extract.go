package factors

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/lowrank"
	"github.com/seed18967229/nibble/tensor"
)

// A Difference is what a fine-tuned tensor has more than that of the base: a matrix of the
// rows that are stored, which is decoded as it is used (kernel.Matrix), or from memory once
// Hold was called.
type Difference struct {
	Name       string
	rows, cols int

	ctx        context.Context
	base, tune tensor.Rows
	held       []float32
	scratch    sync.Pool // *[]float32
}

// NewDifference opens the tensors of that name. Both must have the same shape; a vector is a
// matrix of one row.
func NewDifference(ctx context.Context, base, tuned tensor.Source, codecs tensor.Codecs, name string) (*Difference, error) {
	b, rowsB, err := codecs.OpenFrom(base, name)
	if err != nil {
		return nil, fmt.Errorf("the base: %w", err)
	}
	t, rowsT, err := codecs.OpenFrom(tuned, name)
	if err != nil {
		return nil, fmt.Errorf("the fine-tuned model: %w", err)
	}
	if !b.Shape.Equal(t.Shape) {
		return nil, hint.Add(fmt.Errorf("tensor %q: %w: shape %v in the base, %v in the fine-tuned model", name, tensor.ErrMalformed, b.Shape, t.Shape),
			"was the model fine-tuned from this base?")
	}
	return &Difference{Name: name, rows: int(b.Shape.Rows()), cols: int(b.Shape.Cols()), ctx: ctx, base: rowsB, tune: rowsT}, nil
}

// NewSum returns a matrix of computed rows, which is decomposed as a difference is.
func NewSum(ctx context.Context, name string, rows tensor.Rows, out, in int) *Difference {
	return &Difference{Name: name, rows: out, cols: in, ctx: ctx, tune: rows}
}

// Dims implements kernel.Matrix.
func (d *Difference) Dims() (rows, cols int) { return d.rows, d.cols }

// DecodeRows implements kernel.Matrix.
func (d *Difference) DecodeRows(dst []float32, row int) error {
	if d.held != nil {
		copy(dst, d.held[row*d.cols:])
		return nil
	}
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if d.base == nil {
		return d.tune.ReadRows(dst, int64(row))
	}
	if err := d.tune.ReadRows(dst, int64(row)); err != nil {
		return fmt.Errorf("the fine-tuned model: tensor %q: %w", d.Name, err)
	}
	buf, _ := d.scratch.Get().(*[]float32)
	if buf == nil || cap(*buf) < len(dst) {
		b := make([]float32, len(dst))
		buf = &b
	}
	defer d.scratch.Put(buf)
	w := (*buf)[:len(dst)]
	if err := d.base.ReadRows(w, int64(row)); err != nil {
		return fmt.Errorf("the base: tensor %q: %w", d.Name, err)
	}
	for i, v := range w {
		dst[i] -= v
		if dst[i]-dst[i] != 0 { // NaN or Inf
			return hint.Add(fmt.Errorf("tensor %q: %w: element %d of the difference is %v", d.Name, tensor.ErrMalformed, row*d.cols+i, dst[i]),
				"nibble verify lists every tensor with NaN or Inf")
		}
	}
	return nil
}

// panelFloats is how many numbers are compared at a time.
const panelFloats = 1 << 18

// Energy reads the difference once and returns the sum of its squares. With room, which is
// at least as long as the matrix, it is kept there, and not read again.
func (d *Difference) Energy(room []float32) (float64, error) {
	n := min(d.rows, max(1, panelFloats/max(1, d.cols)))
	panel := make([]float32, 0)
	if room == nil {
		panel = make([]float32, n*d.cols)
	}
	var energy float64
	for row := 0; row < d.rows; row += n {
		count := min(n, d.rows-row)
		w := panel
		if room != nil {
			w = room[row*d.cols:]
		}
		w = w[:count*d.cols]
		if err := d.DecodeRows(w, row); err != nil {
			return 0, err
		}
		for _, v := range w {
			energy += float64(v) * float64(v)
		}
	}
	if room != nil {
		d.held = room[:d.rows*d.cols]
	}
	return energy, nil
}

// Extract returns the pair of at most that rank that is nearest to the difference, with a
// scale of 1, its singular values, and the sum of the squares of what it lacks, which is
// measured: the difference is read once more for it.
func (d *Difference) Extract(rank int, seed uint64) (*Pair, Spectrum, float64, error) {
	rank = min(rank, d.rows, d.cols)
	f, err := lowrank.Truncate(d, rank, seed)
	if err != nil {
		return nil, nil, 0, err
	}
	p := &Pair{Out: d.rows, In: d.cols, Rank: rank, Scale: 1, B: f.B, A: f.A}
	n := min(d.rows, max(1, panelFloats/max(1, d.cols)))
	panel, made := make([]float32, n*d.cols), make([]float32, n*d.cols)
	var left float64
	for row := 0; row < d.rows; row += n {
		count := min(n, d.rows-row)
		w, got := panel[:count*d.cols], made[:count*d.cols]
		if err := d.DecodeRows(w, row); err != nil {
			return nil, nil, 0, err
		}
		if err := kernel.Mul(got, f.B[row*rank:][:count*rank], count, kernel.Dense{Data: f.A, Rows: rank, Cols: d.cols}, false); err != nil {
			return nil, nil, 0, err
		}
		kernel.AddScaled(w, -1, got)
		left += kernel.SumSquares(w)
	}
	return p, f.Values, left, nil
}

// Transposed returns the pair whose product is the transpose: of a layer whose weight is
// stored as [in, out], and of embeddings.
func (p *Pair) Transposed() *Pair {
	return &Pair{Out: p.In, In: p.Out, Rank: p.Rank, Scale: p.Scale, B: kernel.Transposed(p.A, p.Rank, p.In), A: kernel.Transposed(p.B, p.Out, p.Rank)}
}

// Left returns the share of the norm of a whole delta that is lost where the first k values
// are kept, of a spectrum that may have no more than the first of them. energy is the sum of
// the squares of all.
func (s Spectrum) Left(k int, energy float64) float64 {
	if energy <= 0 {
		return 0
	}
	beyond := max(0, energy-s.squares(0))
	return math.Sqrt((beyond + s.squares(k)) / energy)
}
