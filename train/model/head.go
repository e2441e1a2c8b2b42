package model

import (
	"fmt"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// LogitFloats bounds how many logits exist at a time: 16 MiB of them.
const LogitFloats = 4 << 20

// sectionFloats bounds how many weights of the head are used at a time, and with it what
// is in memory of one that is on disk.
const sectionFloats = 8 << 20

// HeadRows returns the most rows of the head that are used at a time. What is added up
// by sections depends on it, so it follows from shapes alone.
func HeadRows(a *arch.Model) int {
	return int(min(a.VocabSize, max(1, sectionFloats/a.HiddenSize/256)*256))
}

// sections is a matrix on disk that is gone through by sections: rows that are in memory
// until others are asked for.
type sections interface {
	Section(from, n int) (kernel.Matrix, error)
}

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
	chunk := m.chunk(n)
	kept := n*head.out <= m.logitFloats // all logits, until their gradient
	floats := n * chunk
	if kept {
		floats = n * head.out
	}
	logits := m.headScr.take(floats)
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
		w, err := rowsOf(head.w, first, width)
		if err != nil {
			return err
		}
		if err := kernel.Mul(dx, part, n, w, true); err != nil {
			return err
		}
		if head.dw != nil {
			kernel.AddOuter(head.dw[first*h:], part, x, n, width, h)
		}
		return nil
	}
	if kept {
		err = chunks(head.out, chunk, func(first, width int) error { return toLogits(logits[n*first:n*(first+width)], first, width) })
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

// chunk returns how many logits of each of n rows exist at a time.
func (m *Model) chunk(n int) int {
	if n == 0 {
		return m.Vocab()
	}
	return min(HeadRows(m.arch), max(1, m.logitFloats/n))
}

// sweep computes the logits of the n rows of x a chunk of the vocabulary at a
// time and calls f with each: n rows of width logits, the first of which is
// token first's. If there is room for all logits, the chunks are one behind the other.
func (m *Model) sweep(head *linear, logits, x []float32, n, chunk int, f func(part []float32, first, width int) error) error {
	if n == 0 {
		return nil
	}
	all := len(logits) >= n*head.out
	return chunks(head.out, chunk, func(first, width int) error {
		part := logits[:n*width]
		if all {
			part = logits[n*first : n*(first+width)]
		}
		if err := m.logits(head, part, x, n, first, width); err != nil {
			return err
		}
		return f(part, first, width)
	})
}

// chunks calls f for each chunk of a vocabulary.
func chunks(vocab, chunk int, f func(first, width int) error) error {
	for first := 0; first < vocab; first += chunk {
		if err := f(first, min(chunk, vocab-first)); err != nil {
			return err
		}
	}
	return nil
}

// logits computes those of n rows of x for width tokens from the first on.
func (m *Model) logits(head *linear, dst, x []float32, n, first, width int) error {
	w, err := rowsOf(head.w, first, width)
	if err != nil {
		return err
	}
	if err := kernel.MulT(dst, x, n, w, false); err != nil {
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
	return chunks(head.out, HeadRows(m.arch), func(first, width int) error {
		return m.logits(head, logits[first:first+width], y, 1, first, width)
	})
}

// cap bounds logits where the family does.
func (m *Model) cap(logits []float32) {
	if limit := float32(m.arch.FinalLogitSoftcapping); limit > 0 {
		kernel.SoftCap(logits, limit)
	}
}

// rowsOf is n rows of a matrix from the given one on.
func rowsOf(w kernel.Matrix, from, n int) (kernel.Matrix, error) {
	if s, ok := w.(sections); ok {
		return s.Section(from, n)
	}
	rows, cols := w.Dims()
	if from == 0 && n == rows {
		return w, nil
	}
	if d, ok := w.(kernel.Dense); ok {
		return kernel.Dense{Data: d.Data[from*cols : (from+n)*cols], Rows: n, Cols: cols}, nil
	}
	p := part{w, from, n}
	switch w := w.(type) {
	case kernel.Dots:
		return dots{tiles{p, w}, w}, nil
	case kernel.Tiles:
		return tiles{p, w}, nil
	}
	return p, nil
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
