package kernel

import "math"

// Attention is causal grouped-query attention (Vaswani et al., 2017; Ainslie et
// al., 2023) of one sequence. Rows are tokens: queries have Heads*HeadDim
// elements, keys and values KVHeads*HeadDim, and query head h uses key head
// h/(Heads/KVHeads).
//
// Scores exist for a strip of queries at a time, never for all.
type Attention struct {
	Heads, KVHeads, HeadDim int

	// Scale multiplies the scores; 0 is 1/sqrt(HeadDim).
	Scale float32

	// Cap bounds the scaled scores by SoftCap; 0 does not.
	Cap float32

	// Window is how many tokens each token sees, itself included; 0 is all up to
	// itself.
	Window int
}

// strip is how many queries are worked on at a time.
const strip = 32

// Forward computes the output o of the queries q, of which there are tq, over
// the keys k and values v, of which there are tk >= tq. The queries are the last
// tq of the tk tokens, and each sees the tokens up to itself.
func (a Attention) Forward(o, q, k, v []float32, tq, tk int) {
	d := a.HeadDim
	qs, ks := a.Heads*d, a.KVHeads*d
	strips := (tq + strip - 1) / strip
	group := a.Heads / a.KVHeads
	// Keys are needed as columns; the transposed ones are shared by the group.
	kt := scratch(a.KVHeads * d * tk)
	defer release(kt)
	transposeHeads(*kt, k, a.KVHeads, d, tk)
	Parallel(a.Heads*strips, 2*int64(tq)*int64(tk)*int64(qs), func(i int) {
		h, i0 := i/strips, i%strips*strip
		n := min(strip, tq-i0)
		seen := tk - tq + i0 + n
		p := scratch(n * seen)
		defer release(p)
		kh := h / group
		a.weights(*p, nil, q[i0*qs+h*d:], (*kt)[kh*d*tk:], n, seen, tk)
		out := o[i0*qs+h*d:]
		for r := range n {
			clear(out[r*qs : r*qs+d])
		}
		gemm(out, qs, strided{*p, seen, 1}, v[kh*d:], ks, n, d, seen)
	})
}

// weights computes the attention weights of n queries, the last of which sees
// seen keys, the one before one less, and so on: p is n x seen. Where scores are
// bounded, slopes gets the derivatives of the bound if it is not nil.
func (a Attention) weights(p, slopes, q, kt []float32, n, seen, tk int) {
	clear(p)
	gemm(p, seen, strided{q, a.Heads * a.HeadDim, 1}, kt, tk, n, seen, a.HeadDim)
	scale := a.scale()
	for r := range n {
		row := p[r*seen : (r+1)*seen]
		end := seen - n + r + 1
		begin := 0
		if a.Window > 0 {
			begin = max(0, end-a.Window)
		}
		own := row[begin:end]
		for j := range own {
			own[j] *= scale
			if a.Cap > 0 {
				own[j] = capped(own[j], a.Cap)
			}
		}
		if a.Cap > 0 && slopes != nil {
			for j, v := range own {
				slopes[r*seen+begin+j] = 1 - v/a.Cap*(v/a.Cap)
			}
		}
		softmax(own)
		clear(row[:begin])
		clear(row[end:])
	}
}

func (a Attention) scale() float32 {
	if a.Scale != 0 {
		return a.Scale
	}
	return float32(1 / math.Sqrt(float64(a.HeadDim)))
}

// Grad computes the gradients dq, dk and dv from the gradient do of the output
// and the arguments of Forward, for tq = tk = t.
func (a Attention) Grad(dq, dk, dv, do, q, k, v []float32, t int) {
	d := a.HeadDim
	qs, ks := a.Heads*d, a.KVHeads*d
	group := a.Heads / a.KVHeads
	clear(dq[:t*qs])
	clear(dk[:t*ks])
	clear(dv[:t*ks])
	kt, vt := scratch(ks*t), scratch(ks*t)
	defer release(kt)
	defer release(vt)
	transposeHeads(*kt, k, a.KVHeads, d, t)
	transposeHeads(*vt, v, a.KVHeads, d, t)
	scale := a.scale()
	// Everything that adds to one key head is done by one goroutine, in one
	// order.
	Parallel(a.KVHeads, 5*int64(t)*int64(t)*int64(qs), func(kh int) {
		pBuf, dpBuf := scratch(strip*t), scratch(strip*t)
		defer release(pBuf)
		defer release(dpBuf)
		var slopes []float32
		if a.Cap > 0 {
			buf := scratch(strip * t)
			defer release(buf)
			slopes = *buf
		}
		for h := kh * group; h < (kh+1)*group; h++ {
			for i0 := 0; i0 < t; i0 += strip {
				n := min(strip, t-i0)
				seen := i0 + n
				p, dp := (*pBuf)[:n*seen], (*dpBuf)[:n*seen]
				qh, doh := q[i0*qs+h*d:], do[i0*qs+h*d:]
				a.weights(p, slopes, qh, (*kt)[kh*d*t:], n, seen, t)
				gemm(dv[kh*d:], ks, strided{p, 1, seen}, doh, qs, seen, d, n)
				clear(dp)
				gemm(dp, seen, strided{doh, qs, 1}, (*vt)[kh*d*t:], t, n, seen, d)
				for r := range n {
					softmaxGrad(dp[r*seen:(r+1)*seen], p[r*seen:(r+1)*seen], scale)
				}
				if a.Cap > 0 {
					for j := range dp {
						// Where a weight is 0 there is no slope, and nothing to scale.
						if p[j] != 0 {
							dp[j] *= slopes[j]
						}
					}
				}
				gemm(dq[i0*qs+h*d:], qs, strided{dp, seen, 1}, k[kh*d:], ks, n, d, seen)
				gemm(dk[kh*d:], ks, strided{dp, 1, seen}, qh, qs, seen, d, n)
			}
		}
	})
}

// softmaxGrad turns the gradient dp of the softmax p into scale times that of
// its argument.
func softmaxGrad(dp, p []float32, scale float32) {
	dot := Dot(dp, p)
	for i, w := range p {
		dp[i] = scale * w * (dp[i] - dot)
	}
}

// transposeHeads writes the heads of each of the t rows of x as columns: dst is
// heads x d x t.
func transposeHeads(dst, x []float32, heads, d, t int) {
	Parallel(heads, int64(t)*int64(heads)*int64(d), func(h int) {
		transpose(dst[h*d*t:], t, x[h*d:], heads*d, t, d)
	})
}
