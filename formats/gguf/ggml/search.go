package ggml

import "github.com/seed18967229/nibble/internal/kernel"

// tiny is the magnitude below which values count as zeros in a search.
const tiny = 1e-15

// fitPositive finds the scale of values that are not negative and their codes, up to
// levels, of the least weighted squared error: the best of nine scales to begin with,
// then by changing one code after the other.
func fitPositive(codes []byte, x, weights []float32, levels int) float32 {
	var top float32
	for _, v := range x {
		if !(top > v) {
			top = v
		}
	}
	if top < tiny {
		clear(codes)
		return 0
	}
	inverse := float32(levels) / top
	scale := 1 / inverse
	var best float32
	for i, v := range x {
		d := v - float32(scale*float32(byte(roundEven(float32(inverse*v)))))
		best += float32(float32(weights[i]*d) * d)
	}
	for try := -4; try <= 4; try++ {
		if try == 0 {
			continue
		}
		tried := (float32(0.1*float32(try)) + float32(levels)) / top
		scale := 1 / tried
		var err float32
		for i, v := range x {
			d := v - float32(scale*float32(min(levels, roundEven(float32(tried*v)))))
			err += float32(float32(weights[i]*d) * d)
		}
		if err < best {
			best, inverse = err, tried
		}
	}
	var mixed, square float32
	for i, v := range x {
		code := min(levels, roundEven(float32(inverse*v)))
		codes[i] = byte(code)
		l := float32(code)
		mixed += float32(float32(weights[i]*v) * l)
		square += float32(float32(weights[i]*l) * l)
	}
	for range 5 {
		changed := false
		for i, v := range x {
			l := float32(codes[i])
			wx := float32(weights[i] * v)
			m := mixed - float32(wx*l)
			s := square - float32(float32(weights[i]*l)*l)
			if !(m > 0 && s > 0) {
				continue
			}
			code := min(levels, roundEven(float32(v*s)/m))
			if code == int(codes[i]) {
				continue
			}
			l = float32(code)
			m += float32(wx * l)
			s += float32(float32(weights[i]*l) * l)
			if float32(float32(m*m)*square) > float32(float32(mixed*mixed)*s) {
				codes[i], mixed, square, changed = byte(code), m, s, true
			}
		}
		if !changed {
			break
		}
	}
	if square > 0 {
		return mixed / square
	}
	return 0
}

// sumOfSquares adds up squares in order.
func sumOfSquares(x []float32) float32 {
	var sum float32
	for _, v := range x {
		sum += float32(v * v)
	}
	return sum
}

// weigh makes the weights of values in a search from their importance, and how far
// they are from zero beside what values near them are.
func weigh(weights, x, importance []float32, spread float32) {
	for i, v := range x {
		weights[i] = importance[i] * sqrt(spread+float32(v*v))
	}
}

// weighted32 is the importance path of Q4_0, Q4_1, Q5_0 and Q5_1: rows of blocks of
// 32, whose weights depend on the mean square of the row. fit stores one block.
func weighted32(dst []byte, src, importance []float32, bytes int, fit func(b []byte, x, weights []float32)) {
	var weights [32]float32
	for len(src) > 0 {
		row := src[:len(importance)]
		spread := sumOfSquares(row) / float32(len(row))
		for at := 0; at < len(row); at += 32 {
			b, x := dst[:bytes], row[at:at+32]
			if finite(x) {
				weigh(weights[:], x, importance[at:at+32], spread)
				fit(b, x, weights[:])
			} else {
				spoil(b, 0)
			}
			dst = dst[bytes:]
		}
		src = src[len(row):]
	}
}

// fitSigned32 finds the scale of a block and its codes.
func fitSigned32(codes *[32]byte, x, weights []float32, levels int) (scale float32) {
	var f kernel.Fit
	kernel.FitSigned(&f, x, weights, 32, levels)
	kernel.SignedCodes(codes[:], x, f.Inverse[0], levels)
	return f.Scale[0]
}

// fitRange32 finds the scale of a block, its low end, and its codes.
func fitRange32(codes *[32]byte, x, weights []float32, levels int) (scale, low float32) {
	var f kernel.Fit
	r := kernel.Range{Levels: levels, First: -0.9, Step: 0.05, Steps: 36}
	kernel.FitRange(&f, x, weights, 32, &r)
	kernel.RangeCodes(codes[:], x, f.Inverse[0], f.Origin[0], levels)
	return f.Scale[0], -f.Low[0]
}

// putFourBits packs a block's numbers.
func putFourBits(b []byte, codes *[32]byte) {
	q := (*[16]byte)(b)
	for j := range q {
		q[j] = codes[j]&15 | codes[j+16]<<4
	}
}

// fifthBits returns those of a block's numbers.
func fifthBits(codes *[32]byte) uint32 {
	var bits uint32
	for j, c := range codes {
		bits |= uint32(c>>4) << j
	}
	return bits
}
