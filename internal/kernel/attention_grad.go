package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Grad computes the gradients dq, dk and dv from the gradient do of the output, and
// the arguments and results of Forward, for tq = tk = t.
//
// One goroutine makes dk and dv for a tile of keys. Several add to the same rows of
// dq, and take turns in the order of their keys, so that the sum is always the same.
func (a Attention) Grad(dq, dk, dv, do, o, lse, q, k, v []float32, t int) {
	a.check(t)
	d := a.HeadDim
	qs := a.Heads * d
	queries, keys := (t+queryTile-1)/queryTile, (t+keyTile-1)/keyTile
	g := grad{
		Attention: a, dq: dq, dk: dk, dv: dv, do: do, lse: lse, q: q, k: k, v: v, t: t,
		spans: make([][2]int, queries),
	}
	dots := scratch(t * a.Heads)
	defer release(dots)
	g.dots = *dots
	// Softmax's gradient takes away the dot product of the weights with theirs,
	// which is that of the output with its gradient (Dao et al., 2022, B.2).
	Parallel(queries, int64(t)*int64(qs), func(i int) {
		i0 := i * queryTile
		n := min(queryTile, t-i0)
		for at := i0 * a.Heads; at < (i0+n)*a.Heads; at++ {
			g.dots[at] = Dot(do[at*d:][:d], o[at*d:])
		}
		clear(dq[i0*qs : (i0+n)*qs])
		from, to := a.span(i0, n)
		g.spans[i] = [2]int{from, to}
	})
	g.turns = newTurns(a.Heads * queries)
	for h := range a.Heads {
		for i, s := range g.spans {
			g.turns.next[h*queries+i] = s[0] / keyTile
		}
	}
	// A goroutine takes two tiles of keys at a time if there is work for all. That
	// changes no bit.
	together := min(tilesTogether, max(1, keys*a.KVHeads/(4*runtime.GOMAXPROCS(0))))
	parts := (keys + together - 1) / together
	// A tile waits for tiles of lower numbers, so they are taken in order. The
	// first have the most queries.
	var next atomic.Int64
	Parallel(parts*a.KVHeads, 3*int64(t)*int64(t)*int64(qs), func(int) {
		i := int(next.Add(1)) - 1
		g.keys(i/a.KVHeads*together, min(keys, (i/a.KVHeads+1)*together), i%a.KVHeads)
	})
}

// grad is one backward pass.
type grad struct {
	Attention
	dq, dk, dv, do, lse, q, k, v []float32
	t                            int

	dots  []float32 // of the output and its gradient, by query and head
	spans [][2]int  // what each tile of queries sees
	turns *turns    // at dq, by head and tile of queries
}

// keyCopies are copies of a tile of keys and values.
type keyCopies struct {
	kt, vt []float32 // as columns
	keys   []float32 // scaled
}

// keys does what there is to do for the tiles of keys j to end of a key head.
func (g *grad) keys(j, end, kh int) {
	d := g.HeadDim
	qs, ks, group, ld := g.Heads*d, g.KVHeads*d, g.Heads/g.KVHeads, stride(d)
	buf := newBuffer(gradFloats(d))
	defer buf.release()
	queries, do := buf.take(queryTile*ld), buf.take(queryTile*ld)
	p, dp, bounded := buf.take(queryTile*tileStride), buf.take(queryTile*tileStride), buf.take(keyTile)
	var tiles [tilesTogether]keyCopies
	for x := range end - j {
		j0 := (j + x) * keyTile
		n := min(keyTile, g.t-j0)
		c := keyCopies{buf.take(d * tileStride), buf.take(d * tileStride), buf.take(keyTile * ld)}
		tileColumns(c.kt, tileStride, g.k[j0*ks+kh*d:], ks, n, d)
		tileColumns(c.vt, tileStride, g.v[j0*ks+kh*d:], ks, n, d)
		// Scores are scaled by way of the queries, and so dk; dq is by way of the keys.
		tileRows(c.keys, ld, g.k[j0*ks+kh*d:], ks, n, d, g.scale())
		for r := j0; r < j0+n; r++ {
			clear(g.dk[r*ks+kh*d:][:d])
			clear(g.dv[r*ks+kh*d:][:d])
		}
		tiles[x] = c
	}
	for i, s := range g.spans {
		if s[1] <= j*keyTile || s[0] >= end*keyTile {
			continue
		}
		i0 := i * queryTile
		m := min(queryTile, g.t-i0)
		for h := kh * group; h < (kh+1)*group; h++ {
			tileRows(queries, ld, g.q[i0*qs+h*d:], qs, m, d, g.scale())
			tileRows(do, ld, g.do[i0*qs+h*d:], qs, m, d, 1)
			for x, c := range tiles[:end-j] {
				j0 := (j + x) * keyTile
				c0, c1 := max(s[0], j0), min(s[1], j0+keyTile)
				if c0 >= c1 {
					continue
				}
				n, to, seen := c1-c0, c0*ks+kh*d, i0+1-c0
				tileProduct(p, tileStride, strided{queries, ld, 1}, c.kt[c0-j0:], tileStride, m, n, d, false, stair{seen, result})
				tileProduct(dp, tileStride, strided{do, ld, 1}, c.vt[c0-j0:], tileStride, m, n, d, false, stair{seen, result})
				for r := range m {
					at := (i0+r)*g.Heads + h
					g.scores(p[r*tileStride:][:n], dp[r*tileStride:][:n], bounded, g.lse[at], g.dots[at], c0, i0+r)
				}
				tileProduct(g.dv[to:], ks, strided{p, 1, tileStride}, do, ld, n, d, m, true, stair{seen, byKeys})
				tileProduct(g.dk[to:], ks, strided{dp, 1, tileStride}, queries, ld, n, d, m, true, stair{seen, byKeys})
				turn := h*len(g.spans) + i
				g.turns.wait(turn, j+x)
				tileProduct(g.dq[i0*qs+h*d:], qs, strided{dp, tileStride, 1}, c.keys[(c0-j0)*ld:], ld, m, d, n, true, stair{seen, byQueries})
				g.turns.done(turn)
			}
		}
	}
}

// scores turns the scaled scores x of a token with the keys from c0 on into weights,
// and the gradient dx of the weights into that of the scaled scores.
func (g *grad) scores(x, dx, bounded []float32, lse, dot float32, c0, token int) {
	own, down := g.own(x, c0, token), g.own(dx, c0, token)
	if g.Cap > 0 {
		SoftCap(own, g.Cap)
		copy(bounded, own)
	}
	use.expSum(own, own, lse)
	gradRow(down, own, dot)
	if g.Cap > 0 {
		SoftCapGrad(down, bounded[:len(own)], g.Cap)
	}
}

// turns is whose turn it is at each of several things that are added to by several
// goroutines in a given order.
type turns struct {
	mu   sync.Mutex
	more sync.Cond
	next []int
}

func newTurns(n int) *turns {
	t := &turns{next: make([]int, n)}
	t.more.L = &t.mu
	return t
}

// wait returns when it is number n's turn at thing x.
func (t *turns) wait(x, n int) {
	t.mu.Lock()
	for t.next[x] != n {
		t.more.Wait()
	}
	t.mu.Unlock()
}

// done passes the turn at thing x on to the next number.
func (t *turns) done(x int) {
	t.mu.Lock()
	t.next[x]++
	t.mu.Unlock()
	t.more.Broadcast()
}
