package ggml

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
