package stream

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// MatrixOf returns a tensor with two dimensions as a leased one is handed to kernels.
func MatrixOf(rows tensor.Rows, shape tensor.Shape) kernel.Matrix { return matrixOf(rows, shape) }
