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
// gradients of what is trained to theirs.
//
// The head is gone through a chunk of the vocabulary at a time for all labels of all
// batches, so that logits never exist whole unless they are few: once, or if it is
// trained once for the loss and once for the gradient.
func (m *Model) Loss(xs [][]float32, batches []*Batch, w Weights, grad bool, scale float32) ([]float64, error) {
	top, err := m.top(xs, batches, w)
	if err != nil {
		return nil, err
	}
	h, n := m.Hidden(), len(top.labels)
	top.chunk = m.chunk(n)
	top.logits = m.headScr.take(n * top.chunk)
	top.own = m.headScr.take(n)
	top.lse = make([]kernel.LogSumExp, n)
	for i := range top.lse {
		top.lse[i] = kernel.NewLogSumExp()
	}
	var dx, spare []float32
	if grad {
		dx, spare = m.headScr.zeros(n*h), m.headScr.take(n*h)
	}
	if grad && top.head.dw == nil {
		err = m.lossAndGrad(top, dx, spare, scale)
	} else if err = m.loss(top); err == nil && grad {
		err = m.lossGrad(top, dx, scale)
	}
	if err != nil {
		return nil, err
	}

	sums := make([]float64, len(batches))
	i := 0
	for k, b := range batches {
		for range b.NumLabels() {
			sums[k] += top.lse[i].Value() - float64(top.own[i])
			i++
		}
	}
	if !grad {
		return sums, nil
	}
	draw := spare
	clear(draw)
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

// loss goes through the head for the logarithms of the sums, and the labels' logits.
func (m *Model) loss(t *top) error {
	return m.sweep(t, func(part []float32, _ kernel.Matrix, first, width int) error {
		t.rows(width, func(i int) {
			row := part[i*width : (i+1)*width]
			t.lse[i].Add(row)
			t.keep(i, row, first)
		})
		return nil
	})
}

// lossAndGrad is loss that also makes the gradient dx with respect to the head's input,
// which is clear, of a head that is not trained. Of each row
//
//	dx = scale * (sum over v of e^(l_v - top) W_v / sum over v of e^(l_v - top) - W_label),
//
// where the greatest logit, top, is that so far: when it grows, what there is of the sums
// shrinks. That takes two products for each chunk, where a second sweep would take a third
// one to have the logits again. spare has the room of dx.
func (m *Model) lossAndGrad(t *top, dx, spare []float32, scale float32) error {
	h, n := m.Hidden(), len(t.labels)
	limit := float32(m.arch.FinalLogitSoftcapping)
	var before []float32 // the bounded logits
	if limit > 0 {
		before = m.headScr.take(n * t.chunk)
	}
	if err := m.sweep(t, func(part []float32, w kernel.Matrix, first, width int) error {
		if limit > 0 {
			copy(before, part)
		}
		t.rows(width, func(i int) {
			row := part[i*width : (i+1)*width]
			t.keep(i, row, first)
			if shrink := t.lse[i].Weigh(row); shrink != 1 {
				kernel.Scale(dx[i*h:(i+1)*h], shrink)
			}
			if limit > 0 {
				kernel.SoftCapGrad(row, before[i*width:(i+1)*width], limit)
			}
		})
		// The label's row is taken while its chunk is at hand.
		for i, l := range t.labels {
			if at := int(l) - first; at >= 0 && at < width {
				if err := w.DecodeRows(spare[i*h:(i+1)*h], at); err != nil {
					return err
				}
			}
		}
		return kernel.Mul(dx, part, n, w, true)
	}); err != nil {
		return err
	}
	t.rows(h, func(i int) {
		row, down := dx[i*h:(i+1)*h], [1]float32{-scale}
		if limit > 0 {
			kernel.SoftCapGrad(down[:], t.own[i:i+1], limit)
		}
		kernel.Scale(row, float32(float64(scale)/t.lse[i].Sum()))
		kernel.AddScaled(row, down[0], spare[i*h:(i+1)*h])
	})
	return nil
}

// lossGrad makes the gradient dx with respect to the head's input, which is clear, and
// that of the head once loss knows the sums.
func (m *Model) lossGrad(t *top, dx []float32, scale float32) error {
	h, n := m.Hidden(), len(t.labels)
	limit := float32(m.arch.FinalLogitSoftcapping)
	var before []float32
	if limit > 0 {
		before = m.headScr.take(n * t.chunk)
	}
	toGrad := func(part []float32, w kernel.Matrix, first, width int) error {
		if limit > 0 {
			copy(before, part)
		}
		t.rows(width, func(i int) {
			row := part[i*width : (i+1)*width]
			kernel.CrossEntropyGrad(row, first, int(t.labels[i]), t.lse[i].Value(), scale)
			if limit > 0 {
				kernel.SoftCapGrad(row, before[i*width:(i+1)*width], limit)
			}
		})
		if err := kernel.Mul(dx, part, n, w, true); err != nil {
			return err
		}
		kernel.AddOuter(t.head.dw[first*h:], part, t.x, n, width, h)
		return nil
	}
	if t.chunk == t.head.out {
		return toGrad(t.logits, t.head.w, 0, t.chunk) // they are all still there
	}
	return m.sweep(t, toGrad)
}

// top is what is above the blocks, and the rows that go through it: those with a
// label.
type top struct {
	norm   *norm
	head   *linear
	raw, x []float32 // before and after the norm
	labels []int32

	// chunk is how many logits of each row exist at a time, and logits has them.
	chunk  int
	logits []float32

	lse []kernel.LogSumExp // of each row
	own []float32          // the labels' logits
}

// rows calls f for each row, for which it has so many elements to go through.
func (t *top) rows(width int, f func(i int)) {
	n := len(t.labels)
	kernel.Parallel(n, int64(n)*int64(width)*8, f)
}

// keep keeps the label's logit of row i, if it is one of those from token first on.
func (t *top) keep(i int, logits []float32, first int) {
	if at := int(t.labels[i]) - first; at >= 0 && at < len(logits) {
		t.own[i] = logits[at]
	}
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

// chunk returns how many logits of each of n rows exist at a time: a multiple of what
// products are cut into, if there is room.
func (m *Model) chunk(n int) int { return chunkOf(m.logitFloats, m.arch, n) }

func chunkOf(floats int, a *arch.Model, n int) int {
	if n == 0 {
		return int(a.VocabSize)
	}
	const step = 256
	chunk := max(1, floats/n)
	if chunk > step {
		chunk = chunk / step * step
	}
	return min(HeadRows(a), chunk)
}

// HeadFloats returns how many floats Loss takes for n labels, with their gradient.
func HeadFloats(a *arch.Model, n int64) int64 {
	round := func(n int64) int64 { return int64(lines(int(n))) }
	logits := round(n * int64(chunkOf(LogitFloats, a, int(n))))
	if a.FinalLogitSoftcapping > 0 {
		logits *= 2
	}
	return 4*round(n*a.HiddenSize) + round(n) + logits // raw x dx draw, own
}

// ReserveHead makes room for the loss of n labels, once.
func (m *Model) ReserveHead(n int) { m.headScr.reserve(int(HeadFloats(m.arch, int64(n)))) }

// sweep computes the logits of all rows a chunk of the vocabulary at a time and calls f
// with each: rows of width logits, the first of which is token first's, and that part of
// the head.
func (m *Model) sweep(t *top, f func(part []float32, w kernel.Matrix, first, width int) error) error {
	n := len(t.labels)
	if n == 0 {
		return nil
	}
	return chunks(t.head.out, t.chunk, func(first, width int) error {
		w, err := rowsOf(t.head.w, first, width)
		if err != nil {
			return err
		}
		part := t.logits[:n*width]
		if err := m.logits(part, t.x, n, w); err != nil {
			return err
		}
		return f(part, w, first, width)
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

// logits computes those of n rows of x for a part of the head.
func (m *Model) logits(dst, x []float32, n int, w kernel.Matrix) error {
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
	m.headScr.reset()
	y := m.headScr.take(len(x))
	norm.Forward(y, x, 1)
	step := head.out
	if _, onDisk := head.w.(sections); onDisk {
		step = HeadRows(m.arch)
	}
	return chunks(head.out, step, func(first, width int) error {
		w, err := rowsOf(head.w, first, width)
		if err != nil {
			return err
		}
		return m.logits(logits[first:first+width], y, 1, w)
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
	case interface {
		kernel.Dots
		kernel.Packer
	}:
		return packer{dots{tiles{p, w}, w}, w}, nil
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

type packer struct {
	dots
	whole kernel.Packer
}

func (p packer) PackTile(dst []float32, ld, row, rows, col, cols, nextRow, nextCol int) error {
	return p.whole.PackTile(dst, ld, p.from+row, rows, col, cols, p.from+nextRow, nextCol)
}
