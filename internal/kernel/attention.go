package kernel

import (
	"math"
	"math/bits"
	"runtime"
)

// Attention is causal grouped-query attention (Vaswani et al., 2017; Ainslie et
// al., 2023). Rows are tokens: queries have Heads*HeadDim elements, keys and values
// KVHeads*HeadDim, and query head h uses key head h/(Heads/KVHeads).
//
// It is computed by tiles of queries x keys with a running maximum and sum of each
// row, as FlashAttention does (Dao et al., 2022; Dao, 2023), so that scores exist
// for one tile at a time, and tiles that the masks leave empty cost nothing. The
// backward pass computes the scores again.
type Attention struct {
	Heads, KVHeads, HeadDim int

	// Scale multiplies the scores; 0 is 1/sqrt(HeadDim).
	Scale float32

	// Cap bounds the scaled scores by SoftCap; 0 does not.
	Cap float32

	// Window is how many tokens each token sees, itself included; 0 is all up to
	// itself.
	Window int

	// Docs has the first token of each token's document where several are packed
	// into one sequence, tk in all: a token sees only its own document. nil is one
	// document. Tiles are left out where documents are in order, as they should be.
	Docs []int32
}

const (
	// queryTile and keyTile are the sides of a tile. A tile of scores and what it is
	// made of fit the second-level cache, with what the backward pass has beside.
	// The first is a multiple of the heights of the tiles that products are made by.
	queryTile = 84
	keyTile   = 128

	// sharedTiles is how many tiles of queries, of all heads of a group together,
	// use what is copied of a tile of keys.
	sharedTiles = 4
)

// stride returns how many floats apart rows of n floats are in scratch memory: an
// odd number of cache lines, as otherwise neighbouring rows would take each other's
// place in the nearest cache.
func stride(n int) int { return 16 * ((n+15)/16 | 1) }

var tileStride = stride(keyTile)

// AttentionBytes returns the scratch memory that Forward and Grad take for tiles, with
// heads of dimension d and as many goroutines as Go may use processors.
func AttentionBytes(d int) int64 {
	// The next power of two is how scratch memory is kept.
	n := 1 << bits.Len(uint(max(gradFloats(d), forwardFloats(d, 1, sharedTiles*queryTile))))
	return 4 * int64(runtime.GOMAXPROCS(0)) * int64(n)
}

// gradFloats is what a tile takes in Grad: keys and values as columns, keys, queries
// and gradients of outputs, weights, their gradients, and a row of bounded scores.
func gradFloats(d int) int {
	return 2*d*tileStride + (keyTile+2*queryTile)*stride(d) + 2*queryTile*tileStride + keyTile
}

// forwardFloats is what n queries of a group of heads take in Forward: keys as
// columns, values, queries, scores, greatest scores and sums.
func forwardFloats(d, group, n int) int {
	return d*tileStride + (keyTile+group*n)*stride(d) + queryTile*tileStride + 2*group*n
}

func (a *Attention) scale() float32 {
	if a.Scale != 0 {
		return a.Scale
	}
	return float32(1 / math.Sqrt(float64(a.HeadDim)))
}

// seen returns the range of tokens that a token sees.
func (a *Attention) seen(token int) (from, to int) {
	to = token + 1
	if a.Window > 0 {
		from = max(0, to-a.Window)
	}
	if a.Docs != nil {
		from = max(from, min(token, int(a.Docs[token])))
	}
	return from, to
}

// span returns a range that holds all that n tokens see.
func (a *Attention) span(token, n int) (from, to int) {
	from = token
	for i := token; i < token+n; i++ {
		f, _ := a.seen(i)
		from = min(from, f)
	}
	return from, token + n
}

// check panics if there are not tk documents.
func (a *Attention) check(tk int) {
	if a.Docs != nil {
		a.Docs = a.Docs[:tk]
	}
}

// Forward computes the output o of the queries q, of which there are tq, over
// the keys k and values v, of which there are tk >= tq. The queries are the last
// tq of the tk tokens, and each sees the tokens up to itself.
//
// lse, which may be nil, gets the logarithm of the sum of the exponentials of the
// scores, Heads floats for each query. Grad needs it.
func (a Attention) Forward(o, lse, q, k, v []float32, tq, tk int) {
	a.check(tk)
	if tq*a.Heads <= fewRows*a.KVHeads {
		a.few(o, lse, q, k, v, tq, tk)
		return
	}
	group := a.Heads / a.KVHeads
	queries := queryTile * ((sharedTiles + group - 1) / group)
	blocks := (tq + queries - 1) / queries
	work := int64(tq) * int64(tk) * int64(a.Heads*a.HeadDim)
	Parallel(blocks*a.KVHeads, work, func(i int) {
		// The last queries have the most to do, so they are first.
		i0 := (blocks - 1 - i/a.KVHeads) * queries
		a.forward(o, lse, q, k, v, i0, min(queries, tq-i0), i%a.KVHeads, tk-tq)
	})
}

// forward computes the output of n queries from i0 on, for the heads that use key
// head kh. Query i is token i+offset.
func (a *Attention) forward(o, lse, q, k, v []float32, i0, n, kh, offset int) {
	d := a.HeadDim
	qs, ks, group, ld := a.Heads*d, a.KVHeads*d, a.Heads/a.KVHeads, stride(d)
	buf := newBuffer(forwardFloats(d, group, n))
	defer buf.release()
	kt, values, queries := buf.take(d*tileStride), buf.take(keyTile*ld), buf.take(group*n*ld)
	scores := buf.take(queryTile * tileStride)
	// The greatest scores and the sums so far, by head and query.
	tops, sums := buf.take(group*n), buf.take(group*n)
	for x := range tops {
		tops[x], sums[x] = float32(math.Inf(-1)), 0
	}
	first := kh * group * d // column of the group's first head
	for i := range n {
		clear(o[(i0+i)*qs+first:][:group*d])
	}
	for g := range group {
		tileRows(queries[g*n*ld:], ld, q[i0*qs+first+g*d:], qs, n, d)
	}
	from, to := a.span(i0+offset, n)
	for j0 := from; j0 < to; j0 += keyTile {
		j1 := min(to, j0+keyTile)
		tileColumns(kt, tileStride, k[j0*ks+kh*d:], ks, j1-j0, d)
		tileRows(values, ld, v[j0*ks+kh*d:], ks, j1-j0, d)
		for r0 := 0; r0 < n; r0 += queryTile {
			rows := min(queryTile, n-r0)
			c0, c1 := a.span(i0+r0+offset, rows)
			c0, c1 = max(c0, j0), min(c1, j1)
			if c0 >= c1 {
				continue
			}
			for g := range group {
				x, out := g*n+r0, o[(i0+r0)*qs+first+g*d:]
				tileProduct(scores, tileStride, strided{queries[x*ld:], ld, 1}, kt[c0-j0:], tileStride, rows, c1-c0, d, false)
				for r := range rows {
					a.accumulate(scores[r*tileStride:][:c1-c0], out[r*qs:][:d], &tops[x+r], &sums[x+r], c0, i0+r0+r+offset)
				}
				tileProduct(out, qs, strided{scores, tileStride, 1}, values[(c0-j0)*ld:], ld, rows, d, c1-c0, true)
			}
		}
	}
	for g := range group {
		for r := range n {
			sum := sums[g*n+r]
			scaleRow(o[(i0+r)*qs+first+g*d:][:d], 1/sum)
			if lse != nil {
				lse[(i0+r)*a.Heads+kh*group+g] = tops[g*n+r] + log(sum)
			}
		}
	}
}

// accumulate turns the scores x of a token with the keys from c0 on into weights
// relative to the greatest score so far, which is top, and adds them to sum. Where
// the greatest changes, the sum and the output o so far are made relative to it.
func (a *Attention) accumulate(x, o []float32, top, sum *float32, c0, token int) {
	own, scale := a.own(x, c0, token)
	if len(own) == 0 {
		return
	}
	if a.Cap > 0 {
		scaleRow(own, scale)
		SoftCap(own, a.Cap)
		scale = 1
	}
	old := *top
	if *top = max(old, maxRow(own, scale)); *top != old {
		shrink := Exp(old - *top)
		*sum *= shrink
		scaleRow(o, shrink)
	}
	*sum += expRow(own, scale, *top)
}

// own returns the part of x, scores of a token with the keys from c0 on, that the
// token sees, sets the rest to 0, and returns what scores are scaled by.
func (a *Attention) own(x []float32, c0, token int) (own []float32, scale float32) {
	from, to := a.seen(token)
	from, to = min(max(0, from-c0), len(x)), min(max(0, to-c0), len(x))
	clear(x[:from])
	clear(x[max(from, to):])
	return x[from:max(from, to)], a.scale()
}

func log(x float32) float32 { return float32(math.Log(float64(x))) }
