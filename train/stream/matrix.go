package stream

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// MatrixOf returns a tensor of two dimensions as a kernel sees it: kernel.Tiles if its rows are
// tensor.Tiles, kernel.Dots if they know how to multiply, and kernel.Packer if they do by columns.
func MatrixOf(rows tensor.Rows, shape tensor.Shape) kernel.Matrix {
	m := matrix{rows, shape}
	t, ok := rows.(tensor.Tiles)
	if !ok {
		return m
	}
	d, ok := rows.(tensor.Dotter)
	if !ok {
		return tiles{m, t}
	}
	if p, ok := rows.(packer); ok {
		return packed{dots{tiles{m, t}, d}, p}
	}
	return dots{tiles{m, t}, d}
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

type dots struct {
	tiles
	dotter tensor.Dotter
}

// DotRows implements kernel.Dots.
func (d dots) DotRows(y []float32, ldy int, x []float32, m, row, n int) error {
	return d.dotter.DotRows(y, ldy, x, m, row, n)
}

// packer is what kernel.Packer has beside kernel.Tiles.
type packer interface {
	PackTile(dst []float32, ld, row, rows, col, cols, nextRow, nextCol int) error
}

type packed struct {
	dots
	packer
}
