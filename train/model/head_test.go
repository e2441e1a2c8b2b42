package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
)

// counting is a matrix that has everything; element (i, j) is 10i + j.
type counting struct{ rows, cols int }

func (c counting) Dims() (rows, cols int) { return c.rows, c.cols }

func (c counting) DecodeRows(dst []float32, row int) error {
	return c.DecodeTile(dst, c.cols, row, len(dst)/c.cols, 0, c.cols)
}

func (c counting) TileStep() int { return 2 }

func (c counting) DecodeTile(dst []float32, ld, row, rows, col, cols int) error {
	for i := range rows {
		for j := range cols {
			dst[i*ld+j] = float32(10*(row+i) + col + j)
		}
	}
	return nil
}

func (c counting) DotRows(y []float32, ldy int, x []float32, m, row, n int) error {
	for i := range m * n {
		for j, v := range x[i/n*c.cols:][:c.cols] {
			y[i/n*ldy+i%n] += v * float32(10*(row+i%n)+j)
		}
	}
	return nil
}

// packing leaves what it is asked for.
type packing struct{}

func (packing) PackTile(dst []float32, ld, row, rows, col, cols, nextRow, nextCol int) error {
	for i, v := range []int{ld, row, rows, col, cols, nextRow, nextCol} {
		dst[i] = float32(v)
	}
	return nil
}

// A part of a matrix can do what the matrix can.
func TestRowsOf(t *testing.T) {
	whole := counting{5, 4}
	part := func(w kernel.Matrix, from, n int) kernel.Matrix {
		p, err := rowsOf(w, from, n)
		require.NoError(t, err)
		return p
	}
	require.Equal(t, whole, part(whole, 0, 5))
	_, ok := part(struct{ kernel.Matrix }{whole}, 1, 3).(kernel.Tiles)
	require.False(t, ok)
	_, ok = part(struct{ kernel.Tiles }{whole}, 1, 3).(kernel.Dots)
	require.False(t, ok)
	p, ok := part(whole, 1, 3).(kernel.Dots)
	require.True(t, ok)
	rows, cols := p.Dims()
	require.Equal(t, []int{3, 4, 2}, []int{rows, cols, p.TileStep()})
	got := make([]float32, 8)
	require.NoError(t, p.DecodeRows(got, 1))
	require.Equal(t, []float32{20, 21, 22, 23, 30, 31, 32, 33}, got)
	require.NoError(t, p.DecodeTile(got[:4], 2, 0, 2, 2, 2))
	require.Equal(t, []float32{12, 13, 22, 23}, got[:4])
	packed, ok := part(struct {
		counting
		packing
	}{whole, packing{}}, 1, 3).(kernel.Packer)
	require.True(t, ok)
	require.NoError(t, packed.PackTile(got, 0, 1, 2, 3, 4, 5, 6))
	require.Equal(t, []float32{0, 2, 2, 3, 4, 6, 6}, got[:7])
	y := []float32{1}
	require.NoError(t, p.DotRows(y, 1, []float32{1, 0, 0, 1}, 1, 2, 1))
	require.Equal(t, []float32{1 + 30 + 33}, y)
}

// A head that is not trained is gone through once; the greatest logits grow on the way.
// Loss and gradients are those of the definition, and of a head that is trained, however
// the vocabulary is cut.
func TestLossAndGrad(t *testing.T) {
	const n, h, vocab, scale = 5, 24, 700, 0.25
	rng := rand.New(rand.NewPCG(71, 72))
	x, w := make([]float32, n*h), make([]float32, vocab*h)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	for i := range w {
		w[i] = float32(rng.NormFloat64() * 4 * float64(i) / float64(len(w)))
	}
	for i := range h { // one row is sure of its label
		w[650*h+i] = 3 * x[h+i]
	}
	labels := []int32{0, 650, 3, 299, vocab - 1}
	for _, limit := range []float64{0, 7} {
		want, size := make([]float64, n*h), make([]float64, n*h)
		losses := make([]float64, n)
		for i := range n {
			logits, slopes := make([]float64, vocab), make([]float64, vocab)
			top := math.Inf(-1)
			for v := range vocab {
				for j := range h {
					logits[v] += float64(x[i*h+j]) * float64(w[v*h+j])
				}
				slopes[v] = 1
				if limit > 0 {
					r := math.Tanh(logits[v] / limit)
					logits[v], slopes[v] = limit*r, 1-r*r
				}
				top = max(top, logits[v])
			}
			var sum float64
			for _, l := range logits {
				sum += math.Exp(l - top)
			}
			losses[i] = top + math.Log(sum) - logits[labels[i]]
			for v, l := range logits {
				p := math.Exp(l-top) / sum
				if v == int(labels[i]) {
					p--
				}
				for j := range h {
					g := scale * p * slopes[v] * float64(w[v*h+j])
					want[i*h+j] += g
					size[i*h+j] += math.Abs(g)
				}
				if v == int(labels[i]) { // p and 1 are taken apart
					for j := range h {
						size[i*h+j] += scale * slopes[v] * math.Abs(float64(w[v*h+j]))
					}
				}
			}
		}
		for _, floats := range []int{1, n * 64, n * 300, 1 << 20} {
			for _, trained := range []bool{false, true} {
				t.Run(fmt.Sprint(limit, floats, trained), func(t *testing.T) {
					m := &Model{arch: &arch.Model{Config: &arch.Config{HiddenSize: h, VocabSize: vocab, FinalLogitSoftcapping: limit}}, logitFloats: floats}
					top := &top{head: &linear{w: kernel.Dense{Data: w, Rows: vocab, Cols: h}, out: vocab, in: h}, x: x, labels: labels}
					top.chunk = m.chunk(n)
					top.logits, top.own, top.lse = make([]float32, n*top.chunk), make([]float32, n), make([]kernel.LogSumExp, n)
					for i := range top.lse {
						top.lse[i] = kernel.NewLogSumExp()
					}
					dx := make([]float32, n*h)
					if trained {
						top.head.dw = make([]float32, len(w))
						require.NoError(t, m.loss(top))
						require.NoError(t, m.lossGrad(top, dx, scale))
					} else {
						require.NoError(t, m.lossAndGrad(top, dx, make([]float32, n*h), scale))
					}
					for i := range n {
						require.InDelta(t, losses[i], top.lse[i].Value()-float64(top.own[i]), 2e-5)
					}
					for i := range want {
						require.InDelta(t, want[i], dx[i], 4e-5*size[i], i)
					}
				})
			}
		}
	}
}
