package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
)

// method is a way in which a linear layer is adapted.
type method struct{ transposed, initial, dora, dropout, bias bool }

func (m method) String() string {
	return fmt.Sprint("transposed ", m.transposed, " initial ", m.initial, " dora ", m.dora, " dropout ", m.dropout, " bias ", m.bias)
}

func methods() (all []method) {
	for bits := range 32 {
		is := func(i int) bool { return bits>>i&1 != 0 }
		all = append(all, method{is(0), is(1), is(2), is(3), is(4)})
	}
	return all
}

// layerTest is one linear layer with n inputs and the gradient of its outputs.
type layerTest struct {
	linear
	is             method
	n              int
	x, dy          []float32
	weight         []float32
	firstA, firstB []float32
	norms          []float64
	masked         []float32 // x after the dropout
	d              dropout
}

func newLayerTest(t *testing.T, m method) *layerTest {
	const n, in, out, rank = 21, 37, 26, 3
	rng := rand.New(rand.NewPCG(3, 4))
	random := func(n int, scale float64) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(rng.NormFloat64() * scale)
		}
		return x
	}
	w := layer(0, in, out)
	rows, cols := out, in
	if m.transposed {
		w.Template = &arch.Template{Part: "weight", Linear: true, Transposed: true}
		w.Dims = []int64{in, out}
		rows, cols = in, out
	}
	l := &layerTest{is: m, n: n, x: random(n*in, 1), dy: random(n*out, 1), weight: random(in*out, 0.3)}
	a := NewAdapter(w, rank, 1.7, 0, 1)
	matrix := kernel.Dense{Data: l.weight, Rows: rows, Cols: cols}
	if m.dora {
		a.Decompose("m", m.transposed, func() (kernel.Matrix, error) { return matrix, nil })
	}
	require.NoError(t, a.Fill())
	copy(a.A.Data, random(rank*in, 0.4))
	copy(a.B.Data, random(rank*out, 0.4))
	if m.dora {
		for i := range a.Magnitude.Data {
			a.Magnitude.Data[i] *= 1 + 0.3*float32(rng.NormFloat64())
		}
	}
	if m.initial {
		l.firstA, l.firstB = random(rank*in, 0.4), random(rank*out, 0.4)
		a.Initial = &Pair{kernel.Dense{Data: l.firstA, Rows: rank, Cols: in}, kernel.Dense{Data: l.firstB, Rows: out, Cols: rank}}
	}
	l.masked = l.x
	if m.dropout {
		a.Dropout, l.d = 0.3, dropout{on: true, key: 5}
		l.masked = make([]float32, len(l.x))
		l.d.mask(l.masked, l.x, a)
	}
	l.linear = linear{weight: w, w: matrix, out: out, in: in, lora: a, transposed: m.transposed}
	if m.bias {
		l.bias, l.dbias = random(out, 1), make([]float32, out)
	}
	return l
}

// effective returns the weight, without what the adapter began with, and the adapter's
// product, each [out, in].
func (l *layerTest) effective() (w, delta []float64) {
	w, delta = make([]float64, l.out*l.in), make([]float64, l.out*l.in)
	scale, rank := float64(l.lora.Scale), l.lora.rank()
	for o := range l.out {
		for i := range l.in {
			at := o*l.in + i
			if w[at] = float64(l.weight[at]); l.transposed {
				w[at] = float64(l.weight[i*l.out+o])
			}
			for k := range rank {
				delta[at] += scale * float64(l.lora.B.Data[o*rank+k]) * float64(l.lora.A.Data[k*l.in+i])
				if l.is.initial {
					w[at] -= scale * float64(l.firstB[o*rank+k]) * float64(l.firstA[k*l.in+i])
				}
			}
		}
	}
	return w, delta
}

// results computes the outputs by the definition.
func (l *layerTest) results() []float64 {
	w, delta := l.effective()
	if l.is.dora && l.norms == nil { // constant from now on
		l.norms = make([]float64, l.out)
		for o := range l.norms {
			for i := range l.in {
				v := w[o*l.in+i] + delta[o*l.in+i]
				l.norms[o] += v * v
			}
			l.norms[o] = math.Sqrt(l.norms[o])
		}
	}
	y := make([]float64, l.n*l.out)
	for row := range l.n {
		for o := range l.out {
			var plain, dropped, added float64
			for i := range l.in {
				at := o*l.in + i
				x, d := float64(l.x[row*l.in+i]), float64(l.masked[row*l.in+i])
				plain, dropped, added = plain+w[at]*x, dropped+w[at]*d, added+delta[at]*d
			}
			v := plain + added
			if l.is.dora {
				g := float64(l.lora.Magnitude.Data[o]) / l.norms[o]
				v = plain + (g-1)*dropped + g*added
			}
			if l.bias != nil {
				v += float64(l.bias[o])
			}
			y[row*l.out+o] = v
		}
	}
	return y
}

// value is the sum of the outputs by what stands for their gradients.
func (l *layerTest) value() (sum float64) {
	for i, v := range l.results() {
		sum += v * float64(l.dy[i])
	}
	return sum
}

func TestLinear(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			l := newLayerTest(t, m)
			var s arena
			y, dx := make([]float32, l.n*l.out), make([]float32, l.n*l.in)
			require.NoError(t, l.forward(&s, y, l.x, l.n, l.d))
			require.Equal(t, l.lora.scratch(l.n, false), s.peak, "scratch forward")
			for i, v := range l.results() {
				require.InDelta(t, v, y[i], 2e-5, "output %d", i)
			}
			require.NoError(t, l.backward(&s, dx, l.dy, l.x, l.n, l.d, false))
			require.Equal(t, max(l.lora.scratch(l.n, false), l.lora.scratch(l.n, true)), s.peak, "scratch back")
			require.Zero(t, s.next, "all scratch is given back")

			check := func(name string, values, grad []float32) {
				// In float64 the difference is taken around each value of float32.
				for _, i := range []int{0, len(values) / 3, len(values) - 1} {
					const h = 1.0 / 256
					at := values[i]
					values[i] = at + h
					up, high := l.value(), values[i]
					values[i] = at - h
					down, low := l.value(), values[i]
					values[i] = at
					require.InDelta(t, (up-down)/(float64(high)-float64(low)), grad[i], 1e-3, "%s element %d", name, i)
				}
			}
			check("A", l.lora.A.Data, l.lora.A.Grad)
			check("B", l.lora.B.Data, l.lora.B.Grad)
			if m.dora {
				check("magnitude", l.lora.Magnitude.Data, l.lora.Magnitude.Grad)
			}
			if m.bias {
				check("bias", l.bias, l.dbias)
			}
			// With dropout an input counts twice: as it is and masked.
			for _, i := range []int{0, len(dx) / 2, len(dx) - 1} {
				x, masked := l.x, l.masked
				move := func(by float32) float64 {
					l.x = append([]float32(nil), x...)
					l.x[i] += by
					l.masked = l.x
					if m.dropout {
						l.masked = make([]float32, len(x))
						l.d.mask(l.masked, l.x, l.lora)
					}
					return l.value()
				}
				const h = 1.0 / 256
				up, down := move(h), move(-h)
				l.x, l.masked = x, masked
				require.InDelta(t, (up-down)/(2*h), dx[i], 1e-3, "input %d", i)
			}
		})
	}
}

// TestNormsFollowTheAdapter changes A and B under DoRA's norms, which are kept as long
// as these stay.
func TestNormsFollowTheAdapter(t *testing.T) {
	for _, initial := range []bool{false, true} {
		l := newLayerTest(t, method{dora: true, initial: initial})
		var s arena
		y := make([]float32, l.n*l.out)
		for step := range 3 {
			l.gains, l.norms = nil, nil
			require.NoError(t, l.forward(&s, y, l.x, l.n, l.d))
			require.Equal(t, l.lora.scratch(l.n, false), s.peak, "scratch forward")
			for i, v := range l.results() {
				require.InDelta(t, v, y[i], 2e-5, "output %d in step %d", i, step)
			}
			rows := &l.lora.norms.rows[0]
			l.gains = nil
			require.NoError(t, l.forward(&s, y, l.x, l.n, l.d))
			require.Same(t, rows, &l.lora.norms.rows[0])
			l.lora.A.Data[step] += 1
			l.lora.B.Data[2*step] -= 2
		}
	}
}

// TestRowOfZeros has an output without weights, which has no direction.
func TestRowOfZeros(t *testing.T) {
	l := newLayerTest(t, method{dora: true})
	clear(l.weight[:l.in])
	clear(l.lora.B.Data)
	l.lora.norms = norms{}
	l.lora.Magnitude.Data[0] = 0
	var s arena
	y, dx := make([]float32, l.n*l.out), make([]float32, l.n*l.in)
	require.NoError(t, l.forward(&s, y, l.x, l.n, l.d))
	require.NoError(t, l.backward(&s, dx, l.dy, l.x, l.n, l.d, false))
	require.Zero(t, y[0])
	for _, p := range l.lora.Params() {
		for i, v := range p.Grad {
			require.False(t, math.IsNaN(float64(v)), "%s element %d", p.Name, i)
		}
	}
}

// decompose gives every adapter a magnitude that is not that of its weight.
func (s *setup) decompose(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, x := range s.arch.Tensors() {
		a := s.train.Adapters[x.Module()]
		if a == nil || x.Part != "weight" || !x.Linear {
			continue
		}
		w := kernel.Dense{Data: tensortest.Floats(t, s.src, x.Name), Rows: int(x.Dims[0]), Cols: int(x.Dims[1])}
		a.Decompose(x.Module(), x.Transposed, func() (kernel.Matrix, error) { return w, nil })
		require.NoError(t, a.Magnitude.Fill())
		for i := range a.Magnitude.Data {
			a.Magnitude.Data[i] *= 1 + 0.2*float32(rng.NormFloat64())
		}
	}
}

// adaptTokens adds an adapter to the token embeddings.
func (s *setup) adaptTokens(t *testing.T, rank int) {
	x, _ := s.arch.Find(arch.Embedding, "weight", -1)
	a := filled(t, NewEmbeddingAdapter(x, rank, 0.7, 2))
	rng := rand.New(rand.NewPCG(9, 9))
	for i := range a.A.Data {
		a.A.Data[i] = float32(rng.NormFloat64() * 0.3)
	}
	s.train.Adapters[x.Module()] = a
}

func TestGradientsOfAdapters(t *testing.T) {
	for _, f := range []string{"llama", "gpt2", "gemma2", "qwen2"} {
		for _, tied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s tied %v", f, tied), func(t *testing.T) {
				t.Parallel()
				a := tensortest.TinyModel(t, f, func(c *arch.Config) {
					c.NumHiddenLayers, c.WindowPattern = 1, 2
					c.TieWordEmbeddings = c.TieWordEmbeddings || tied
				})
				s := setupOf(t, a)
				s.micro = [][]sequence{{s.micro[0][0], s.micro[0][1]}}
				s.adapt(t, 2, 0.7, a.LinearModules()...)
				s.decompose(t)
				s.adaptTokens(t, 3)
				s.checkGradients(t, 2)
			})
		}
	}
}

func TestBitsOfDoRADoNotDependOnHow(t *testing.T) {
	s := newSetup(t, nil)
	s.adapt(t, 3, 1.7, "proj")
	s.decompose(t)
	s.adaptTokens(t, 2)
	s.dropout = true
	for _, a := range s.train.Adapters {
		a.Dropout = 0.4
	}
	old := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(old)
	want, loss := s.grads(t, 2)
	for _, procs := range []int{1, 2, 7} {
		for _, slots := range []int{2, 3} {
			for _, a := range s.train.Adapters {
				a.norms = norms{} // as in another process
			}
			runtime.GOMAXPROCS(procs)
			got, gotLoss := s.grads(t, slots)
			require.Equal(t, loss, gotLoss, "%d processors, %d slots", procs, slots)
			require.Equal(t, want, got, "%d processors, %d slots", procs, slots)
		}
	}
}

func TestInitsOfAdapters(t *testing.T) {
	a := NewAdapter(layer(0, 100, 40), 8, 2, 0, 7)
	a.Gaussian("m", 7)
	require.NoError(t, a.Fill())
	var square float64
	for _, v := range a.A.Data {
		square += float64(v) * float64(v)
	}
	require.InDelta(t, 1.0/64, square/800, 2e-3)
	require.Zero(t, kernel.SumSquares(a.B.Data))

	x := arch.Tensor{Name: "e.weight", Template: &arch.Template{Part: "weight", Role: arch.Embedding}, Layer: -1, Dims: []int64{300, 20}}
	e := filled(t, NewEmbeddingAdapter(x, 4, 1, 1))
	require.Zero(t, kernel.SumSquares(e.A.Data))
	require.InDelta(t, 1, kernel.SumSquares(e.B.Data)/80, 0.4)
	require.Equal(t, "e.lora_embedding_A", e.A.Name)
	require.Equal(t, []int64{4, 300}, []int64(e.A.Shape))
	require.Equal(t, []int64{20, 4}, []int64(e.B.Shape))
}
