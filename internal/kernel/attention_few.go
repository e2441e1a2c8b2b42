package kernel

import "math"

const (
	// fewRows is up to how many rows of scores a key head has, its heads times
	// queries, are computed key by key. Then reading keys and values is what takes
	// the time.
	fewRows = 16

	// fewKeys is how many keys one goroutine takes at a time.
	fewKeys = 128

	// nearKeys is at least how many keys, of all heads, all rows use before the next are
	// read: as many as stay in the nearest cache, which are those of nearFloats. Memory
	// is read from end to end.
	nearKeys   = 8
	nearFloats = 8192
)

// few is Forward for few queries. Each run of keys gives an output, a greatest
// score and a sum of its own, and these are put together afterwards, in order
// (Flash-Decoding; Dao et al., 2023).
func (a *Attention) few(o, lse, q, k, v []float32, tq, tk int) {
	d := a.HeadDim
	qs, ks, group := a.Heads*d, a.KVHeads*d, a.Heads/a.KVHeads
	from, _ := a.span(tk-tq, tq)
	near := max(nearKeys, nearFloats/ks)
	runs := (tk - from + fewKeys - 1) / fewKeys
	rows := tq * a.Heads
	scaled := scratch(rows * d)
	defer release(scaled)
	tileRows(*scaled, d, q, d, rows, d, a.scale())
	// By run: rows of d floats, their greatest scores, their sums.
	size := rows * (d + 2)
	buf := scratch(runs * size)
	defer release(buf)
	Parallel(runs, int64(tq)*int64(tk-from)*int64(qs), func(run int) {
		out := (*buf)[run*size : (run+1)*size]
		tops, sums := out[rows*d:rows*(d+1)], out[rows*(d+1):]
		c0, c1 := from+run*fewKeys, min(tk, from+(run+1)*fewKeys)
		all := scratch(rows * fewKeys)
		defer release(all)
		weights := func(row int) []float32 { return (*all)[row*fewKeys:][:c1-c0] }
		for c := c0; c < c1; c += near {
			for row := range rows {
				at := c*ks + row%a.Heads/group*d
				dotRows(weights(row)[c-c0:min(c1, c+near)-c0], (*scaled)[row*d:][:d], k[at:], ks)
			}
		}
		clear(out[:rows*d])
		for row := range rows {
			tops[row], sums[row] = float32(math.Inf(-1)), 0
			a.accumulate(weights(row), nil, &tops[row], &sums[row], c0, tk-tq+row/a.Heads)
		}
		for c := c0; c < c1; c += near {
			for row := range rows {
				at := c*ks + row%a.Heads/group*d
				addRows(out[row*d:][:d], weights(row)[c-c0:min(c1, c+near)-c0], v[at:], ks)
			}
		}
	})
	shares := make([]float32, runs)
	for row := range rows {
		top := float32(math.Inf(-1))
		for run := range shares {
			shares[run] = (*buf)[run*size+rows*d+row]
			top = max(top, shares[run])
		}
		use.expSum(shares, shares, top)
		y := o[row*d:][:d]
		clear(y)
		addRows(y, shares, (*buf)[row*d:], size)
		var sum float32
		for run, share := range shares {
			sum += share * (*buf)[run*size+rows*(d+1)+row]
		}
		use.scale(y, 1/sum)
		if lse != nil {
			lse[row] = top + log(sum)
		}
	}
}
