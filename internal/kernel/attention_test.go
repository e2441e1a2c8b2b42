package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// reference is attention and its gradients in float64, as the definitions have them.
type reference struct {
	Attention
	tq, tk  int
	q, k, v []float64
}

// weights computes the weights of the keys for query i and head h, and for each the
// derivative of its score with respect to the product of query and key.
func (a reference) weights(i, h int) (p, slopes []float64, lse float64) {
	d, kh := a.HeadDim, h/(a.Heads/a.KVHeads)
	scale := float64(a.Scale)
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(d))
	}
	own := a.tk - a.tq + i
	p, slopes = make([]float64, own+1), make([]float64, own+1)
	sum, top := 0.0, math.Inf(-1)
	for j := range p {
		p[j] = math.Inf(-1)
		if a.Window > 0 && own-j >= a.Window || a.Docs != nil && a.Docs[j] != a.Docs[own] {
			continue
		}
		var s float64
		for e := range d {
			s += a.q[(i*a.Heads+h)*d+e] * a.k[(j*a.KVHeads+kh)*d+e]
		}
		s *= scale
		slopes[j] = scale
		if a.Cap != 0 {
			c := math.Tanh(s / float64(a.Cap))
			s = float64(a.Cap) * c
			slopes[j] *= 1 - c*c
		}
		p[j] = s
		top = max(top, s)
	}
	for j := range p {
		p[j] = math.Exp(p[j] - top)
		sum += p[j]
	}
	for j := range p {
		p[j] /= sum
	}
	return p, slopes, top + math.Log(sum)
}

func (a reference) forward() (o, lse []float64) {
	d := a.HeadDim
	o, lse = make([]float64, len(a.q)), make([]float64, a.tq*a.Heads)
	for i := range a.tq {
		for h := range a.Heads {
			var p []float64
			p, _, lse[i*a.Heads+h] = a.weights(i, h)
			for j, w := range p {
				for e := range d {
					o[(i*a.Heads+h)*d+e] += w * a.v[(j*a.KVHeads+h/(a.Heads/a.KVHeads))*d+e]
				}
			}
		}
	}
	return o, lse
}

func (a reference) grad(do []float64) (dq, dk, dv []float64) {
	d := a.HeadDim
	dq, dk, dv = make([]float64, len(a.q)), make([]float64, len(a.k)), make([]float64, len(a.v))
	for i := range a.tq {
		for h := range a.Heads {
			p, slopes, _ := a.weights(i, h)
			at := (i*a.Heads + h) * d
			dp := make([]float64, len(p))
			var dot float64
			for j, w := range p {
				to := (j*a.KVHeads + h/(a.Heads/a.KVHeads)) * d
				for e := range d {
					dp[j] += do[at+e] * a.v[to+e]
					dv[to+e] += w * do[at+e]
				}
				dot += w * dp[j]
			}
			for j, w := range p {
				to := (j*a.KVHeads + h/(a.Heads/a.KVHeads)) * d
				ds := w * (dp[j] - dot) * slopes[j]
				for e := range d {
					dq[at+e] += ds * a.k[to+e]
					dk[to+e] += ds * a.q[at+e]
				}
			}
		}
	}
	return dq, dk, dv
}

// documents returns the first token of each token's document for documents of those
// lengths, over and over.
func documents(tk int, lengths ...int) []int32 {
	docs := make([]int32, 0, tk)
	for i := 0; len(docs) < tk; i++ {
		start := int32(len(docs))
		for range min(tk-len(docs), lengths[i%len(lengths)]) {
			docs = append(docs, start)
		}
	}
	return docs
}

// sizes of sequences straddle the tiles, the runs of keys and the blocks of tiles.
var attentionCases = []struct {
	a      Attention
	tq, tk int
}{
	{Attention{Heads: 1, KVHeads: 1, HeadDim: 2}, 1, 1},
	{Attention{Heads: 4, KVHeads: 2, HeadDim: 6}, 7, 7},
	{Attention{Heads: 1, KVHeads: 1, HeadDim: 1}, 20, 20},
	{Attention{Heads: 6, KVHeads: 1, HeadDim: 4}, 33, 33},
	{Attention{Heads: 2, KVHeads: 2, HeadDim: 8}, 65, 65},
	{Attention{Heads: 1, KVHeads: 1, HeadDim: 3}, 63, 63},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 5}, 64, 64},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 16}, 127, 127},
	{Attention{Heads: 1, KVHeads: 1, HeadDim: 80}, 128, 128},
	{Attention{Heads: 1, KVHeads: 1, HeadDim: 96}, 129, 129},
	{Attention{Heads: 3, KVHeads: 1, HeadDim: 7}, 200, 200},
	{Attention{Heads: 2, KVHeads: 2, HeadDim: 128}, 193, 193},
	{Attention{Heads: 1, KVHeads: 1, HeadDim: 256}, 70, 70},
	{Attention{Heads: 1, KVHeads: 1, HeadDim: 33}, 257, 257},
	{Attention{Heads: 10, KVHeads: 2, HeadDim: 8}, 90, 90},
	{Attention{Heads: 9, KVHeads: 1, HeadDim: 8}, 100, 130},
	{Attention{Heads: 17, KVHeads: 1, HeadDim: 8}, 1, 130},
	{Attention{Heads: 4, KVHeads: 2, HeadDim: 4}, 1, 40},
	{Attention{Heads: 4, KVHeads: 2, HeadDim: 64}, 1, 257},
	{Attention{Heads: 4, KVHeads: 2, HeadDim: 9}, 8, 600},
	{Attention{Heads: 4, KVHeads: 2, HeadDim: 9}, 9, 600},
	{Attention{Heads: 4, KVHeads: 2, HeadDim: 4}, 35, 70},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Window: 100}, 3, 700},
	{Attention{Heads: 4, KVHeads: 2, HeadDim: 4, Scale: 0.3, Cap: 1.5, Window: 5}, 35, 35},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Window: 1}, 9, 9},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Window: 1}, 140, 140},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Window: 64}, 300, 300},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Window: 127}, 300, 300},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Window: 130}, 300, 300},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Cap: 0.7}, 9, 9},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: -0.6}, 150, 150},
	{Attention{Heads: 4, KVHeads: 2, HeadDim: 4, Window: 33}, 35, 70},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Docs: documents(20, 1)}, 20, 20},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Docs: documents(300, 70, 1, 130)}, 300, 300},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Docs: documents(300, 128, 64)}, 300, 300},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Docs: documents(300, 170), Window: 40, Cap: 2}, 300, 300},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Docs: documents(300, 90)}, 2, 300},
	{Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Docs: documents(300, 90)}, 100, 300},
}

func TestAttention(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for _, c := range attentionCases {
			checkAttention(t, c.a, c.tq, c.tk, rand.New(rand.NewPCG(6, 6)))
		}
	})
}

// checkAttention compares Forward, and Grad where there are as many queries as keys,
// with the definition.
func checkAttention(t *testing.T, a Attention, tq, tk int, rng *rand.Rand) {
	t.Helper()
	q, k, v := normal(rng, tq*a.Heads*a.HeadDim), normal(rng, tk*a.KVHeads*a.HeadDim), normal(rng, tk*a.KVHeads*a.HeadDim)
	want := reference{a, tq, tk, wide(q), wide(k), wide(v)}
	o, lse := normal(rng, len(q)), normal(rng, tq*a.Heads) // what was there must not matter
	a.Forward(o, lse, q, k, v, tq, tk)
	wantO, wantLSE := want.forward()
	close32(t, wantO, o, 4e-6, "o of %+v, %d of %d", a, tq, tk)
	close32(t, wantLSE, lse, 4e-6, "lse of %+v, %d of %d", a, tq, tk)
	again := make([]float32, len(o))
	a.Forward(again, nil, q, k, v, tq, tk)
	require.Equal(t, o, again)
	if tq != tk {
		return
	}
	do := normal(rng, len(q))
	dq, dk, dv := normal(rng, len(q)), normal(rng, len(k)), normal(rng, len(v))
	a.Grad(dq, dk, dv, do, o, lse, q, k, v, tq)
	wantQ, wantK, wantV := want.grad(wide(do))
	tol := 1e-5 * math.Sqrt(float64(a.HeadDim))
	close32(t, wantQ, dq, tol, "dq of %+v, %d", a, tq)
	close32(t, wantK, dk, tol, "dk of %+v, %d", a, tq)
	close32(t, wantV, dv, tol, "dv of %+v, %d", a, tq)
}

// The gradients that Grad is compared with are those of what Forward is compared
// with.
func TestAttentionReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 7))
	for _, a := range []Attention{
		{Heads: 4, KVHeads: 2, HeadDim: 3},
		{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 0.3, Cap: 1.5, Window: 5},
		{Heads: 2, KVHeads: 2, HeadDim: 4, Docs: documents(12, 5)},
	} {
		const n = 12
		q, k, v := normal(rng, n*a.Heads*a.HeadDim), normal(rng, n*a.KVHeads*a.HeadDim), normal(rng, n*a.KVHeads*a.HeadDim)
		do := wide(normal(rng, len(q)))
		dq, dk, dv := reference{a, n, n, wide(q), wide(k), wide(v)}.grad(do)
		forward := func(q, k, v []float64) []float64 {
			o, _ := reference{a, n, n, q, k, v}.forward()
			return o
		}
		checkGrad(t, "q", q, do, func(x []float64) []float64 { return forward(x, wide(k), wide(v)) }, narrow(dq))
		checkGrad(t, "k", k, do, func(x []float64) []float64 { return forward(wide(q), x, wide(v)) }, narrow(dk))
		checkGrad(t, "v", v, do, func(x []float64) []float64 { return forward(wide(q), wide(k), x) }, narrow(dv))
	}
}

func narrow(x []float64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}

// Forward stays within what AttentionBytes says, whatever the groups.
func TestAttentionScratch(t *testing.T) {
	for _, d := range []int{1, 64, 80, 128, 256, 512} {
		for _, heads := range []int{1, 2, 3, 4} {
			n := queryTile * ((sharedTiles + heads - 1) / heads)
			require.LessOrEqual(t, forwardFloats(d, heads, n), gradFloats(d), "%d heads of %d", heads, d)
		}
	}
}

// Large scores neither overflow nor lose the running maximum.
func TestAttentionOfLargeScores(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 8))
	a, n := Attention{Heads: 2, KVHeads: 1, HeadDim: 8, Scale: 1}, 400
	q, k, v := normal(rng, n*16), normal(rng, n*8), normal(rng, n*8)
	for i := range k {
		k[i] *= float32(i)
	}
	eachVariant(t, func(t *testing.T) {
		for _, tq := range []int{2, n} {
			o, lse := make([]float32, tq*16), make([]float32, tq*2)
			a.Forward(o, lse, q[(n-tq)*16:], k, v, tq, n)
			want, _ := reference{a, tq, n, wide(q[(n-tq)*16:]), wide(k), wide(v)}.forward()
			// Scores of some thousands are good to 1e-3.
			close32(t, want, o, 2e-2, "%d queries", tq)
		}
	})
}

func TestAttentionWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 9))
	const n = 700
	old := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(old)
	eachVariant(t, func(t *testing.T) {
		for _, a := range []Attention{
			{Heads: 6, KVHeads: 2, HeadDim: 16},
			{Heads: 3, KVHeads: 1, HeadDim: 20, Window: 300},
			{Heads: 5, KVHeads: 1, HeadDim: 4},
			{Heads: 3, KVHeads: 1, HeadDim: 20, Docs: documents(n, 200, 310)},
		} {
			qs, ks := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
			q, k, v, do := normal(rng, n*qs), normal(rng, n*ks), normal(rng, n*ks), normal(rng, n*qs)
			var want []float32
			for _, workers := range []int{1, 2, 3, 7} {
				runtime.GOMAXPROCS(workers)
				o, lse := make([]float32, n*qs), make([]float32, n*a.Heads)
				dq, dk, dv := make([]float32, n*qs), make([]float32, n*ks), make([]float32, n*ks)
				a.Forward(o, lse, q, k, v, n, n)
				a.Grad(dq, dk, dv, do, o, lse, q, k, v, n)
				few := make([]float32, 2*qs)
				a.Forward(few, nil, q[(n-2)*qs:], k, v, 2, n)
				var got []float32
				for _, x := range [][]float32{o, lse, dq, dk, dv, few} {
					got = append(got, x...)
				}
				if want == nil {
					want = got
				}
				require.Equal(t, want, got, "%d workers", workers)
			}
		}
	})
}

// Documents that are packed give what each gives alone, to rounding.
func TestAttentionOfPackedDocuments(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 10))
	a := Attention{Heads: 4, KVHeads: 2, HeadDim: 8, Docs: documents(500, 60, 128, 200)}
	q, k, v := normal(rng, 500*32), normal(rng, 500*16), normal(rng, 500*16)
	o := make([]float32, len(q))
	a.Forward(o, nil, q, k, v, 500, 500)
	for from := 0; from < 500; {
		to := from
		for to < 500 && int(a.Docs[to]) == from {
			to++
		}
		alone := a
		alone.Docs = nil
		want := make([]float32, (to-from)*32)
		alone.Forward(want, nil, q[from*32:to*32], k[from*16:to*16], v[from*16:to*16], to-from, to-from)
		close32(t, wide(want), o[from*32:to*32], 2e-6, "from %d", from)
		from = to
	}
	require.Panics(t, func() {
		a.Docs = a.Docs[:499:499]
		a.Forward(o, nil, q, k, v, 500, 500)
	})
}

func TestAttentionGradRow(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 11))
	eachVariant(t, func(t *testing.T) {
		for _, n := range lengths() {
			guarded(t, []int{4 * n, 4 * n}, func(b [][]byte) {
				dp, p := floatsOf(b[0]), floatsOf(b[1])
				copy(dp, normal(rng, n))
				copy(p, normal(rng, n))
				want := make([]float64, n)
				for i, w := range p {
					want[i] = float64(w) * (float64(dp[i]) - float64(float32(0.7)))
				}
				gradRow(dp, p, 0.7)
				close32(t, want, dp, 1e-6, "%d", n)
			})
		}
		require.Panics(t, func() { gradRow(make([]float32, 7), make([]float32, 8), 0) })
	})
}

func TestAttentionOfRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 14))
	eachVariant(t, func(t *testing.T) {
		for _, d := range []int{1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 80, 127, 128, 129, 200, 256} {
			for _, n := range []int{0, 1, 2, 3, 4, 5, 8, 9, 32} {
				ld := d + n%3
				size := max(0, (n-1)*ld+d)
				guarded(t, []int{4 * n, 4 * d, 4 * size, 4 * d}, func(b [][]byte) {
					s, x, y, sum := floatsOf(b[0]), floatsOf(b[1]), floatsOf(b[2]), floatsOf(b[3])
					copy(x, normal(rng, d))
					copy(y, normal(rng, size))
					copy(sum, normal(rng, d))
					want, wantSum := make([]float64, n), wide(sum)
					for i := range want {
						for e := range d {
							want[i] += float64(x[e]) * float64(y[i*ld+e])
						}
						for e := range d {
							wantSum[e] += float64(float32(want[i])) * float64(y[i*ld+e])
						}
					}
					dotRows(s, x, y, ld)
					close32(t, want, s, 1e-5, "dotRows %d x %d", n, d)
					addRows(sum, s, y, ld)
					close32(t, wantSum, sum, 1e-4, "addRows %d x %d", n, d)
				})
			}
		}
		require.Panics(t, func() { dotRows(make([]float32, 3), make([]float32, 8), make([]float32, 23), 8) })
		require.Panics(t, func() { addRows(make([]float32, 8), make([]float32, 3), make([]float32, 23), 8) })
	})
}

func FuzzAttention(f *testing.F) {
	f.Add(uint64(1), byte(3), byte(2), byte(8), byte(40), byte(40), byte(0), byte(0), false)
	f.Add(uint64(2), byte(1), byte(4), byte(5), byte(3), byte(130), byte(50), byte(30), true)
	f.Fuzz(func(t *testing.T, seed uint64, kvHeads, group, headDim, tq, more, window, doc byte, bounded bool) {
		rng := rand.New(rand.NewPCG(seed, 1))
		kv := 1 + int(kvHeads)%3
		a := Attention{Heads: kv * (1 + int(group)%4), KVHeads: kv, HeadDim: 1 + int(headDim)%40, Window: int(window)}
		n := 1 + int(tq)
		tk := n + int(more)
		if bounded {
			a.Cap, tk = 1.5, n
		}
		if doc > 0 {
			a.Docs = documents(tk, int(doc), 1+int(seed%97))
		}
		for _, v := range variants() {
			old := use
			use = v
			checkAttention(t, a, n, tk, rng)
			use = old
		}
	})
}

// benchAttention has the heads of a small model with a large head.
var benchAttention = Attention{Heads: 8, KVHeads: 2, HeadDim: 128}

// The multiply-adds of the tokens that are seen are counted, two operations each:
// two products forward, and five backward. A causal mask leaves half.
func BenchmarkAttention(b *testing.B) {
	rng := rand.New(rand.NewPCG(6, 12))
	const n = 2048
	a := benchAttention
	qs, ks := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	q, k, v, do := normal(rng, n*qs), normal(rng, n*ks), normal(rng, n*ks), normal(rng, n*qs)
	o, lse := make([]float32, n*qs), make([]float32, n*a.Heads)
	dq, dk, dv := make([]float32, n*qs), make([]float32, n*ks), make([]float32, n*ks)
	forward := 4 * float64(n) * float64(n) * float64(qs) / 2
	a.Forward(o, lse, q, k, v, n, n)
	for _, c := range []struct {
		name string
		ops  float64
		f    func()
	}{
		{"Forward", forward, func() { a.Forward(o, lse, q, k, v, n, n) }},
		{"Grad", 2.5 * forward, func() { a.Grad(dq, dk, dv, do, o, lse, q, k, v, n) }},
		{"Both", 3.5 * forward, func() {
			a.Forward(o, lse, q, k, v, n, n)
			a.Grad(dq, dk, dv, do, o, lse, q, k, v, n)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				c.f()
			}
			b.ReportMetric(c.ops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
	// What attention's share is of: a product of the same multiply-adds, and the
	// one that a tile takes.
	b.Run("MulT", func(b *testing.B) {
		w := Dense{normal(rng, 2048*1024), 2048, 1024}
		x, y := normal(rng, n*1024), make([]float32, n*2048)
		for b.Loop() {
			if err := MulT(y, x, n, w, false); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(2*n*2048*1024*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	})
	b.Run("Tile", func(b *testing.B) {
		kt, p, ld := make([]float32, 128*tileStride), make([]float32, queryTile*tileStride), stride(128)
		for b.Loop() {
			tileProduct(p, tileStride, strided{q, ld, 1}, kt, tileStride, queryTile, keyTile, 128, false, stair{first: keyTile})
		}
		b.ReportMetric(2*queryTile*keyTile*128*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	})
}

// One query reads the keys and values of all tokens before it once.
func BenchmarkAttentionGenerate(b *testing.B) {
	rng := rand.New(rand.NewPCG(6, 13))
	const n = 16384
	for _, a := range []Attention{{Heads: 14, KVHeads: 2, HeadDim: 64}, {Heads: 8, KVHeads: 8, HeadDim: 128}, {Heads: 32, KVHeads: 8, HeadDim: 128}} {
		qs, ks := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
		q, k, v, o := normal(rng, qs), normal(rng, n*ks), normal(rng, n*ks), make([]float32, qs)
		b.Run(fmt.Sprintf("%d of %d heads", a.KVHeads, a.Heads), func(b *testing.B) {
			b.SetBytes(2 * 4 * n * int64(ks))
			for b.Loop() {
				a.Forward(o, nil, q, k, v, 1, n)
			}
		})
	}
}
