package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDynamicMaps(t *testing.T) {
	s, u := signedMap(), unsignedMap()
	require.Equal(t, uint8(127), s.zero)
	require.Equal(t, uint8(0), u.zero)
	// As create_dynamic_map gives them.
	require.InEpsilon(t, float32(-0.99296874), s.values[0], 1e-6)
	require.InEpsilon(t, float32(5.5e-7), s.values[128], 1e-6)
	require.InEpsilon(t, float32(3.25e-6), s.values[129], 1e-6)
	require.InEpsilon(t, float32(3.25e-7), u.values[1], 1e-6)
	require.InEpsilon(t, float32(7.75e-7), u.values[2], 1e-6)
	require.InEpsilon(t, float32(0.9964844), u.values[254], 1e-6)
	for _, d := range []*dynamicMap{s, u} {
		require.Equal(t, float32(1), d.values[255])
		for i := range 255 {
			require.Less(t, d.values[i], d.values[i+1])
		}
	}
}

// TestEncode8 compares the table with a search: at the bounds, beside them, at the
// ends of the cells of the table, and random.
func TestEncode8(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	for _, d := range []*dynamicMap{signedMap(), unsignedMap()} {
		var x []float32
		for _, b := range append(d.bounds[:255], d.values[:]...) {
			x = append(x, b, math.Nextafter32(b, 2), math.Nextafter32(b, -2))
		}
		for k := range mapKeys {
			v := math.Float32frombits(uint32(k+firstKey) << keyShift)
			x = append(x, v, -v, math.Nextafter32(v, 0), -math.Nextafter32(v, 0))
		}
		for range 20000 {
			v := float32(math.Exp2(-30 * rng.Float64()))
			x = append(x, v, -v)
		}
		x = append(x, 0, float32(math.Copysign(0, -1)), 1e-40, -1e-40)
		for i, v := range x {
			x[i] = max(min(v, 1), -1)
			if d.zero == 0 {
				x[i] = max(v, 0)
			}
		}
		eachVariant(t, func(t *testing.T) {
			for _, top := range []float32{1, 0x1p-100, 0x1p100} {
				scaled := make([]float32, len(x))
				for i, v := range x {
					scaled[i] = v * top
				}
				codes := make([]uint8, len(x))
				use.encode8(codes, scaled, d, top)
				for i, c := range codes {
					require.Equal(t, d.search(scaled[i]/top), c, "%v", x[i])
				}
			}
		})
	}
}

func TestMoments8Lengths(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	d := signedMap()
	eachVariant(t, func(t *testing.T) {
		for _, n := range lengths() {
			guarded(t, []int{4 * n, n}, func(b [][]byte) {
				x, codes := floatsOf(b[0]), b[1]
				copy(x, normal(rng, n))
				top := use.magnitude(x)
				require.Equal(t, magnitudeGo(x), top)
				if n == 0 {
					top = 1
				}
				want := make([]uint8, n)
				encode8Go(want, x, d, top)
				use.encode8(codes, x, d, top)
				require.Equal(t, want, codes)
				Decode8(x, codes, &d.values, 1.7)
				for i, c := range codes {
					require.Equal(t, d.values[c]*1.7, x[i])
				}
			})
		}
	})
}

// update8 is a step of AdamW8 as its definition has it, moments by moment.
func update8(a AdamW, w []float32, s *Moments8, g []float32) {
	m, v := make([]float32, len(w)), make([]float32, len(w))
	for i := range w {
		m[i] = signedMap().values[s.M[i]] * s.MScale[i/block8]
		v[i] = unsignedMap().values[s.V[i]] * s.VScale[i/block8]
	}
	c := a.constants()
	adamWGo(w, m, v, g, &c)
	for b := range s.MScale {
		var tm, tv float32
		for i := b * block8; i < min(len(w), (b+1)*block8); i++ {
			tm, tv = max(tm, float32(math.Abs(float64(m[i])))), max(tv, v[i])
		}
		s.MScale[b], s.VScale[b] = tm, tv
		for i := b * block8; i < min(len(w), (b+1)*block8); i++ {
			s.M[i], s.V[i] = 127, 0
			if tm > 0 {
				s.M[i] = signedMap().search(m[i] / tm)
			}
			if tv > 0 {
				s.V[i] = unsignedMap().search(v[i] / tv)
			}
		}
	}
}

func TestAdamW8(t *testing.T) {
	const n = 5000
	eachVariant(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(25, 26))
		w, g := normal(rng, n), make([]float32, n)
		want := append([]float32(nil), w...)
		got, def := NewMoments8(n), NewMoments8(n)
		for step := 1; step <= 5; step++ {
			for i := range g {
				g[i] = float32(rng.NormFloat64() * math.Exp(3*rng.NormFloat64()))
				if i/block8 == 2 {
					g[i] = 0 // a block whose moments stay 0
				}
			}
			a := AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1, Step: step}
			AdamW8{a}.Update(w, got, g)
			update8(a, want, def, g)
			require.Equal(t, want, w)
			require.Equal(t, def, got)
		}
		m, v := make([]float32, n-512), make([]float32, n-512)
		got.Decode(m, v, 512)
		for i := range m {
			require.Equal(t, signedMap().values[got.M[512+i]]*got.MScale[2+i/block8], m[i])
			require.Equal(t, unsignedMap().values[got.V[512+i]]*got.VScale[2+i/block8], v[i])
		}
	})
	withWorkers(t, func() []float32 {
		rng := rand.New(rand.NewPCG(27, 28))
		w, s := normal(rng, 20000), NewMoments8(20000)
		AdamW8{AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: 1}}.Update(w, s, normal(rng, 20000))
		return append(append(w, s.MScale...), s.VScale...)
	})
}

// TestAdamW8Follows has both kinds of moments find the same minimum.
func TestAdamW8Follows(t *testing.T) {
	const n, steps = 4096, 400
	rng := rand.New(rand.NewPCG(29, 30))
	aim := normal(rng, n)
	a := AdamW{LR: 0.02, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}
	w8, w32, s := make([]float32, n), make([]float32, n), NewMoments8(n)
	m, v, g := make([]float32, n), make([]float32, n), make([]float32, n)
	gap := func(w []float32) (sum float64) {
		for i := range w {
			d := float64(w[i] - aim[i])
			sum += d * d / n
		}
		return sum
	}
	for a.Step = 1; a.Step <= steps; a.Step++ {
		for i := range g {
			g[i] = w8[i] - aim[i]
		}
		AdamW8{a}.Update(w8, s, g)
		for i := range g {
			g[i] = w32[i] - aim[i]
		}
		a.Update(w32, m, v, g)
	}
	require.Less(t, gap(w32), 1e-3)
	require.Less(t, gap(w8), 3e-3)
}

func TestAdamW8NotFinite(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			w, g, s := make([]float32, 600), make([]float32, 600), NewMoments8(600)
			g[300] = bad
			a := AdamW8{AdamW{LR: 0.1, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: 1}}
			a.Update(w, s, g)
			require.Equal(t, float32(0), w[299])
			require.True(t, w[300] != w[300])
			a.Update(w, s, make([]float32, 600))
			require.Equal(t, float32(0), w[255])
			require.True(t, w[256] != w[256], "the block stays spoilt")
			require.Equal(t, float32(0), w[512])
		}
	})
}

func BenchmarkAdamW8(b *testing.B) {
	const n = 1 << 16
	rng := rand.New(rand.NewPCG(31, 32))
	w, g := normal(rng, n), normal(rng, n)
	s, m, v := NewMoments8(n), make([]float32, n), make([]float32, n)
	a := AdamW{LR: 1e-4, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: 1}
	for _, x := range variants() {
		b.Run("8bit/"+x.name, func(b *testing.B) {
			with(b, x)
			for b.Loop() {
				AdamW8{a}.Update(w, s, g)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
		})
		b.Run("32bit/"+x.name, func(b *testing.B) {
			with(b, x)
			for b.Loop() {
				a.Update(w, m, v, g)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
		})
	}
}
