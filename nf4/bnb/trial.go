package bnb

import (
	"math"

	"github.com/seed18967229/nibble/internal/kernel"
)

// RoundTrip8 writes to dst what the row x decodes to after it was stored by LLM.int8,
// and reports whether it can be stored: what F16 cannot hold has no scale.
func RoundTrip8(dst, x []float32) bool {
	half := make([]byte, 2*len(x))
	kernel.EncodeF16(half, x)
	kernel.DecodeF16(dst, half)
	scale := kernel.Absmax(dst)
	if s := float64(scale); math.IsInf(s, 0) || math.IsNaN(s) {
		return false
	}
	elements := make([]byte, len(x))
	quantizeRow(elements, dst, scale)
	down := scale * reciprocal
	for i, e := range elements {
		dst[i] = float32(int8(e)) * down
	}
	return true
}
