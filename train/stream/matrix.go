package stream

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// MatrixOf returns a tensor of two dimensions as a kernel sees it: kernel.Tiles if its rows are
// tensor.Tiles, and kernel.Dots if they know how to multiply.
func MatrixOf(rows tensor.Rows, shape tensor.Shape) kernel.Matrix {
	m := matrix{rows, shape}
	t, ok := rows.(tensor.Tiles)
	if !ok {
		return m
	}
	if d, ok := rows.(dotter); ok {
		return dots{tiles{m, t}, d}
	}
	return tiles{m, t}
}

type matrix struct {
	rows  tensor.Rows
	shape tensor.Shape
}

// Dims implements kernel.Matrix.
func (m matrix) Dims() (rows, cols int) { return int(m.shape.Rows()), int(m.shape.Cols()) }

// DecodeRows implements kernel.Matrix.
func (m matrix) DecodeRows(dst []float32, row int) error { return m.rows.ReadRows(dst, int64(row)) }

type tiles struct {
	matrix
	tensor.Tiles
}

// DecodeTile implements kernel.Tiles.
func (t tiles) DecodeTile(dst []float32, ld, row, rows, col, cols int) error {
	return t.ReadTile(dst, ld, int64(row), rows, col, cols)
}

// dotter is what kernel.Dots and kernel.Packer have beside kernel.Tiles.
type dotter interface {
	DotRows(y []float32, ldy int, x []float32, m, row, n int) error
	PackTile(dst []float32, ld, row, rows, col, cols, nextRow, nextCol int) error
}

type dots struct {
	tiles
	dotter
}
