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

	// sharedTiles is about how many tiles of queries, of some heads of a group
	// together, use what is copied of a tile of keys.
	sharedTiles = 4

	// tilesTogether is how many tiles of keys use what is copied of a tile of queries
	// in the backward pass.
	tilesTogether = 2
)

// stride returns how many floats apart rows of n floats are in scratch memory: an
// odd number of cache lines, as otherwise neighbouring rows would take each other's
// place in the nearest cache.
func stride(n int) int { return 16 * ((n+15)/16 | 1) }

var tileStride = stride(keyTile)

// AttentionBytes returns the scratch memory that Forward and Grad take for tiles, with
// heads of dimension d and as many goroutines as Go may use processors.
func AttentionBytes(d int) int64 {
	// The next power of two is how scratch memory is kept. Forward takes less.
	return 4 * int64(runtime.GOMAXPROCS(0)) << bits.Len(uint(gradFloats(d)))
}

// gradFloats is what Grad takes for tiles of keys: keys and values as columns and
// keys of each, and queries and gradients of outputs, weights, their gradients, and a
// row of bounded scores.
func gradFloats(d int) int {
	return tilesTogether*(2*d*tileStride+keyTile*stride(d)) + 2*queryTile*(stride(d)+tileStride) + keyTile
}

// forwardFloats is what n queries of some heads take in Forward: keys as columns,
// values, queries, scores, greatest scores and sums.
func forwardFloats(d, heads, n int) int {
	return d*tileStride + (keyTile+heads*n)*stride(d) + queryTile*tileStride + 2*heads*n
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
	if tq == 1 || tq*a.Heads <= fewRows*a.KVHeads {
		a.few(o, lse, q, k, v, tq, tk)
		return
	}
	group := a.Heads / a.KVHeads
	parts := (group + sharedTiles - 1) / sharedTiles // of a group
	heads := (group + parts - 1) / parts
	parts = (group + heads - 1) / heads
	queries := queryTile * ((sharedTiles + heads - 1) / heads)
	blocks := (tq + queries - 1) / queries
	work := int64(tq) * int64(tk) * int64(a.Heads*a.HeadDim)
	Parallel(blocks*a.KVHeads*parts, work, func(i int) {
		// The last queries have the most to do, so they are first.
		i0 := (blocks - 1 - i/(a.KVHeads*parts)) * queries
		kh, g0 := i/parts%a.KVHeads, i%parts*heads
		a.forward(o, lse, q, k, v, i0, min(queries, tq-i0), kh*group+g0, min(heads, group-g0), tk-tq)
	})
}

// forward computes the output of n queries from i0 on, for some heads from h0 on,
// which share a key head. Query i is token i+offset.
func (a *Attention) forward(o, lse, q, k, v []float32, i0, n, h0, heads, offset int) {
	d := a.HeadDim
	qs, ks, ld, kh := a.Heads*d, a.KVHeads*d, stride(d), h0/(a.Heads/a.KVHeads)
	buf := newBuffer(forwardFloats(d, heads, n))
	defer buf.release()
	kt, values, queries := buf.take(d*tileStride), buf.take(keyTile*ld), buf.take(heads*n*ld)
	scores := buf.take(queryTile * tileStride)
	// The greatest scores and the sums so far, by head and query.
	tops, sums := buf.take(heads*n), buf.take(heads*n)
	for x := range tops {
		tops[x], sums[x] = float32(math.Inf(-1)), 0
	}
	first := h0 * d // column of the first head
	for i := range n {
		clear(o[(i0+i)*qs+first:][:heads*d])
	}
	for g := range heads {
		tileRows(queries[g*n*ld:], ld, q[i0*qs+first+g*d:], qs, n, d, a.scale())
	}
	from, to := a.span(i0+offset, n)
	for j0 := from; j0 < to; j0 += keyTile {
		j1 := min(to, j0+keyTile)
		tileColumns(kt, tileStride, k[j0*ks+kh*d:], ks, j1-j0, d)
		tileRows(values, ld, v[j0*ks+kh*d:], ks, j1-j0, d, 1)
		for r0 := 0; r0 < n; r0 += queryTile {
			rows := min(queryTile, n-r0)
			c0, c1 := a.span(i0+r0+offset, rows)
			c0, c1 = max(c0, j0), min(c1, j1)
			if c0 >= c1 {
				continue
			}
			seen := i0 + r0 + offset + 1 - c0 // by the first query
			for g := range heads {
				x, out := g*n+r0, o[(i0+r0)*qs+first+g*d:]
				tileProduct(scores, tileStride, strided{queries[x*ld:], ld, 1}, kt[c0-j0:], tileStride, rows, c1-c0, d, false, stair{seen, result})
				for r := range rows {
					a.accumulate(scores[r*tileStride:][:c1-c0], out[r*qs:][:d], &tops[x+r], &sums[x+r], c0, i0+r0+r+offset)
				}
				tileProduct(out, qs, strided{scores, tileStride, 1}, values[(c0-j0)*ld:], ld, rows, d, c1-c0, true, stair{seen, byQueries})
			}
		}
	}
	for g := range heads {
		for r := range n {
			sum := sums[g*n+r]
			use.scale(o[(i0+r)*qs+first+g*d:][:d], 1/sum)
			if lse != nil {
				lse[(i0+r)*a.Heads+h0+g] = tops[g*n+r] + log(sum)
			}
		}
	}
}

// accumulate turns the scaled scores x of a token with the keys from c0 on into weights
// relative to the greatest score so far, which is top, and adds them to sum. Where
// the greatest changes, the sum and the output o so far are made relative to it.
func (a *Attention) accumulate(x, o []float32, top, sum *float32, c0, token int) {
	own := a.own(x, c0, token)
	if len(own) == 0 {
		return
	}
	if a.Cap > 0 {
		SoftCap(own, a.Cap)
	}
	old := *top
	if *top = max(old, use.max(own)); *top != old {
		shrink := Exp(old - *top)
		*sum *= shrink
		use.scale(o, shrink)
	}
	*sum += float32(use.expSum(own, own, *top))
}

// own returns the part of x, something of a token with the keys from c0 on, that the
// token sees, and sets the rest to 0.
func (a *Attention) own(x []float32, c0, token int) []float32 {
	from, to := a.seen(token)
	from, to = min(max(0, from-c0), len(x)), min(max(0, to-c0), len(x))
	if from >= to {
		clear(x)
		return nil
	}
	clear(x[:from])
	clear(x[to:])
	return x[from:to]
}

func log(x float32) float32 { return float32(math.Log(float64(x))) }
