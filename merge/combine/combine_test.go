package combine

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/tensor"
)

// values are rows in memory.
type values struct {
	data []float32
	cols int64
}

func (v values) ReadRows(dst []float32, row int64) error {
	copy(dst, v.data[row*v.cols:][:len(dst)])
	return nil
}

// normal returns rows of random numbers, as many digits as asked for.
func normal(shape tensor.Shape, seed uint64, digits float64) values {
	rng := rand.New(rand.NewPCG(seed, 1))
	v := values{make([]float32, shape.Elems()), shape.Cols()}
	for i := range v.data {
		v.data[i] = float32(math.Round(rng.NormFloat64()*digits) / digits)
	}
	return v
}

func read(t *testing.T, rows tensor.Rows, shape tensor.Shape) []float32 {
	t.Helper()
	out := make([]float32, shape.Elems())
	require.NoError(t, rows.ReadRows(out, 0))
	return out
}

// run combines inputs of one shape after change has changed the defaults.
func run(t *testing.T, method string, shape tensor.Shape, change func(p *Params), inputs ...tensor.Rows) []float32 {
	t.Helper()
	m, err := ByName(method)
	require.NoError(t, err)
	p := m.Defaults(len(inputs), false)
	if change != nil {
		change(&p)
	}
	rows, err := m.Combine("w", shape, inputs, p)
	require.NoError(t, err)
	return read(t, rows, shape)
}

// ofRows are the methods that combine any rows.
func ofRows() []Method {
	return slices.DeleteFunc(Methods(), func(m Method) bool { return m.LowRank })
}

var shapes = []tensor.Shape{{}, {1}, {7}, {5, 9}, {300, 1}, {3, 90000}, {2, 3, 4}, {0, 4}, {4, 0}}

func TestLeadingSetsAreThoseOfASort(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, shape := range shapes {
		for _, digits := range []float64{1e9, 8, 1} {
			v := normal(shape, 3, digits)
			n := len(v.data)
			if n > panel && digits != 8 {
				continue // once is enough
			}
			if n > 3 { // every corner of float32
				copy(v.data, []float32{0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, -math.MaxFloat32})
			}
			order := make([]int, n)
			for _, direction := range []uint32{ascending, descending} {
				for i := range order {
					order[i] = i
				}
				slices.SortStableFunc(order, func(a, b int) int {
					c := cmp.Compare(math.Abs(float64(v.data[a])), math.Abs(float64(v.data[b])))
					if direction == descending {
						return -c
					}
					return c
				})
				place := make([]int64, n)
				for i, o := range order {
					place[o] = int64(i)
				}
				counts := []*count{}
				for _, k := range []int64{-1, 0, 1, int64(n) / 3, int64(n) / 2, int64(n) - 1, int64(n), int64(n) + 1, rng.Int64N(int64(n) + 1)} {
					counts = append(counts, &count{n: k, leading: leading{order: direction}})
				}
				require.NoError(t, lead(shape, v, counts))
				for _, c := range counts {
					for i, x := range v.data {
						if has := c.has(x, int64(i)); has != 0 != (place[i] < c.n) {
							require.Equal(t, place[i] < c.n, has != 0, "%v: %v in the first %d", shape, x, c.n)
						}
					}
				}
			}
		}
	}
}

// TestDensityIsExact counts what stays.
func TestDensityIsExact(t *testing.T) {
	shape := tensor.Shape{30, 41}
	v := normal(shape, 1, 2)
	for i := range v.data {
		if v.data[i] == 0 {
			v.data[i] = 0.5
		}
	}
	for _, method := range []string{"ties", "magnitude_prune", "breadcrumbs", "breadcrumbs_ties"} {
		for _, density := range []float64{0, 0.001, 0.3, 0.77, 0.999, 1} {
			got := run(t, method, shape, func(p *Params) { p.Each[0].Density, p.Each[0].Gamma = density, 0.05 }, v)
			kept := len(got) - len(slices.DeleteFunc(slices.Clone(got), func(x float32) bool { return x != 0 }))
			require.Equal(t, int(density*float64(len(got))), kept, "%s %v", method, density)
		}
	}
	// No large element is dropped where a share of them is none.
	got := run(t, "breadcrumbs", tensor.Shape{10}, func(p *Params) { p.Each[0].Density = 0.5 }, normal(tensor.Shape{10}, 1, 1e9))
	require.Equal(t, 5, len(got)-len(slices.DeleteFunc(got, func(x float32) bool { return x != 0 })))
}

func TestOrderDoesNotMatterForSums(t *testing.T) {
	shape := tensor.Shape{9, 11}
	a, b, c := normal(shape, 1, 1e9), normal(shape, 2, 1e9), normal(shape, 3, 1e9)
	for _, method := range []string{"linear", "task_arithmetic", "ties", "magnitude_prune", "breadcrumbs", "breadcrumbs_ties", "model_stock"} {
		set := func(w ...float64) func(p *Params) {
			return func(p *Params) {
				for i := range p.Each {
					p.Each[i].Weight, p.Each[i].Density = w[i], w[i]
				}
			}
		}
		require.Equal(t, run(t, method, shape, set(0.9, 0.5, 0.3), a, b, c), run(t, method, shape, set(0.3, 0.9, 0.5), c, a, b), method)
	}
}

func TestDensityOneIsTheSum(t *testing.T) {
	shape := tensor.Shape{8, 6}
	a, b := normal(shape, 1, 1e9), normal(shape, 2, 1e9)
	weight := func(p *Params) { p.Each[0].Weight, p.Each[1].Weight = 0.7, -0.4 }
	want := run(t, "linear", shape, weight, a, b)
	for i := range want {
		require.Equal(t, float32(0.7*float64(a.data[i])-0.4*float64(b.data[i])), want[i])
	}
	for _, method := range []string{"task_arithmetic", "dare_linear", "magnitude_prune", "breadcrumbs", "della_linear"} {
		require.Equal(t, want, run(t, method, shape, weight, a, b), method)
	}
	// An input that has zeros may be left out.
	zero := values{make([]float32, shape.Elems()), shape.Cols()}
	for _, m := range ofRows() {
		n := max(2, m.Least)
		with, without := make([]tensor.Rows, n), make([]tensor.Rows, n)
		for i := range with {
			with[i], without[i] = zero, nil
		}
		with[1], without[1] = b, b
		require.Equal(t, run(t, m.Name, shape, nil, with...), run(t, m.Name, shape, nil, without...), m.Name)
	}
}

func TestTiesOfOneIsWhatIsTrimmed(t *testing.T) {
	shape := tensor.Shape{20, 30}
	v := normal(shape, 4, 1e9)
	got := run(t, "ties", shape, func(p *Params) { p.Each[0].Density = 0.25 }, v)
	magnitudes := make([]float64, len(v.data))
	for i, x := range v.data {
		magnitudes[i] = math.Abs(float64(x))
	}
	slices.Sort(magnitudes)
	least := magnitudes[len(magnitudes)*3/4]
	for i, x := range v.data {
		if math.Abs(float64(x)) >= least {
			require.Equal(t, x, got[i])
		} else {
			require.Zero(t, got[i])
		}
	}
	// Of equal inputs it is each of them.
	require.Equal(t, v.data, run(t, "ties", shape, nil, v, v, v))
}

func TestSlerpEnds(t *testing.T) {
	shape := tensor.Shape{6, 7}
	a, b := normal(shape, 1, 1e9), normal(shape, 2, 1e9)
	at := func(x float64) func(*Params) { return func(p *Params) { p.T = x } }
	require.Equal(t, a.data, run(t, "slerp", shape, at(0), a, b))
	require.Equal(t, b.data, run(t, "slerp", shape, at(1), a, b))
	require.Equal(t, a.data, run(t, "slerp", shape, at(0.4), a, a), "the way is straight, and has no length")
	// Half way between vectors of one length is as long.
	for i := range b.data {
		b.data[i] = a.data[len(a.data)-1-i]
	}
	half := run(t, "slerp", shape, at(0.5), a, b)
	require.InDelta(t, norm1Squared(a.data), norm1Squared(half), 1e-4)
}

func norm1Squared(x []float32) (sum float64) {
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

func TestStockOfEqualModelsIsThatModel(t *testing.T) {
	shape := tensor.Shape{6, 7}
	for _, scale := range []float32{1, 1e-6} { // mergekit bends what is small
		a := normal(shape, 1, 1e9)
		for i := range a.data {
			a.data[i] *= scale
		}
		for _, rows := range []bool{false, true} {
			got := run(t, "model_stock", shape, func(p *Params) { p.FilterWise = rows }, a, a, a)
			for i, x := range a.data {
				require.InEpsilon(t, x, got[i], 1e-6)
			}
		}
	}
	a, b := normal(shape, 1, 1e9), normal(shape, 1, 1e9)
	for i := range b.data {
		b.data[i] = -b.data[i]
	}
	require.Equal(t, make([]float32, len(a.data)), run(t, "model_stock", shape, nil, a, b), "they cancel: the base stays")
}

// TestRandomMethods checks what is drawn by its statistics: how much stays, that it does not
// hang together, and that the mean is what was there.
func TestRandomMethods(t *testing.T) {
	shape := tensor.Shape{400, 250}
	ones := values{slices.Repeat([]float32{1}, 100000), 250}
	const density = 0.3
	draw := func(method string, seed uint64, name string, inputs ...tensor.Rows) []float32 {
		m, err := ByName(method)
		require.NoError(t, err)
		p := m.Defaults(len(inputs), false)
		p.Seed, p.Rescale, p.Normalize = seed, NoRescale, false
		for i := range p.Each {
			p.Each[i].Density, p.Each[i].Weight = density, math.Pow(2, float64(i))
		}
		rows, err := m.Combine(name, shape, inputs, p)
		require.NoError(t, err)
		return read(t, rows, shape)
	}
	const n, deviation = 100000, 4 // standard deviations
	for _, method := range []string{"dare_linear", "della_linear"} {
		both := draw(method, 1, "w", ones, ones)
		var counts [4]float64
		var after float64
		for i, x := range both {
			counts[int(x)]++
			if i > 0 && int(x)&1 == 1 && int(both[i-1])&1 == 1 {
				after++
			}
		}
		for k, p := range []float64{(1 - density) * (1 - density), density * (1 - density), density * (1 - density), density * density} {
			if method == "dare_linear" {
				require.InDelta(t, n*p, counts[k], deviation*math.Sqrt(n*p*(1-p)), "%s: %d", method, k)
			}
		}
		require.InDelta(t, n*density, counts[1]+counts[3], deviation*math.Sqrt(n*density*(1-density)), method)
		if method == "dare_linear" {
			require.InDelta(t, n*density*density, after, deviation*math.Sqrt(n*density*density), "neighbours")
		}
		require.Equal(t, both, draw(method, 1, "w", ones, ones), "the same seed")
		for what, other := range map[string][]float32{"seed": draw(method, 2, "w", ones, ones), "tensor": draw(method, 1, "v", ones, ones)} {
			same := 0.0
			for i := range both {
				if int(both[i])&1 == int(other[i])&1 {
					same++
				}
			}
			p := density*density + (1-density)*(1-density)
			if method == "dare_linear" {
				require.InDelta(t, n*p, same, deviation*math.Sqrt(n*p*(1-p)), "another %s", what)
			}
			require.NotEqual(t, both, other)
		}
	}

	// What was dropped is made up for.
	v := normal(shape, 9, 1e9)
	for i, x := range v.data {
		v.data[i] = float32(math.Abs(float64(x)))
	}
	for _, method := range []string{"dare_linear", "della_linear"} {
		for _, how := range []Rescale{RescaleL1, RescaleDensity} {
			got := run(t, method, shape, func(p *Params) { p.Each[0].Density, p.Rescale = density, how }, v)
			require.InEpsilon(t, norm1(v.data), norm1(got), map[Rescale]float64{RescaleL1: 1e-6, RescaleDensity: 0.02}[how], "%s", method)
		}
	}
	// DELLA keeps large elements rather than small ones.
	got := run(t, "della_linear", shape, func(p *Params) { p.Each[0].Density, p.Each[0].Epsilon, p.Rescale = 0.5, 0.4, NoRescale }, v)
	require.Greater(t, norm1(got), 0.6*norm1(v.data))
}

// TestAnyOrderOfReading reads pieces of a combination from several goroutines.
func TestAnyOrderOfReading(t *testing.T) {
	shape := tensor.Shape{40, 9}
	a, b := normal(shape, 1, 4), normal(shape, 2, 4)
	for _, m := range ofRows() {
		p := m.Defaults(2, false)
		for i := range p.Each {
			p.Each[i].Density = 0.4
		}
		rows, err := m.Combine("w", shape, []tensor.Rows{a, b}, p)
		require.NoError(t, err)
		d := Added("w", rows)
		got, back := make([]float32, 360), make([]float32, 360)
		var wg sync.WaitGroup
		for row := 39; row >= 0; row -= 3 {
			wg.Go(func() {
				for r := row; r > max(-1, row-3); r-- {
					if err := errors.Join(d.AddRows(got[9*r:][:9], int64(r), 1), d.AddRows(back[9*r:][:9], int64(r), -2)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		want := read(t, rows, shape)
		require.Equal(t, want, got, m.Name)
		for i, x := range want {
			require.Equal(t, -2*x, back[i])
		}
	}
}

func TestShapesOfAnyKind(t *testing.T) {
	for _, shape := range shapes {
		a, b := normal(shape, 1, 4), normal(shape, 2, 4)
		for _, m := range ofRows() {
			p := m.Defaults(2, false)
			for i := range p.Each {
				p.Each[i].Density = 0.5
			}
			rows, err := m.Combine("w", shape, []tensor.Rows{a, b}, p)
			require.NoError(t, err)
			require.NoError(t, finite(read(t, rows, shape), 0), "%s %v", m.Name, shape)
		}
	}
}

type failing struct{ error }

func (f failing) ReadRows([]float32, int64) error { return f.error }

func TestWhatIsRefused(t *testing.T) {
	shape := tensor.Shape{3, 4}
	v := normal(shape, 1, 4)
	bad := normal(shape, 1, 4)
	bad.data[7] = float32(math.NaN())
	for _, m := range ofRows() {
		p := m.Defaults(2, false)
		for i := range p.Each {
			p.Each[i].Density = 0.5
		}
		broken := errors.New("disk")
		rows, err := m.Combine("w", shape, []tensor.Rows{v, failing{broken}}, p)
		require.NoError(t, err)
		require.ErrorIs(t, rows.ReadRows(make([]float32, 12), 0), broken, m.Name)
		switch m.Name {
		case "linear", "task_arithmetic", "model_stock", "dare_ties":
		case "ties", "breadcrumbs", "slerp":
			rows, err = m.Combine("w", shape, []tensor.Rows{v, bad}, p)
			require.NoError(t, err)
			err = rows.ReadRows(make([]float32, 12), 0)
			require.ErrorIs(t, err, tensor.ErrMalformed, m.Name)
			require.ErrorContains(t, err, "element 7 of what is combined is NaN")
		}
		if m.Least > 1 {
			require.ErrorContains(t, m.Check(1), fmt.Sprint(m.Least))
		}
	}
	m, err := ByName("slerp")
	require.NoError(t, err)
	require.ErrorContains(t, m.Check(3), "at most 2, not 3")
	_, err = m.Parameter("weight")
	require.ErrorContains(t, err, "slerp takes no weight")
	require.Contains(t, hint.Of(err), "t")
	_, err = m.Parameter("wieght")
	require.ErrorContains(t, err, `unknown parameter "wieght"`)
	_, err = ByName("tise")
	require.Contains(t, hint.Of(err), "ties")

	della, err := ByName("della")
	require.NoError(t, err)
	p := della.Defaults(1, false)
	p.Each[0].Density, p.Each[0].Epsilon = 0.9, 0.2
	_, err = della.Combine("w", shape, []tensor.Rows{v}, p)
	require.ErrorContains(t, err, `tensor "w"`)
	require.ErrorContains(t, err, "density 0.9 and epsilon 0.2")
	require.Contains(t, hint.Of(err), "0.1")
}

func TestParameters(t *testing.T) {
	used := make(map[string]bool)
	for _, m := range Methods() {
		for _, name := range m.Uses {
			require.NotNil(t, ParameterByName(name), "%s of %s", name, m.Name)
			used[name] = true
		}
	}
	for name, c := range map[string]struct{ good, bad []any }{
		"weight":               {[]any{1.0, -3.5, 0.0}, []any{"1", true, math.NaN(), math.Inf(1), nil}},
		"density":              {[]any{0.0, 0.4, 1.0}, []any{-0.1, 1.1, "half"}},
		"gamma":                {[]any{0.5}, []any{2.0}},
		"epsilon":              {[]any{0.5}, []any{-1.0}},
		"lambda":               {[]any{-1.5}, []any{"x"}},
		"t":                    {[]any{0.5}, []any{1.5}},
		"normalize":            {[]any{true, false}, []any{1.0, "yes"}},
		"rescale":              {[]any{true, false, "l1", "density", "none"}, []any{"l2", 1.0}},
		"majority_sign_method": {[]any{"total", "frequency"}, []any{"sum", true}},
		"filter_wise":          {[]any{true}, []any{"true"}},
		"seed":                 {[]any{0.0, 42.0}, []any{-1.0, 0.5, 1e300, "7"}},
		"int8_mask":            {[]any{true}, []any{3.0}},
		"rank":                 {[]any{8.0}, []any{0.5}},
	} {
		q := ParameterByName(name)
		require.NotNil(t, q, name)
		p := Params{Each: make([]Each, 2)}
		for _, v := range c.good {
			require.NoError(t, q.Set(&p, 1, v), "%s %v", name, v)
		}
		for _, v := range c.bad {
			require.ErrorContains(t, q.Set(&p, 1, v), name+": ", "%s %v", name, v)
		}
		delete(used, name)
	}
	require.Empty(t, used, "parameters without a test")
}

func TestDeltasAreRows(t *testing.T) {
	shape := tensor.Shape{4, 5}
	a, b := normal(shape, 1, 1e9), normal(shape, 2, 1e9)
	sum := read(t, Of(Added("w", a), merge.Scaled(Added("w", b), 2)), shape)
	less := read(t, Difference(values{sum, 5}, values{slices.Clone(b.data), 5}), shape)
	for i := range sum {
		require.Equal(t, a.data[i]+2*b.data[i], sum[i])
		require.Equal(t, sum[i]-b.data[i], less[i])
	}
}
