package model

import "github.com/seed18967229/nibble/arch"

// Observer is told what goes into the linear layers of a model: for the layer
// whose weight is t, the given number of rows of x. An expert is told of the rows
// that are routed to it alone, the head of every row, whether it has a label or
// not. It must not keep x.
type Observer func(t arch.Tensor, x []float32, rows int)

// Observe has o told of all that the model computes from now on; nil ends that.
func (m *Model) Observe(o Observer) { m.observer = o }

// observeHead tells the observer what the head would be multiplied with, given
// the last block's hidden states.
func (m *Model) observeHead(t *top, xs [][]float32) {
	for _, x := range xs {
		m.headScr.reset()
		y, n := m.headScr.take(len(x)), len(x)/m.Hidden()
		t.norm.Forward(y, x, n)
		t.head.observe(y, n)
	}
}
