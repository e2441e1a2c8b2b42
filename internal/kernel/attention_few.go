package kernel

import "math"

const (
	// fewRows is up to how many rows of scores a key head has, its heads times
	// queries, are computed key by key. Then reading keys and values is what takes
	// the time.
	fewRows = 16

	// fewKeys is how many keys one goroutine takes at a time.
	fewKeys = 256

	// nearKeys is how many keys all rows use before the next are read: so many stay
	// in the nearest cache.
	nearKeys = 32
)

// few is Forward for few queries. Each run of keys gives an output, a greatest
// score and a sum of its own, and these are put together afterwards, in order
// (Flash-Decoding; Dao et al., 2023).
func (a *Attention) few(o, lse, q, k, v []float32, tq, tk int) {
	d := a.HeadDim
	qs, ks, group := a.Heads*d, a.KVHeads*d, a.Heads/a.KVHeads
	from, _ := a.span(tk-tq, tq)
	runs := (tk - from + fewKeys - 1) / fewKeys
	rows := tq * a.Heads
	// By run: rows of d floats, their greatest scores, their sums.
	size := rows * (d + 2)
	buf := scratch(runs * size)
	defer release(buf)
	Parallel(runs*a.KVHeads, int64(tq)*int64(tk-from)*int64(qs), func(i int) {
		run, kh := i/a.KVHeads, i%a.KVHeads
		out := (*buf)[run*size : (run+1)*size]
		tops, sums := out[rows*d:rows*(d+1)], out[rows*(d+1):]
		c0 := from + run*fewKeys
		n := min(fewKeys, tk-c0)
		weights := scratch(tq * group * fewKeys)
		defer release(weights)
		at := func(r int) int { return r/group*a.Heads + kh*group + r%group } // by query, then head
		for c := c0; c < c0+n; c += nearKeys {
			m := min(nearKeys, c0+n-c)
			for r := range tq * group {
				dotRows((*weights)[r*fewKeys+c-c0:][:m], q[at(r)*d:][:d], k[c*ks+kh*d:], ks)
			}
		}
		for r := range tq * group {
			row := at(r)
			clear(out[row*d:][:d])
			tops[row], sums[row] = float32(math.Inf(-1)), 0
			a.accumulate((*weights)[r*fewKeys:][:n], nil, &tops[row], &sums[row], c0, tk-tq+r/group)
		}
		for c := c0; c < c0+n; c += nearKeys {
			m := min(nearKeys, c0+n-c)
			for r := range tq * group {
				addRows(out[at(r)*d:][:d], (*weights)[r*fewKeys+c-c0:][:m], v[c*ks+kh*d:], ks)
			}
		}
	})
	for row := range rows {
		top := float32(math.Inf(-1))
		for run := range runs {
			top = max(top, (*buf)[run*size+rows*d+row])
		}
		var sum float32
		y := o[row*d:][:d]
		clear(y)
		for run := range runs {
			out := (*buf)[run*size : (run+1)*size]
			share := Exp(out[rows*d+row] - top)
			sum += share * out[rows*(d+1)+row]
			AddScaled(y, share, out[row*d:][:d])
		}
		scaleRow(y, 1/sum)
		if lse != nil {
			lse[row] = top + log(sum)
		}
	}
}
