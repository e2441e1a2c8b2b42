package kernel

import (
	"encoding/binary"
	"sync"
)

// Coding is a format that rows are stored in: blocks, each of which can be decoded on its
// own (of ggml's, see ggml-common.h).
type Coding int

// The codings. Numbers of one element are blocks of one.
const (
	CodingF32 Coding = iota
	CodingF16
	CodingBF16
	CodingQ8_0
	CodingQ4_0
	CodingQ5_0
	CodingMXFP4
	CodingIQ4_NL
	CodingIQ4_XS
	CodingQ2_K
	CodingQ3_K
	CodingQ4_K
	CodingQ5_K
	CodingQ6_K
	codings
)

// codedTraits are the elements and bytes of a block, and how one is decoded in Go.
var codedTraits = [codings]struct {
	elems, bytes int
	decode       func(dst []float32, src []byte)
}{
	CodingF32:    {1, 4, DecodeF32},
	CodingF16:    {1, 2, decodeF16Go},
	CodingBF16:   {1, 2, decodeBF16Go},
	CodingQ8_0:   {BlockQ8, BytesQ8, decodeQ8Go},
	CodingQ4_0:   {32, 18, decodeQ4_0Go},
	CodingQ5_0:   {32, 22, decodeQ5_0Go},
	CodingMXFP4:  {32, 17, decodeMXFP4Go},
	CodingIQ4_NL: {32, 18, decodeIQ4_NLGo},
	CodingIQ4_XS: {256, 136, decodeIQ4_XSGo},
	CodingQ2_K:   {256, 84, decodeQ2_KGo},
	CodingQ3_K:   {256, 110, decodeQ3_KGo},
	CodingQ4_K:   {256, 144, decodeQ4_KGo},
	CodingQ5_K:   {256, 176, decodeQ5_KGo},
	CodingQ6_K:   {256, 210, decodeQ6_KGo},
}

// codedLoops are the inner loops on rows as they are stored. What there is no loop for is
// nil, and left to Go.
type codedLoops struct {
	decodeCoded [codings]func(dst []float32, src []byte)

	// dotCoded adds to y[i*ldy+j] what Dot does, for whole blocks or, of F32, F16 and BF16,
	// as many elements as it does; it returns how many that was of each row.
	dotCoded [codings]func(y []float32, ldy int, x []float32, m, cols int, src []byte, n int) int

	// dotBytes is ByteCoding.Dot, in the same way.
	dotBytes [byteCodings]func(y []float32, ldy int, x []float32, ldx, m, cols int, src []byte, stride int, scales []float32, factor float32, n int) int
}

var codedGo codedLoops

// Decode decodes whole blocks: with d, scale and so on the float32 that the stored ones
// are, each product and sum of the definition is rounded once. len(dst) must be a multiple
// of the elements of a block.
func (c Coding) Decode(dst []float32, src []byte) {
	t := &codedTraits[c]
	blocks := len(dst) / t.elems
	dst, src = dst[:blocks*t.elems], src[:blocks*t.bytes]
	if f := use.decodeCoded[c]; f != nil {
		f(dst, src)
		return
	}
	t.decode(dst, src)
}

// Dot adds to y[i*ldy+j] the product of row i of the m rows of x, one after another, with
// row j of the n rows of src, which follow one another too and have cols elements each: a
// multiple of a block's. No decoded value is written to memory.
//
// The assembly has the sum in 64 lanes, element k in lane k mod 64, each added up in the order
// of k by multiply-adds that round once; what a row has beyond a multiple of 64, or its last
// block, is added behind it where it is F32, F16 or BF16. Of two rows of x that are multiplied
// together parts of 4096 elements are added up so, and of four 2048. So the bits are the same for
// AVX2 and AVX-512 where there is one row of x, and do not depend on n.
//
// They are off by no more than (cols+2) * 2^-24 of the sum of the magnitudes of the terms, each
// with those of d*scale*q and of dmin*minimum where it is their difference: that rounds once.
func (c Coding) Dot(y []float32, ldy int, x []float32, m, cols int, src []byte, n int) {
	if m == 0 || n == 0 || cols == 0 {
		return
	}
	t := &codedTraits[c]
	size := cols / t.elems * t.bytes
	y, x, src = y[:(m-1)*ldy+n], x[:m*cols], src[:n*size]
	from := 0
	if f := use.dotCoded[c]; f != nil {
		from = f(y, ldy, x, m, cols, src, n)
	}
	if from == cols {
		return
	}
	buf := scratch(cols - from)
	defer release(buf)
	for j := range n {
		t.decode(*buf, src[j*size+from/t.elems*t.bytes:(j+1)*size])
		dotsGo(y[j:], ldy, x[from:], cols, m, *buf, cols, 1, cols-from)
	}
}

// ByteCoding is a format of a byte for each element, and scales beside them.
type ByteCoding int

// The codings: signed integers, and 8-bit floats as Float8 knows them.
const (
	CodingInt8 ByteCoding = iota
	CodingE4M3
	CodingE5M2
	byteCodings
)

// byteValues are what the bytes stand for.
var byteValues = [byteCodings]func() *[256]float32{
	CodingInt8: sync.OnceValue(func() *[256]float32 {
		t := new([256]float32)
		for i := range t {
			t[i] = float32(int8(i))
		}
		return t
	}),
	CodingE4M3: sync.OnceValue(Float8{Exp: 4, Bias: 7}.Table),
	CodingE5M2: sync.OnceValue(Float8{Exp: 5, Bias: 15, IEEE: true}.Table),
}

// Values returns what the bytes stand for.
func (c ByteCoding) Values() *[256]float32 { return byteValues[c]() }

// Dot adds to y[i*ldy+j] the product of row i of the m rows of x, ldx floats apart, with row
// j of n rows of bytes, stride of them apart. An element is the value of its byte times
// scales[j], times factor, each product rounded. Coding.Dot says how the sum is made.
func (c ByteCoding) Dot(y []float32, ldy int, x []float32, ldx, m, cols int, src []byte, stride int, scales []float32, factor float32, n int) {
	if m == 0 || n == 0 || cols == 0 {
		return
	}
	y, x, src, scales = y[:(m-1)*ldy+n], x[:(m-1)*ldx+cols], src[:(n-1)*stride+cols], scales[:n]
	from := 0
	if f := use.dotBytes[c]; f != nil {
		from = f(y, ldy, x, ldx, m, cols, src, stride, scales, factor, n)
	}
	if from == cols {
		return
	}
	buf := scratch(cols - from)
	defer release(buf)
	values := c.Values()
	for j, scale := range scales {
		for k, q := range src[j*stride+from : j*stride+cols] {
			(*buf)[k] = float32(values[q]*scale) * factor
		}
		dotsGo(y[j:], ldy, x[from:], ldx, m, *buf, cols, 1, cols-from)
	}
}

// fromHalf returns a float16 stored in two bytes.
func fromHalf(b []byte) float32 { return F16ToF32(binary.LittleEndian.Uint16(b)) }
