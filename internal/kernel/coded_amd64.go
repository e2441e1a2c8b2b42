//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var codedAVX2 = codedLoops{
	decodeCoded: [codings]func(dst []float32, src []byte){
		CodingF32: DecodeF32, CodingF16: convertAVX2.decodeF16, CodingBF16: convertAVX2.decodeBF16, CodingQ8_0: quantAVX2.decodeQ8,
		CodingQ4_0: decodeBlocks(CodingQ4_0, simd.DecodeQ4_0AVX2), CodingQ5_0: decodeBlocks(CodingQ5_0, simd.DecodeQ5_0AVX2),
		CodingMXFP4: decodeBlocks(CodingMXFP4, simd.DecodeMXFP4AVX2), CodingIQ4_NL: decodeBlocks(CodingIQ4_NL, simd.DecodeIQ4_NLAVX2),
		CodingIQ4_XS: decodeBlocks(CodingIQ4_XS, simd.DecodeIQ4_XSAVX2), CodingQ2_K: decodeBlocks(CodingQ2_K, simd.DecodeQ2_KAVX2),
		CodingQ3_K: decodeBlocks(CodingQ3_K, simd.DecodeQ3_KAVX2), CodingQ4_K: decodeBlocks(CodingQ4_K, simd.DecodeQ4_KAVX2),
		CodingQ5_K: decodeBlocks(CodingQ5_K, simd.DecodeQ5_KAVX2), CodingQ6_K: decodeBlocks(CodingQ6_K, simd.DecodeQ6_KAVX2),
	},
	dotCoded: [codings]func(y []float32, ldy int, x []float32, m, cols int, src []byte, n int) int{
		CodingF32: dotBlocks(64, 256, simd.DotF32x1AVX2), CodingF16: dotBlocks(64, 128, simd.DotF16x1AVX2),
		CodingBF16: dotBlocks(64, 128, simd.DotBF16x1AVX2), CodingQ8_0: dotBlocks(32, 34, simd.DotQ8_0x1AVX2),
		CodingQ4_0: dotBlocks(32, 18, simd.DotQ4_0x1AVX2), CodingQ5_0: dotBlocks(32, 22, simd.DotQ5_0x1AVX2),
		CodingMXFP4: dotBlocks(32, 17, simd.DotMXFP4x1AVX2), CodingIQ4_NL: dotBlocks(32, 18, simd.DotIQ4_NLx1AVX2),
		CodingIQ4_XS: dotBlocks(256, 136, simd.DotIQ4_XSx1AVX2), CodingQ2_K: dotBlocks(256, 84, simd.DotQ2_Kx1AVX2),
		CodingQ3_K: dotBlocks(256, 110, simd.DotQ3_Kx1AVX2), CodingQ4_K: dotBlocks(256, 144, simd.DotQ4_Kx1AVX2),
		CodingQ5_K: dotBlocks(256, 176, simd.DotQ5_Kx1AVX2), CodingQ6_K: dotBlocks(256, 210, simd.DotQ6_Kx1AVX2),
	},
	dotBytes: [byteCodings]bytesDot{
		CodingInt8: dotBytes(simd.DotInt8x1AVX2), CodingE4M3: dotFloats8(256, dotBytes(simd.DotE4M3x1AVX2)), CodingE5M2: dotFloats8(1, dotBytes(simd.DotE5M2x1AVX2)),
	},
}

var codedAVX512 = codedLoops{
	decodeCoded: [codings]func(dst []float32, src []byte){
		CodingF32: DecodeF32, CodingF16: convertAVX512.decodeF16, CodingBF16: convertAVX512.decodeBF16, CodingQ8_0: quantAVX512.decodeQ8,
		CodingQ4_0: decodeBlocks(CodingQ4_0, simd.DecodeQ4_0AVX512), CodingQ5_0: decodeBlocks(CodingQ5_0, simd.DecodeQ5_0AVX512),
		CodingMXFP4: decodeBlocks(CodingMXFP4, simd.DecodeMXFP4AVX512), CodingIQ4_NL: decodeBlocks(CodingIQ4_NL, simd.DecodeIQ4_NLAVX512),
		CodingIQ4_XS: decodeBlocks(CodingIQ4_XS, simd.DecodeIQ4_XSAVX512), CodingQ2_K: decodeBlocks(CodingQ2_K, simd.DecodeQ2_KAVX512),
		CodingQ3_K: decodeBlocks(CodingQ3_K, simd.DecodeQ3_KAVX512), CodingQ4_K: decodeBlocks(CodingQ4_K, simd.DecodeQ4_KAVX512),
		CodingQ5_K: decodeBlocks(CodingQ5_K, simd.DecodeQ5_KAVX512), CodingQ6_K: decodeBlocks(CodingQ6_K, simd.DecodeQ6_KAVX512),
	},
	dotCoded: [codings]func(y []float32, ldy int, x []float32, m, cols int, src []byte, n int) int{
		CodingF32:    dotBlocks(64, 256, simd.DotF32x1AVX512, simd.DotF32x2AVX512, simd.DotF32x4AVX512),
		CodingF16:    dotBlocks(64, 128, simd.DotF16x1AVX512, simd.DotF16x2AVX512, simd.DotF16x4AVX512),
		CodingBF16:   dotBlocks(64, 128, simd.DotBF16x1AVX512, simd.DotBF16x2AVX512, simd.DotBF16x4AVX512),
		CodingQ8_0:   dotBlocks(32, 34, simd.DotQ8_0x1AVX512, simd.DotQ8_0x2AVX512, simd.DotQ8_0x4AVX512),
		CodingQ4_0:   dotBlocks(32, 18, simd.DotQ4_0x1AVX512, simd.DotQ4_0x2AVX512, simd.DotQ4_0x4AVX512),
		CodingQ5_0:   dotBlocks(32, 22, simd.DotQ5_0x1AVX512, simd.DotQ5_0x2AVX512, simd.DotQ5_0x4AVX512),
		CodingMXFP4:  dotBlocks(32, 17, simd.DotMXFP4x1AVX512, simd.DotMXFP4x2AVX512, simd.DotMXFP4x4AVX512),
		CodingIQ4_NL: dotBlocks(32, 18, simd.DotIQ4_NLx1AVX512, simd.DotIQ4_NLx2AVX512, simd.DotIQ4_NLx4AVX512),
		CodingIQ4_XS: dotBlocks(256, 136, simd.DotIQ4_XSx1AVX512, simd.DotIQ4_XSx2AVX512, simd.DotIQ4_XSx4AVX512),
		CodingQ2_K:   dotBlocks(256, 84, simd.DotQ2_Kx1AVX512, simd.DotQ2_Kx2AVX512, simd.DotQ2_Kx4AVX512),
		CodingQ3_K:   dotBlocks(256, 110, simd.DotQ3_Kx1AVX512, simd.DotQ3_Kx2AVX512, simd.DotQ3_Kx4AVX512),
		CodingQ4_K:   dotBlocks(256, 144, simd.DotQ4_Kx1AVX512, simd.DotQ4_Kx2AVX512, simd.DotQ4_Kx4AVX512),
		CodingQ5_K:   dotBlocks(256, 176, simd.DotQ5_Kx1AVX512, simd.DotQ5_Kx2AVX512, simd.DotQ5_Kx4AVX512),
		CodingQ6_K:   dotBlocks(256, 210, simd.DotQ6_Kx1AVX512, simd.DotQ6_Kx2AVX512, simd.DotQ6_Kx4AVX512),
	},
	dotBytes: [byteCodings]bytesDot{
		CodingInt8: dotBytes(simd.DotInt8x1AVX512, simd.DotInt8x2AVX512, simd.DotInt8x4AVX512),
		CodingE4M3: dotFloats8(256, dotBytes(simd.DotE4M3x1AVX512, simd.DotE4M3x2AVX512, simd.DotE4M3x4AVX512)),
		CodingE5M2: dotFloats8(1, dotBytes(simd.DotE5M2x1AVX512, simd.DotE5M2x2AVX512, simd.DotE5M2x4AVX512)),
	},
}

func decodeBlocks(c Coding, loop func(dst *float32, src *byte, blocks int)) func(dst []float32, src []byte) {
	return func(dst []float32, src []byte) {
		if len(dst) > 0 {
			loop(&dst[0], &src[0], len(dst)/codedTraits[c].elems)
		}
	}
}

// A codedLoop multiplies some rows of x.
type codedLoop = func(y *float32, ldy int, x *float32, ldx int, src *byte, skip, rows, blocks int)

// dotBlocks has loops for 1, 2, 4 ... rows of x, over blocks of so many elements and bytes.
func dotBlocks(elems, bytes int, loops ...codedLoop) func(y []float32, ldy int, x []float32, m, cols int, src []byte, n int) int {
	return func(y []float32, ldy int, x []float32, m, cols int, src []byte, n int) int {
		stride := len(src) / n
		return inParts(len(loops), elems, m, cols, func(loop, i, c, part int) {
			blocks := part / elems
			loops[loop](&y[i*ldy], 4*ldy, &x[i*cols+c], 4*cols, &src[c/elems*bytes], stride-blocks*bytes, n, blocks)
		})
	}
}

func dotBytes(loops ...func(y *float32, ldy int, x *float32, ldx int, src *byte, skip, rows, blocks int, scales *float32, factor float32)) bytesDot {
	return func(y []float32, ldy int, x []float32, ldx, m, cols int, src []byte, stride int, scales []float32, factor float32, n int) int {
		return inParts(len(loops), 64, m, cols, func(loop, i, c, part int) {
			loops[loop](&y[i*ldy], 4*ldy, &x[i*ldx+c], 4*ldx, &src[c], stride-part, n, part/64, &scales[0], factor)
		})
	}
}

// bytesDot is ByteCoding.Dot of whole steps.
type bytesDot = func(y []float32, ldy int, x []float32, ldx, m, cols int, src []byte, stride int, scales []float32, factor float32, n int) int

// dotFloats8 is for loops that read 8-bit floats as float16 that are so many times smaller.
// There is no factor then.
func dotFloats8(times float32, dot bytesDot) bytesDot {
	return func(y []float32, ldy int, x []float32, ldx, m, cols int, src []byte, stride int, scales []float32, factor float32, n int) int {
		if factor != 1 {
			return 0
		}
		return dot(y, ldy, x, ldx, m, cols, src, stride, scales, times, n)
	}
}

// inParts calls f for rows i to i+1<<loop of m and, if they are several, for each part of their
// columns: so many of x stay in the nearest cache while all rows of a matrix use them. It returns the
// columns that are whole steps.
func inParts(loops, step, m, cols int, f func(loop, i, c, part int)) int {
	whole := cols / step * step
	for i := 0; i < m; {
		loop := loops - 1
		for i+1<<loop > m {
			loop--
		}
		width := whole
		if loop > 0 {
			width = splitFloats >> loop
		}
		for c := 0; c < whole; c += width {
			f(loop, i, c, min(width, whole-c))
		}
		i += 1 << loop
	}
	return whole
}
