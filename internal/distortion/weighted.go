package distortion

// Weighted returns the sums of the squares of the originals and of the differences, each
// times the importance of its column. The slices hold whole rows of len(importance)
// values.
func Weighted(original, decoded, importance []float32) (square, err float64) {
	cols := len(importance)
	for at := 0; at < len(original); at += cols {
		x, y := original[at:at+cols], decoded[at:at+cols]
		var s, e float64
		for i, w := range importance {
			u, v := float64(x[i]), float64(w)
			d := u - float64(y[i])
			s += float64(v * float64(u*u))
			e += float64(v * float64(d*d))
		}
		square, err = square+s, err+e
	}
	return square, err
}
