package kernel

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// encoded is a Matrix that must be decoded, as a quantized one is.
type encoded struct{ Dense }

func (e encoded) DecodeRows(dst []float32, row int) error {
	for i := range dst {
		dst[i] = e.Data[row*e.Cols+i]
	}
	return nil
}

// broken is a Matrix that cannot be decoded beyond a row.
type broken struct {
	encoded
	at int
}

var errBroken = errors.New("broken")

func (b broken) DecodeRows(dst []float32, row int) error {
	if row+len(dst)/b.Cols > b.at {
		return errBroken
	}
	return b.encoded.DecodeRows(dst, row)
}

func normal(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

// shapes straddle every cut-off of the tiling: the small-M path, pairs of rows,
// fours of k, tiles of 64 and 256, blocks of 256 in k.
var shapes = func() (out [][3]int) {
	for _, m := range []int{1, 2, 3, 4, 5, 63, 64, 65, 130} {
		for _, n := range []int{1, 3, 16, 17, 63, 64, 65, 172} {
			for _, k := range []int{1, 4, 5, 64, 255, 257} {
				out = append(out, [3]int{m, n, k})
			}
		}
	}
	return append(out, [3]int{5, 300, 1000}, [3]int{70, 1100, 1030})
}()

func close32(t *testing.T, want []float64, got []float32, tol float64, msg string, args ...any) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		if !(math.Abs(want[i]-float64(got[i])) <= tol*(1+math.Abs(want[i]))) {
			require.Failf(t, "values differ", "%s: element %d: want %v, got %v", fmt.Sprintf(msg, args...), i, want[i], got[i])
		}
	}
}

func TestMatrixProducts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, s := range shapes {
		m, n, k := s[0], s[1], s[2]
		x, w, dy := normal(rng, m*k), normal(rng, n*k), normal(rng, m*n)
		y0, dx0, dw0 := normal(rng, m*n), normal(rng, m*k), normal(rng, n*k)
		y, dx, dw := make([]float64, m*n), make([]float64, m*k), make([]float64, n*k)
		for i := range m {
			for j := range n {
				for l := range k {
					y[i*n+j] += float64(x[i*k+l]) * float64(w[j*k+l])
					dx[i*k+l] += float64(dy[i*n+j]) * float64(w[j*k+l])
					dw[j*k+l] += float64(dy[i*n+j]) * float64(x[i*k+l])
				}
			}
		}
		tol := 1e-5 * math.Sqrt(float64(max(m, n, k)))
		dense := Dense{w, n, k}
		var first [2][]float32
		for i, matrix := range []Matrix{dense, encoded{dense}} {
			gotY, gotDX := append([]float32(nil), y0...), append([]float32(nil), dx0...)
			require.NoError(t, MulT(gotY, x, m, matrix, false))
			close32(t, y, gotY, tol, "MulT %v", s)
			require.NoError(t, Mul(gotDX, dy, m, matrix, false))
			close32(t, dx, gotDX, tol, "Mul %v", s)
			if i == 0 {
				first = [2][]float32{gotY, gotDX}
			} else {
				require.Equal(t, first, [2][]float32{gotY, gotDX}, "the encoding must not change a bit")
			}

			sum := append([]float32(nil), y0...)
			require.NoError(t, MulT(sum, x, m, matrix, true))
			for i := range sum {
				require.InDelta(t, float64(y0[i])+y[i], float64(sum[i]), tol*(1+math.Abs(y[i])))
			}
			sum = append([]float32(nil), dx0...)
			require.NoError(t, Mul(sum, dy, m, matrix, true))
			for i := range sum {
				require.InDelta(t, float64(dx0[i])+dx[i], float64(sum[i]), tol*(1+math.Abs(dx[i])))
			}
		}
		sum := append([]float32(nil), dw0...)
		AddOuter(sum, dy, x, m, n, k)
		for i := range sum {
			require.InDelta(t, float64(dw0[i])+dw[i], float64(sum[i]), tol*(1+math.Abs(dw[i])))
		}
	}
}

func TestMatrixThatCannotBeDecoded(t *testing.T) {
	for _, m := range []int{1, 8} {
		w := broken{encoded{Dense{make([]float32, 100*8), 100, 8}}, 50}
		require.ErrorIs(t, MulT(make([]float32, m*100), make([]float32, m*8), m, w, false), errBroken)
		require.ErrorIs(t, Mul(make([]float32, m*8), make([]float32, m*100), m, w, false), errBroken)
	}
}

// withWorkers runs f with 1, 2 and 5 processors and requires the same result.
func withWorkers(t *testing.T, f func() []float32) {
	t.Helper()
	old := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(old)
	want := f()
	for _, n := range []int{2, 5} {
		runtime.GOMAXPROCS(n)
		require.Equal(t, want, f(), "%d workers", n)
	}
}

func TestWorkersDoNotChangeBits(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	m, n, k := 150, 300, 200
	x, w, dy := normal(rng, m*k), Dense{normal(rng, n*k), n, k}, normal(rng, m*n)
	withWorkers(t, func() []float32 {
		y, dx, dw := make([]float32, m*n), make([]float32, m*k), make([]float32, n*k)
		require.NoError(t, MulT(y, x, m, encoded{w}, false))
		require.NoError(t, Mul(dx, dy, m, encoded{w}, false))
		AddOuter(dw, dy, x, m, n, k)
		return append(append(y, dx...), dw...)
	})
	norm := normal(rng, k)
	withWorkers(t, func() []float32 {
		y, dx, dw := make([]float32, m*k), make([]float32, m*k), make([]float32, k)
		n := Norm{W: norm, Eps: 1e-5}
		n.Forward(y, x, m)
		n.Grad(dx, dw, nil, y, x, m)
		return append(append(y, dx...), dw...)
	})
}

// checkGrad compares the gradient of sum(r*f(x)) with central differences of f,
// which is given in float64.
func checkGrad(t *testing.T, name string, x []float32, r []float64, f func(x []float64) []float64, grad []float32) {
	t.Helper()
	at := make([]float64, len(x))
	for i, v := range x {
		at[i] = float64(v)
	}
	value := func() float64 {
		var sum float64
		for i, y := range f(at) {
			sum += r[i] * y
		}
		return sum
	}
	want := make([]float64, len(x))
	const h = 1e-5
	for i, v := range at {
		at[i] = v + h
		up := value()
		at[i] = v - h
		want[i] = (up - value()) / (2 * h)
		at[i] = v
	}
	close32(t, want, grad, 2e-4, "%s", name)
}

func wide(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// normalize is Norm in float64; b may be nil.
func normalize(x, w, b []float64, plus, eps float64) []float64 {
	y := make([]float64, len(x))
	h := len(w)
	for i := 0; i < len(x); i += h {
		var mean, sum float64
		if b != nil {
			for _, v := range x[i : i+h] {
				mean += v / float64(h)
			}
		}
		for _, v := range x[i : i+h] {
			sum += (v - mean) * (v - mean)
		}
		for j, v := range x[i : i+h] {
			y[i+j] = (v - mean) / math.Sqrt(sum/float64(h)+eps) * (w[j] + plus)
			if b != nil {
				y[i+j] += b[j]
			}
		}
	}
	return y
}

func TestNorms(t *testing.T) {
	const eps = 1e-2
	rng := rand.New(rand.NewPCG(3, 3))
	for _, s := range [][2]int{{1, 1}, {3, 7}, {17, 5}} {
		for _, plus := range []float32{0, 1} {
			for _, centred := range []bool{false, true} {
				m, h := s[0], s[1]
				x, w, dy := normal(rng, m*h), normal(rng, h), normal(rng, m*h)
				n := Norm{W: w, Plus: plus, Eps: eps}
				var b []float64
				var db []float32
				if centred {
					n.B, db = normal(rng, h), make([]float32, h)
					b = wide(n.B)
				}
				f := func(x, w, b []float64) []float64 { return normalize(x, w, b, float64(plus), eps) }
				y, dx, dw := make([]float32, m*h), make([]float32, m*h), make([]float32, h)
				n.Forward(y, x, m)
				close32(t, f(wide(x), wide(w), b), y, 1e-6, "Forward")
				n.Grad(dx, dw, db, dy, x, m)
				checkGrad(t, "x", x, wide(dy), func(x []float64) []float64 { return f(x, wide(w), b) }, dx)
				checkGrad(t, "w", w, wide(dy), func(w []float64) []float64 { return f(wide(x), w, b) }, dw)
				if centred {
					checkGrad(t, "b", n.B, wide(dy), func(b []float64) []float64 { return f(wide(x), wide(w), b) }, db)
				}
				more := append([]float32(nil), dx...)
				n.Grad(more, nil, nil, dy, x, m)
				for i := range more {
					require.InDelta(t, 2*dx[i], more[i], 1e-4, "the gradient is added")
				}
			}
		}
	}
}

func TestRotation(t *testing.T) {
	freq := []float64{1, 0.3, 0.02}
	const heads = 2
	for _, c := range []struct {
		interleaved bool
		dim         int
		scale       float64
	}{{false, 6, 1}, {true, 6, 1}, {false, 9, 1.25}, {true, 8, 0.5}} {
		rng := rand.New(rand.NewPCG(4, 4))
		pos := []int32{0, 5, 17, 1, 1}
		x := normal(rng, len(pos)*heads*c.dim)
		r := NewRotation(20, c.dim, freq, c.scale, c.interleaved)
		require.Equal(t, 20, r.Positions())
		f := func(x []float64) []float64 {
			want := make([]float64, len(x))
			for i := range x {
				token, j := i/(heads*c.dim), i%c.dim
				if j >= 6 {
					want[i] = x[i] // beyond what is rotated
					continue
				}
				pair, partner, sign := j%3, i+3, -1.0
				if j >= 3 {
					partner, sign = i-3, 1
				}
				if c.interleaved {
					pair, partner, sign = j/2, i+1, -1
					if j%2 == 1 {
						partner, sign = i-1, 1
					}
				}
				angle := float64(pos[token]) * freq[pair]
				want[i] = c.scale * (x[i]*math.Cos(angle) + sign*x[partner]*math.Sin(angle))
			}
			return want
		}
		y := append([]float32(nil), x...)
		r.Apply(y, heads, pos)
		close32(t, f(wide(x)), y, 1e-6, "%+v", c)
		dy := normal(rng, len(x))
		dx := append([]float32(nil), dy...)
		r.Grad(dx, heads, pos)
		checkGrad(t, "x", x, wide(dy), f, dx)
	}
}

// activations in float64, as their definitions have them.
var activations = map[Activation]func(float64) float64{
	SiLU:     func(x float64) float64 { return x / (1 + math.Exp(-x)) },
	GELUTanh: func(x float64) float64 { return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) },
	GELU:     func(x float64) float64 { return 0.5 * x * (1 + math.Erf(x/math.Sqrt2)) },
}

func TestActivations(t *testing.T) {
	for act, one := range activations {
		f := func(g, u []float64) []float64 {
			y := make([]float64, len(g))
			for i := range g {
				y[i] = one(g[i])
				if u != nil {
					y[i] *= u[i]
				}
			}
			return y
		}
		rng := rand.New(rand.NewPCG(5, 5))
		g, u, dy := normal(rng, 5000), normal(rng, 5000), normal(rng, 5000)
		g[0], g[1] = 200, -200
		y, dg, du := make([]float32, len(g)), make([]float32, len(g)), make([]float32, len(g))
		act.Apply(y, g)
		close32(t, f(wide(g), nil), y, 1e-6, "Apply %d", act)
		act.Gated(y, g, u)
		close32(t, f(wide(g), wide(u)), y, 1e-6, "Gated %d", act)
		act.GatedGrad(dg, du, dy, g, u)
		g, u, dy = g[:40], u[:40], dy[:40]
		checkGrad(t, "gate", g, wide(dy), func(x []float64) []float64 { return f(x, wide(u)) }, dg[:40])
		checkGrad(t, "up", u, wide(dy), func(x []float64) []float64 { return f(wide(g), x) }, du[:40])
		dx := append([]float32(nil), dy...)
		act.Grad(dx, dx, g)
		checkGrad(t, "x", g, wide(dy), func(x []float64) []float64 { return f(x, nil) }, dx)
		// In place, as the block uses it.
		want := [][]float32{append([]float32(nil), dg[:40]...), append([]float32(nil), du[:40]...)}
		act.GatedGrad(g, dy, dy, g, u)
		require.Equal(t, want, [][]float32{g, dy})
	}
}

func TestSoftCap(t *testing.T) {
	f := func(x []float64) []float64 {
		y := make([]float64, len(x))
		for i, v := range x {
			y[i] = 3 * math.Tanh(v/3)
		}
		return y
	}
	rng := rand.New(rand.NewPCG(8, 8))
	x, dy := normal(rng, 50), normal(rng, 50)
	for i := range x {
		x[i] *= 4
	}
	y := append([]float32(nil), x...)
	SoftCap(y, 3)
	close32(t, f(wide(x)), y, 1e-6, "SoftCap")
	dx := append([]float32(nil), dy...)
	SoftCapGrad(dx, y, 3)
	checkGrad(t, "x", x, wide(dy), f, dx)
}

func TestCrossEntropyByChunks(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	logits := normal(rng, 1000)
	for i := range logits {
		logits[i] *= 20
	}
	var sum, top float64
	for _, v := range logits {
		top = max(top, float64(v))
	}
	for _, v := range logits {
		sum += math.Exp(float64(v) - top)
	}
	want := top + math.Log(sum)
	for _, chunk := range []int{1, 7, 300, 1000} {
		lse := NewLogSumExp()
		for at := 0; at < len(logits); at += chunk {
			lse.Add(logits[at:min(len(logits), at+chunk)])
		}
		require.InDelta(t, want, lse.Value(), 1e-5)
		grad := append([]float32(nil), logits...)
		for at := 0; at < len(grad); at += chunk {
			CrossEntropyGrad(grad[at:min(len(grad), at+chunk)], at, 123, lse.Value(), 0.5)
		}
		for i, v := range logits {
			p := math.Exp(float64(v) - want)
			if i == 123 {
				p--
			}
			require.InDelta(t, 0.5*p, grad[i], 1e-6)
		}
	}
	empty := NewLogSumExp()
	empty.Add([]float32{float32(math.Inf(-1))})
	require.True(t, math.IsInf(empty.Value(), -1))
}

func TestExp(t *testing.T) {
	var worst float64
	for x := float32(-87.3); x < 88.7; x += 0.00137 {
		want := math.Exp(float64(x))
		worst = max(worst, math.Abs(float64(Exp(x))-want)/want)
	}
	require.Less(t, worst, 2.5e-7)
	require.Equal(t, float32(1), Exp(0))
	require.Equal(t, float32(0), Exp(-1000))
	require.Equal(t, float32(0), Exp(float32(math.Inf(-1))))
	require.True(t, math.IsInf(float64(Exp(89)), 1))
	require.True(t, math.IsNaN(float64(Exp(float32(math.NaN())))))
}

func BenchmarkMulT(b *testing.B) { benchMul(b, MulT) }
func BenchmarkMul(b *testing.B)  { benchMul(b, Mul) }

func benchMul(b *testing.B, f func(y, x []float32, m int, w Matrix, add bool) error) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, s := range [][3]int{{1, 1024, 1024}, {512, 64, 172}, {512, 1024, 1024}} {
		m, n, k := s[0], s[1], s[2]
		x, w, y := normal(rng, m*max(n, k)), encoded{Dense{normal(rng, n*k), n, k}}, make([]float32, m*max(n, k))
		b.Run(fmt.Sprintf("%dx%dx%d", m, n, k), func(b *testing.B) {
			for b.Loop() {
				if err := f(y, x, m, w, false); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
