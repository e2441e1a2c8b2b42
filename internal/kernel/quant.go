package kernel

// quantLoops are the inner loops of 4-bit and 8-bit block formats.
type quantLoops struct {
	// decode4 decodes whole blocks and at most one partial one behind them.
	decode4 func(dst []float32, codes []byte, values *[16]float32, absmax []float32, block int)

	// encode4 is Encode4 of at least one block.
	encode4 func(codes []byte, absmax []float32, moments []Moments4, x []float32, block int, c *Codebook) int

	// decodeQ8 is DecodeQ8 of whole blocks.
	decodeQ8 func(dst []float32, src []byte)

	encodeMap8 func(codes []byte, x []float32, m *Map8, mul float32)
	decode8    func(dst []float32, codes []byte, values *[256]float32, scale float32)

	// Of products with few rows: see dotsGo and Dot4, which is faster than to decode
	// tiles for up to codeRows rows.
	codeRows int
	dots     func(y []float32, ldy int, x []float32, ldx, m int, w []float32, ldw, n, k int)
	dot4     func(y []float32, ldy int, x []float32, m, cols int, codes []byte, values *[16]float32, absmax []float32, block, n int)

	// pack4 is Pack4.
	pack4 func(dst []float32, ld int, codes []byte, stride int, values *[16]float32, absmax []float32, block, rows, cols, ahead int)
}

var quantGo = quantLoops{
	decode4: decode4Go, encode4: encode4Go, encodeMap8: encodeMap8Go, decode8: decode8Go,
	decodeQ8: decodeQ8Go, codeRows: smallM, dots: dotsGo, dot4: dot4Go, pack4: pack4Go,
}

// Decode4 decodes a 4-bit block format such as NF4: dst[i] is the value of code i
// times the absmax of block i/block, rounded once. Code i is in the high nibble of
// codes[i/2] if i is even, else in the low one. block must be even; the last one may
// be partial.
func Decode4(dst []float32, codes []byte, values *[16]float32, absmax []float32, block int) {
	codes = codes[:(len(dst)+1)/2]
	absmax = absmax[:(len(dst)+block-1)/block]
	use.decode4(dst, codes, values, absmax, block)
}

func decode4Go(dst []float32, codes []byte, values *[16]float32, absmax []float32, block int) {
	var scaled [16]float32
	for _, a := range absmax {
		for i, v := range values {
			scaled[i] = v * a
		}
		n := min(block, len(dst))
		part := dst[:n]
		for _, c := range codes[:n/2] {
			part[0], part[1] = scaled[c>>4], scaled[c&15]
			part = part[2:]
		}
		if len(part) > 0 {
			part[0] = scaled[codes[n/2]>>4]
		}
		dst, codes = dst[n:], codes[n/2:]
	}
}

// Pack4 decodes a tile of a 4-bit block format by columns: dst[k*ld+j] gets the value of
// code k of row j times its absmax, rounded once, as Decode4 does. Row j begins at
// codes[j*stride]; absmax[b*rows+j] is of its block b. rows must be a multiple of 16, and
// cols, a multiple of 128, one of block or a divisor of it. Meanwhile the codes that are
// ahead bytes from these are fetched.
func Pack4(dst []float32, ld int, codes []byte, stride int, values *[16]float32, absmax []float32, block, rows, cols, ahead int) {
	if rows <= 0 || cols <= 0 {
		return
	}
	dst, codes = dst[:(cols-1)*ld+rows], codes[:(rows-1)*stride+cols/2]
	absmax = absmax[:(cols+block-1)/block*rows]
	use.pack4(dst, ld, codes, stride, values, absmax, block, rows, cols, ahead)
}

// PackRows and PackCols are what the size of a tile for Pack4 is a multiple of.
const (
	PackRows = 16
	PackCols = 128
)

func pack4Go(dst []float32, ld int, codes []byte, stride int, values *[16]float32, absmax []float32, block, rows, cols, _ int) {
	for j := range rows {
		for k := range cols {
			c := codes[j*stride+k/2] >> (4 - k%2*4) & 15
			dst[k*ld+j] = values[c] * absmax[k/block*rows+j]
		}
	}
}
