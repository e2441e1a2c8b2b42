package kernel

// smallM is the number of rows of x up to which a product is taken as dot
// products with the rows of w as they are decoded.
const smallM = 3

func mulTSmall(y, x []float32, m int, w Matrix) error {
	rows, cols := w.Dims()
	const batch = 16
	return each((rows+batch-1)/batch, int64(m)*int64(rows)*int64(cols), func(t int) error {
		at, end := t*batch, min(rows, (t+1)*batch)
		var panel []float32
		if d, ok := w.(Dense); ok {
			panel = d.Data[at*cols : end*cols]
		} else {
			buf := scratch((end - at) * cols)
			defer release(buf)
			if err := w.DecodeRows(*buf, at); err != nil {
				return err
			}
			panel = *buf
		}
		for i := range m {
			for n := at; n < end; n++ {
				y[i*rows+n] += Dot(x[i*cols:(i+1)*cols], panel[(n-at)*cols:])
			}
		}
		return nil
	})
}
