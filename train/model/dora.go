package model

import (
	"math"
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/optim"
)

// DoRA (arXiv 2402.09353) multiplies each output o of W + Scale·B·A by m_o / n_o, m
// being the magnitude and n_o the length of the row. As in PEFT, n counts as a constant
// on the way back (section 4.3 of the paper), and where inputs are dropped, they are
// for all but the W of the layer without an adapter:
//
//	y = x·Wᵀ + (m/n - 1)·(x'·Wᵀ) + m/n·Scale·(x'·Aᵀ)·Bᵀ,   x' = dropout(x)

// Decompose gives the adapter a magnitude, which begins as the lengths of the rows of
// the weight that open opens: PEFT's use_dora. It is for adapters whose product, or what
// of it is not in Initial, begins as zero.
func (a *Adapter) Decompose(module string, transposed bool, open func() (kernel.Matrix, error)) {
	out := a.B.Shape[0]
	a.Magnitude = &optim.Param{Name: module + ".lora_magnitude_vector", Shape: tensor.Shape{out}, Layer: a.A.Layer, Decay: true}
	a.Magnitude.Init = func(dst []float32) error {
		w, err := open()
		if err != nil {
			return err
		}
		squares, err := rowSquares(w, transposed)
		if err != nil {
			return err
		}
		for i, v := range squares {
			dst[i] = float32(math.Sqrt(float64(v)))
		}
		a.norms.squares = squares
		return nil
	}
}

// norms are the lengths of the rows of W + Scale·B·A, and what of them lasts: the
// squares of W alone.
type norms struct {
	squares []float32
	rows    []float32
	of      uint64 // fingerprint of the A and B that rows belong to
}

// KeptFloats returns how many floats an adapter keeps from step to step beside what is
// trained.
func (a *Adapter) KeptFloats() int64 {
	if a.Magnitude == nil {
		return 0
	}
	return 2 * a.B.Shape[0]
}

// normScratch returns how many floats it takes to find the norms.
func (a *Adapter) normScratch() int {
	r, in, out := a.rank(), int(a.A.Shape[1]), int(a.B.Shape[0])
	beside := 0
	if a.Initial != nil {
		beside = lines(2*r*in) + lines(2*r*out) + lines(r*out)
		r *= 2
	}
	return beside + 2*lines(r*out) + lines(r*r)
}

// gains are the factors of the outputs, m/n, and the norms n.
type gains struct{ factor, norm []float32 }

// findGains returns the gains, which are the same for as long as the layer is bound: what
// is trained does not change meanwhile.
func (l *linear) findGains(s *arena) (*gains, error) {
	if l.gains != nil {
		return l.gains, nil
	}
	a := l.lora
	if err := l.findNorms(s); err != nil {
		return nil, err
	}
	g := &gains{factor: make([]float32, l.out), norm: a.norms.rows}
	for i, m := range a.Magnitude.Data {
		// A row of zeros has no direction, and stays one of zeros.
		if n := g.norm[i]; n > 0 {
			g.factor[i] = m / n
		}
	}
	l.gains = g
	return g, nil
}

// findNorms computes the norms for the present A and B, if they are not those it has.
// The weight is gone through once, by
//
//	|W + D|² = |W|² + 2 W·D + |D|²,  D = Scale·B·A,
//	W·D = Scale·B·(A·Wᵀ),  |D|² = Scale²·B·(A·Aᵀ)·Bᵀ, row by row.
func (l *linear) findNorms(s *arena) error {
	a := l.lora
	k := &a.norms
	of := fingerprint(a.A.Data) ^ mix(fingerprint(a.B.Data))
	if k.rows != nil && k.of == of {
		return nil
	}
	if k.squares == nil {
		var err error
		if k.squares, err = rowSquares(l.w, l.transposed); err != nil {
			return err
		}
	}
	defer s.release(s.mark())
	left, right, r, err := a.factors(s)
	if err != nil {
		return err
	}
	product := kernel.MulT
	if l.transposed {
		product = kernel.Mul
	}
	across := s.take(r * l.out) // A·Wᵀ
	if err := product(across, right, r, l.w, false); err != nil {
		return err
	}
	gram, own := s.take(r*r), s.take(l.out*r) // A·Aᵀ, B·(A·Aᵀ)
	_ = kernel.MulT(gram, right, r, kernel.Dense{Data: right, Rows: r, Cols: l.in}, false)
	_ = kernel.Mul(own, left, l.out, kernel.Dense{Data: gram, Rows: r, Cols: r}, false)
	if k.rows == nil {
		k.rows = make([]float32, l.out)
	}
	scale := float64(a.Scale)
	byChunks(l.out, int64(l.out)*int64(r), func(from, to int) {
		for o := from; o < to; o++ {
			sum := float64(k.squares[o])
			for i, b := range left[o*r:][:r] {
				sum += scale * float64(b) * (2*float64(across[i*l.out+o]) + scale*float64(own[o*r+i]))
			}
			k.rows[o] = float32(math.Sqrt(max(0, sum)))
		}
	})
	k.of = of
	return nil
}

// factors returns B and A, and where the product that they began with is taken away that
// beside them: [B, -B0] and [A; A0], and their rank.
func (a *Adapter) factors(s *arena) (left, right []float32, r int, err error) {
	r = a.rank()
	if a.Initial == nil {
		return a.B.Data, a.A.Data, r, nil
	}
	in, out := a.a().Cols, a.b().Rows
	right = s.take(2 * r * in)
	copy(right, a.A.Data)
	if err := a.Initial.A.DecodeRows(right[r*in:], 0); err != nil {
		return nil, nil, 0, err
	}
	left = s.take(2 * r * out)
	first := s.take(r * out)
	if err := a.Initial.B.DecodeRows(first, 0); err != nil {
		return nil, nil, 0, err
	}
	for o := range out {
		copy(left[2*o*r:], a.B.Data[o*r:][:r])
		for i, v := range first[o*r:][:r] {
			left[(2*o+1)*r+i] = -v
		}
	}
	return left, right, 2 * r, nil
}

// fingerprint tells the values of a matrix from those of another step.
func fingerprint(x []float32) uint64 {
	var h uint64
	for _, v := range x {
		h = (h ^ uint64(math.Float32bits(v))) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}

// squaredAtOnce is how many rows are decoded at a time to be squared.
const squaredAtOnce = 16

// rowSquares returns the sum of the squares of each output's weights: of each row, or if
// the weight lies transposed of each column.
func rowSquares(w kernel.Matrix, transposed bool) ([]float32, error) {
	rows, cols := w.Dims()
	if transposed {
		return columnSquares(w)
	}
	out := make([]float32, rows)
	chunks := (rows + squaredAtOnce - 1) / squaredAtOnce
	errs := make([]error, chunks)
	buffers := sync.Pool{New: func() any { x := make([]float32, squaredAtOnce*cols); return &x }}
	kernel.Parallel(chunks, int64(rows)*int64(cols), func(c int) {
		buffer := buffers.Get().(*[]float32)
		defer buffers.Put(buffer)
		from := c * squaredAtOnce
		n := min(squaredAtOnce, rows-from)
		x := (*buffer)[:n*cols]
		if errs[c] = w.DecodeRows(x, from); errs[c] != nil {
			return
		}
		for i := range n {
			var sum float64
			for _, v := range x[i*cols:][:cols] {
				sum += float64(v) * float64(v)
			}
			out[from+i] = float32(sum)
		}
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func columnSquares(w kernel.Matrix) ([]float32, error) {
	rows, cols := w.Dims()
	sums, x := make([]float64, cols), make([]float32, squaredAtOnce*cols)
	for from := 0; from < rows; from += squaredAtOnce {
		n := min(squaredAtOnce, rows-from)
		if err := w.DecodeRows(x[:n*cols], from); err != nil {
			return nil, err
		}
		for i := range n {
			for j, v := range x[i*cols:][:cols] {
				sums[j] += float64(v) * float64(v)
			}
		}
	}
	out := make([]float32, cols)
	for j, v := range sums {
		out[j] = float32(v)
	}
	return out, nil
}

// doraForward is forward for a layer with a magnitude, but for the bias.
func (l *linear) doraForward(s *arena, y, x []float32, n int, d dropout) error {
	y = y[:n*l.out]
	g, err := l.findGains(s)
	if err != nil {
		return err
	}
	if !d.drops(l.lora) {
		if err := l.times(s, y, x, n, l.lora.product(s, x, n, d)); err != nil {
			return err
		}
		eachRow(y, n, func(y []float32, _ int) {
			for o, f := range g.factor {
				y[o] *= f
			}
		})
		return nil
	}
	dropped := d.drop(s, x, l.lora)
	z := s.take(n * l.out)
	if err := l.times(s, y, x, n, kernel.LowRank{}); err != nil {
		return err
	}
	if err := l.times(s, z, dropped, n, kernel.LowRank{}); err != nil {
		return err
	}
	kernel.AddScaled(y, -1, z)
	_ = l.lora.product(s, dropped, n, dropout{}).AddTo(z, n)
	eachRow(y, n, func(y []float32, i int) {
		z := z[i*l.out:][:l.out]
		for o, f := range g.factor {
			y[o] += f * z[o]
		}
	})
	return nil
}

// doraBackward is backward for a layer with a magnitude.
func (l *linear) doraBackward(s *arena, dx, dy, x []float32, n int, d dropout, add bool) error {
	dy = dy[:n*l.out]
	g, err := l.findGains(s)
	if err != nil {
		return err
	}
	drops, dropped := d.drops(l.lora), d.drop(s, x, l.lora)
	// What the magnitude multiplies is not at hand any more.
	z := s.take(n * l.out)
	mark := s.mark()
	if err := l.times(s, z, dropped, n, l.lora.product(s, dropped, n, dropout{})); err != nil {
		return err
	}
	s.release(mark)
	byChunks(l.out, int64(n)*int64(l.out), func(from, to int) {
		sums := make([]float64, to-from)
		for i := range n {
			z := z[i*l.out+from : i*l.out+to]
			for o, v := range dy[i*l.out+from : i*l.out+to] {
				sums[o] += float64(v) * float64(z[o])
			}
		}
		for o, v := range sums {
			if n := g.norm[from+o]; n > 0 {
				l.lora.Magnitude.Grad[from+o] += float32(v / float64(n))
			}
		}
	})
	eachRow(z, n, func(z []float32, i int) {
		dy := dy[i*l.out:][:l.out]
		for o, f := range g.factor {
			z[o] = f * dy[o]
		}
	})
	plus := l.lora.grads(s, z, dropped, n, dropout{})
	if !drops {
		return l.timesGrad(s, dx, z, n, add, plus)
	}
	kernel.AddScaled(z, -1, dy)
	dropGrad := s.take(n * l.in)
	if err := l.timesGrad(s, dropGrad, z, n, false, plus); err != nil {
		return err
	}
	if err := l.timesGrad(s, dx, dy, n, add, kernel.LowRank{}); err != nil {
		return err
	}
	d.addMasked(dx, dropGrad, l.lora)
	return nil
}

// eachRow calls f with each of the n rows of x and its number.
func eachRow(x []float32, n int, f func(row []float32, i int)) {
	width := len(x) / max(1, n)
	kernel.Parallel(n, int64(len(x)), func(i int) { f(x[i*width:][:width], i) })
}

// byChunks calls f with the chunks of n outputs.
func byChunks(n int, work int64, f func(from, to int)) {
	const chunk = 128
	kernel.Parallel((n+chunk-1)/chunk, work, func(c int) { f(c*chunk, min(n, (c+1)*chunk)) })
}
