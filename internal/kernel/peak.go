package kernel

import "encoding/binary"

// peakLoops are what the machine is measured with; nothing else uses them.
type peakLoops struct {
	// fma adds products of elements of a and b to sum n times over. Which and how
	// many is its own affair; flops is how many operations that makes each time.
	fma   func(sum, a, b *[16]float32, n int)
	flops int

	sumWords func(b []byte) uint64
	stream   func(dst, src []byte)
}

var peakGo = peakLoops{fma: fmaGo, flops: 2 * 8, sumWords: sumWordsGo, stream: func(dst, src []byte) { copy(dst, src) }}

// MultiplyAdd does multiply-adds of which none waits for another, as many as the
// loops in use can and n times over, and returns how many floating-point operations
// that was: two for each. It is the peak that products of matrices are measured by.
func MultiplyAdd(n int) float64 {
	var sum, a, b [16]float32
	for i := range a {
		a[i], b[i] = float32(i), 0x1p-10
	}
	use.fma(&sum, &a, &b, n)
	return float64(use.flops) * float64(n)
}

// fmaGo is scalar: without assembly there is nothing wider.
func fmaGo(sum, a, b *[16]float32, n int) {
	var s0, s1, s2, s3, s4, s5, s6, s7 float32
	x0, x1, x2, x3, y0 := a[0], a[1], a[2], a[3], b[0]
	for range n {
		s0 += x0 * y0
		s1 += x1 * y0
		s2 += x2 * y0
		s3 += x3 * y0
		s4 += x0 * y0
		s5 += x1 * y0
		s6 += x2 * y0
		s7 += x3 * y0
	}
	sum[0] += s0 + s4
	sum[1] += s1 + s5
	sum[2] += s2 + s6
	sum[3] += s3 + s7
}

// SumWords returns the sum of the little-endian 64-bit words of b, the last of which
// may be shorter. It reads memory as fast as the loops in use can.
func SumWords(b []byte) uint64 { return use.sumWords(b) }

func sumWordsGo(b []byte) uint64 {
	var s, t, u, v uint64
	for ; len(b) >= 32; b = b[32:] {
		s += binary.LittleEndian.Uint64(b)
		t += binary.LittleEndian.Uint64(b[8:])
		u += binary.LittleEndian.Uint64(b[16:])
		v += binary.LittleEndian.Uint64(b[24:])
	}
	for ; len(b) >= 8; b = b[8:] {
		s += binary.LittleEndian.Uint64(b)
	}
	var last [8]byte
	copy(last[:], b)
	return s + t + u + v + binary.LittleEndian.Uint64(last[:])
}

// StreamCopy copies src to the first bytes of dst, past the caches where the loops
// in use can: the most that memory gives and takes. A shorter dst panics.
func StreamCopy(dst, src []byte) { use.stream(dst[:len(src)], src) }
