package model

import (
	"testing"

	"github.com/stretchr/testify/require"

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
	y := []float32{1}
	require.NoError(t, p.DotRows(y, 1, []float32{1, 0, 0, 1}, 1, 2, 1))
	require.Equal(t, []float32{1 + 30 + 33}, y)
}
