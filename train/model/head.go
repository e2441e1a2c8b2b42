package model

import (
	"fmt"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// LogitFloats bounds how many logits exist at a time: 16 MiB of them.
const LogitFloats = 4 << 20

// Embed fills x with the embeddings of the tokens, one row each, and where
// positions are learned adds theirs.
func (m *Model) Embed(x []float32, tokens, pos []int32, w Weights) error {
	bind := binding{m, w}
	e, err := bind.linear(arch.Embedding, -1)
	if err != nil {
		return err
	}
	var learned *linear
	if _, ok := m.arch.Find(arch.Position, "weight", -1); ok {
		if learned, err = bind.linear(arch.Position, -1); err != nil {
			return err
		}
	}
	row := make([]float32, e.in)
	for i, t := range tokens {
		if t < 0 || int(t) >= e.out {
			return fmt.Errorf("%w: token %d, the model has %d", tensor.ErrMalformed, t, e.out)
		}
		at := x[i*e.in : (i+1)*e.in]
		if err := e.w.DecodeRows(at, int(t)); err != nil {
			return err
		}
		if m.arch.ScaleEmbeddings {
			kernel.Scale(at, m.embedScale())
		}
		if learned == nil {
			continue
		}
		if int(pos[i]) >= learned.out {
			return fmt.Errorf("%w: position %d, the model has %d", tensor.ErrMalformed, pos[i], learned.out)
		}
		if err := learned.w.DecodeRows(row, int(pos[i])); err != nil {
			return err
		}
		kernel.Add(at, row)
	}
	m.adaptEmbeddings(x, tokens)
	return nil
}

// EmbedGrad adds the gradient dx of Embed's result to those of the embeddings,
// if they are trained.
func (m *Model) EmbedGrad(dx []float32, tokens, pos []int32) {
	m.adaptEmbeddingsGrad(dx, tokens)
	for _, x := range []struct {
		role  arch.Role
		rows  []int32
		scale float32
	}{{arch.Embedding, tokens, m.embedScale()}, {arch.Position, pos, 1}} {
		t, _ := m.arch.Find(x.role, "weight", -1)
		p := m.train.Params[t.Name]
		if p == nil {
			continue
		}
		h := m.Hidden()
		for i, r := range x.rows {
			kernel.AddScaled(p.Grad[int(r)*h:(int(r)+1)*h], x.scale, dx[i*h:(i+1)*h])
		}
	}
}

// Loss returns the sum of the cross-entropies, in nats, of the labels of each
// batch, given the last block's hidden states xs. With grad it also replaces xs
// by the gradient of the sum over all batches times scale, and adds the
// gradients of what is trained.
//
// The head is gone through once for the loss and once for the gradient, a chunk
// of the vocabulary at a time for all labels of all batches; logits never exist
// whole unless they are few.
func (m *Model) Loss(xs [][]float32, batches []*Batch, w Weights, grad bool, scale float32) ([]float64, error) {
	top, err := m.top(xs, batches, w)
	if err != nil {
		return nil, err
	}
	head, x, labels := top.head, top.x, top.labels
	h, n := m.Hidden(), len(labels)
	chunk := m.chunk(head.out, n)
	logits := m.headScr.take(n * chunk)
	lse := make([]kernel.LogSumExp, n)
	for i := range lse {
		lse[i] = kernel.NewLogSumExp()
	}
	own := m.headScr.take(n) // the label's logit
	if err := m.sweep(head, logits, x, n, chunk, func(part []float32, first, width int) error {
		kernel.Parallel(n, int64(n)*int64(width)*8, func(i int) {
			row := part[i*width : (i+1)*width]
			lse[i].Add(row)
			if at := int(labels[i]) - first; at >= 0 && at < width {
				own[i] = row[at]
			}
		})
		return nil
	}); err != nil {
		return nil, err
	}

	sums := make([]float64, len(batches))
	i := 0
	for k, b := range batches {
		for range b.NumLabels() {
			sums[k] += lse[i].Value() - float64(own[i])
			i++
		}
	}
	if !grad {
		return sums, nil
	}

	dx := m.headScr.zeros(n * h)
	limit := float32(m.arch.FinalLogitSoftcapping)
	var before []float32 // the bounded logits
	if limit > 0 {
		before = m.headScr.take(n * chunk)
	}
	toLogits := func(part []float32, first, width int) error {
		if limit > 0 {
			copy(before, part)
		}
		kernel.Parallel(n, int64(n)*int64(width)*8, func(i int) {
			row := part[i*width : (i+1)*width]
			kernel.CrossEntropyGrad(row, first, int(labels[i]), lse[i].Value(), scale)
			if limit > 0 {
				kernel.SoftCapGrad(row, before[i*width:(i+1)*width], limit)
			}
		})
		if err := kernel.Mul(dx, part, n, rowsOf(head.w, first, width), true); err != nil {
			return err
		}
		if head.dw != nil {
			kernel.AddOuter(head.dw[first*h:], part, x, n, width, h)
		}
		return nil
	}
	if chunk == head.out {
		err = toLogits(logits, 0, chunk) // they are all still there
	} else {
		err = m.sweep(head, logits, x, n, chunk, toLogits)
	}
	if err != nil {
		return nil, err
	}

	draw := m.headScr.zeros(n * h)
	top.norm.grad(draw, dx, top.raw, n)
	for k, b := range batches {
		clear(xs[k])
		for j, l := range b.Labels {
			if l >= 0 {
				copy(xs[k][j*h:(j+1)*h], draw)
				draw = draw[h:]
			}
		}
	}
	return sums, nil
}

// top is what is above the blocks, and the rows that go through it: those with a
// label.
type top struct {
	norm   *norm
	head   *linear
	raw, x []float32 // before and after the norm
	labels []int32
}

// top takes the rows with a label out of the last block's hidden states xs.
func (m *Model) top(xs [][]float32, batches []*Batch, w Weights) (*top, error) {
	t, bind := &top{}, binding{m, w}
	var err error
	if t.norm, err = bind.norm(arch.FinalNorm, -1); err != nil {
		return nil, err
	}
	if t.head, err = bind.head(); err != nil {
		return nil, err
	}
	if m.observer != nil {
		m.observeHead(t, xs)
	}
	h, n := m.Hidden(), 0
	for _, b := range batches {
		n += b.NumLabels()
	}
	m.headScr.reset()
	t.raw, t.labels = m.headScr.take(n*h), make([]int32, 0, n)
	for i, b := range batches {
		for j, l := range b.Labels {
			if l < 0 {
				continue
			}
			if int(l) >= t.head.out {
				return nil, fmt.Errorf("%w: token %d, the model has %d", tensor.ErrMalformed, l, t.head.out)
			}
			copy(t.raw[len(t.labels)*h:], xs[i][j*h:(j+1)*h])
			t.labels = append(t.labels, l)
		}
	}
	t.x = m.headScr.take(n * h)
	t.norm.Forward(t.x, t.raw, n)
	return t, nil
}

// chunk returns how many logits of each of n rows exist at a time, of a
// vocabulary of that size.
func (m *Model) chunk(vocab, n int) int {
	if n == 0 {
		return vocab
	}
	return min(vocab, max(1, m.logitFloats/n))
}

// sweep computes the logits of the n rows of x a chunk of the vocabulary at a
// time and calls f with each: n rows of width logits, the first of which is
// token first's.
func (m *Model) sweep(head *linear, logits, x []float32, n, chunk int, f func(part []float32, first, width int) error) error {
	if n == 0 {
		return nil
	}
	for first := 0; first < head.out; first += chunk {
		width := min(chunk, head.out-first)
		part := logits[:n*width]
		if err := m.logits(head, part, x, n, first, width); err != nil {
			return err
		}
		if err := f(part, first, width); err != nil {
			return err
		}
	}
	return nil
}

// logits computes those of n rows of x for width tokens from the first on.
func (m *Model) logits(head *linear, dst, x []float32, n, first, width int) error {
	if err := kernel.MulT(dst, x, n, rowsOf(head.w, first, width), false); err != nil {
		return err
	}
	m.cap(dst)
	return nil
}

// Logits computes the logits of one row of the last block's hidden states.
func (m *Model) Logits(logits, x []float32, w Weights) error {
	bind := binding{m, w}
	norm, err := bind.norm(arch.FinalNorm, -1)
	if err != nil {
		return err
	}
	head, err := bind.head()
	if err != nil {
		return err
	}
	y := make([]float32, len(x))
	norm.Forward(y, x, 1)
	if err := kernel.MulT(logits, y, 1, head.w, false); err != nil {
		return err
	}
	m.cap(logits)
	return nil
}

// cap bounds logits where the family does.
func (m *Model) cap(logits []float32) {
	if limit := float32(m.arch.FinalLogitSoftcapping); limit > 0 {
		kernel.SoftCap(logits, limit)
	}
}

// rowsOf is n rows of a matrix from the given one on.
func rowsOf(w kernel.Matrix, from, n int) kernel.Matrix {
	rows, cols := w.Dims()
	if from == 0 && n == rows {
		return w
	}
	if d, ok := w.(kernel.Dense); ok {
		return kernel.Dense{Data: d.Data[from*cols : (from+n)*cols], Rows: n, Cols: cols}
	}
	p := part{w, from, n}
	switch w := w.(type) {
	case kernel.Dots:
		return dots{tiles{p, w}, w}
	case kernel.Tiles:
		return tiles{p, w}
	}
	return p
}

type part struct {
	kernel.Matrix
	from, n int
}

func (p part) Dims() (rows, cols int) {
	_, cols = p.Matrix.Dims()
	return p.n, cols
}

func (p part) DecodeRows(dst []float32, row int) error { return p.Matrix.DecodeRows(dst, p.from+row) }

type tiles struct {
	part
	whole kernel.Tiles
}

func (t tiles) TileStep() int { return t.whole.TileStep() }

func (t tiles) DecodeTile(dst []float32, ld, row, rows, col, cols int) error {
	return t.whole.DecodeTile(dst, ld, t.from+row, rows, col, cols)
}

type dots struct {
	tiles
	whole kernel.Dots
}

func (d dots) DotRows(y []float32, ldy int, x []float32, m, row, n int) error {
	return d.whole.DotRows(y, ldy, x, m, d.from+row, n)
}
