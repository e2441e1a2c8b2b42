package optim

import (
	"fmt"
	"math"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

func TestSchedules(t *testing.T) {
	// The values are those of transformers' get_*_schedule_with_warmup, which
	// counts steps from 0.
	for _, c := range []struct {
		typ  string
		want []float64
	}{
		{"constant", []float64{0, .5, 1, 1, 1, 1}},
		{"constant_with_warmup", []float64{0, .5, 1, 1, 1, 1}},
		{"linear", []float64{0, .5, 1, .75, .5, .25}},
		{"cosine", []float64{0, .5, 1, .5 * (1 + math.Sqrt2/2), .5, .5 * (1 - math.Sqrt2/2)}},
	} {
		s := Schedule{Type: c.typ, LR: 2, Warmup: 2, Total: 6}
		require.NoError(t, s.Validate())
		for i, w := range c.want {
			require.InDelta(t, 2*w, s.At(i+1), 1e-12, "%s, step %d", c.typ, i+1)
		}
		for step := 7; step < 10; step++ {
			require.GreaterOrEqual(t, s.At(step), 0.0, "beyond the end")
		}
	}
	require.Error(t, Schedule{Type: "none"}.Validate())
	require.Error(t, Schedule{Type: "constant", Warmup: -1}.Validate())
	require.Equal(t, 3.0, Schedule{Type: "cosine", LR: 3, Total: 1}.At(1))
}

func params() []*Param {
	list := []*Param{
		{Name: "w", Shape: tensor.Shape{2, 3}, Init: Copy([]float32{1, -2, 3, -4, 5, -6}), Decay: true},
		{Name: "b", Shape: tensor.Shape{2}, Init: Copy([]float32{0.5, -0.5})},
	}
	for _, p := range list {
		if err := p.Fill(); err != nil {
			panic(err)
		}
	}
	return list
}

func setGrads(ps []*Param, scale float32) {
	for _, p := range ps {
		for i := range p.Grad {
			p.Grad[i] = scale * float32(i+1)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name, canonical string
		paged           bool
	}{
		{"adamw_torch", "adamw", false}, {"paged_adamw_32bit", "adamw", true}, {"adamw_bnb_8bit", "adamw_8bit", false},
		{"paged_adamw_8bit", "adamw_8bit", true}, {"lion_32bit", "lion", false}, {"sgd", "sgd", false}, {"unknown", "unknown", false},
	} {
		require.Equal(t, c.canonical, Canonical(c.name))
		require.Equal(t, c.paged, Paged(c.name))
	}
	for _, name := range Names() {
		o, err := New(name, DefaultOptions())
		require.NoError(t, err)
		require.Equal(t, name, o.Name())
	}
	_, err := New("none", Options{})
	require.ErrorContains(t, err, "adamw")
	for says, o := range map[string]Options{"beta1": {Beta1: 1}, "beta2": {Beta2: -1}, "epsilon": {Eps: math.NaN()}, "momentum": {Momentum: 2}, "weight decay": {WeightDecay: -1}} {
		_, err := New("adamw", o)
		require.ErrorContains(t, err, says)
	}
}

func TestStates(t *testing.T) {
	small, matrix, list := &Param{Name: "p", Shape: tensor.Shape{4095}}, &Param{Name: "p", Shape: tensor.Shape{64, 65}}, &Param{Name: "p", Shape: tensor.Shape{2, 3, 5}}
	for _, c := range []struct {
		name string
		o    Options
		p    *Param
		want string
	}{
		{"adamw", Options{}, small, "p.exp_avg F32 [4095] p.exp_avg_sq F32 [4095] "},
		{"adamw_8bit", Options{}, small, "p.state1 F32 [4095] p.state2 F32 [4095] "},
		{"adamw_8bit", Options{}, matrix, "p.state1 U8 [64, 65] p.state2 U8 [64, 65] p.absmax1 F32 [17] p.absmax2 F32 [17] "},
		{"lion", Options{}, matrix, "p.exp_avg F32 [64, 65] "},
		{"sgd", Options{}, matrix, ""},
		{"sgd", Options{Momentum: 0.5}, matrix, "p.momentum_buffer F32 [64, 65] "},
		{"adafactor", Options{}, small, "p.exp_avg_sq F32 [4095] "},
		{"adafactor", Options{}, matrix, "p.exp_avg_sq_row F32 [64] p.exp_avg_sq_col F32 [65] "},
		{"adafactor", Options{}, list, "p.exp_avg_sq_row F32 [2, 3] p.exp_avg_sq_col F32 [2, 5] "},
	} {
		o, err := New(c.name, c.o)
		require.NoError(t, err)
		got := ""
		for _, f := range o.State(c.p) {
			info := f.Info(c.p)
			got += fmt.Sprintf("%s %v %v ", info.Name, info.DType, info.Shape)
		}
		require.Equal(t, c.want, got)
	}
}

// TestAdafactorOfMatrices has a tensor of three dimensions change as its matrices do,
// but for the bound on the whole update.
func TestAdafactorOfMatrices(t *testing.T) {
	a := adafactor{}
	whole := &Param{Shape: tensor.Shape{2, 2, 3}, Data: make([]float32, 12), Grad: make([]float32, 12)}
	for i := range whole.Grad {
		whole.Grad[i] = float32(i*i%7) - 3
	}
	one := &Param{Shape: tensor.Shape{2, 3}, Data: make([]float32, 6), Grad: append([]float32(nil), whole.Grad[6:]...)}
	state := func(floats ...int) (s [][]byte) {
		for _, n := range floats {
			s = append(s, kernel.Bytes(make([]float32, n)))
		}
		return s
	}
	ws, os := state(4, 6), state(2, 3)
	a.Step(1, 0.1, whole, ws)
	a.Step(1, 0.1, one, os)
	require.Equal(t, kernel.Floats(ws[0])[2:], kernel.Floats(os[0]))
	require.Equal(t, kernel.Floats(ws[1])[3:], kernel.Floats(os[1]))
	ratio := whole.Data[6] / one.Data[0]
	for i := range one.Data {
		require.InEpsilon(t, ratio, whole.Data[6+i]/one.Data[i], 1e-5)
	}
}

func TestStochasticRounding(t *testing.T) {
	const n = 1 << 16
	p := &Param{Name: "w", DType: tensor.BF16}
	fill := func() {
		p.Data = make([]float32, n)
		for i := range p.Data {
			p.Data[i] = 1 + 0x1p-9 // a quarter of the way from 1 to the next
		}
	}
	fill()
	r := Rounding{Stochastic: true, Seed: 3}
	r.Round(5, p)
	up := 0
	for _, v := range p.Data {
		if v != 1 {
			require.Equal(t, float32(1+0x1p-7), v)
			up++
		}
	}
	require.InDelta(t, n/4, up, 5*math.Sqrt(n*3/16), "five standard deviations")

	again := append([]float32(nil), p.Data...)
	old := runtime.GOMAXPROCS(1)
	fill()
	r.Round(5, p)
	runtime.GOMAXPROCS(old)
	require.Equal(t, again, p.Data, "the same whoever does it")
	for _, other := range []func(){func() { r.Round(6, p) }, func() { p.Name = "v"; r.Round(5, p) }, func() { Rounding{true, 4}.Round(5, p) }} {
		fill()
		other()
		require.NotEqual(t, again, p.Data)
	}

	exact := []float32{0, 1, -2.5, 0x1p-126, float32(math.Inf(1)), float32(math.Inf(-1))}
	p.Data = append([]float32(nil), exact...)
	r.Round(1, p)
	require.Equal(t, exact, p.Data)
	p.Data = []float32{math.Float32frombits(0x7fffffff), math.Float32frombits(0xff800001)}
	r.Round(1, p)
	for _, v := range p.Data {
		require.True(t, v != v, "NaN stays one")
	}
	p.Data = []float32{1 + 0x1p-9}
	Rounding{}.Round(1, p)
	require.Equal(t, float32(1), p.Data[0])
	p.DType, p.Data = tensor.Invalid, []float32{1 + 0x1p-9}
	r.Round(1, p)
	require.Equal(t, float32(1+0x1p-9), p.Data[0])
}

func TestFirstValuesAreRounded(t *testing.T) {
	p := &Param{Shape: tensor.Shape{1}, DType: tensor.BF16, Init: Copy([]float32{1 + 0x1p-9})}
	require.NoError(t, p.Fill())
	require.Equal(t, []float32{1}, p.Data)
}

func TestRate(t *testing.T) {
	require.Equal(t, 2.0, (&Param{}).Rate(2))
	require.Equal(t, 32.0, (&Param{LRScale: 16}).Rate(2))
}

func TestValues(t *testing.T) {
	a, b := params(), params()
	setGrads(a, 1)
	a[0].Data[3] = 7
	tensortest.TestSource(t, Values(a))
	require.NoError(t, LoadValues(b, Values(a)))
	for i := range a {
		require.Equal(t, a[i].Data, b[i].Data)
	}
	wrong := tensortest.NewSource(t, nil, tensortest.Tensor{
		Info: tensor.Info{Name: "w", DType: tensor.F16, Shape: tensor.Shape{2, 3}}, Data: make([]byte, 12),
	})
	require.ErrorIs(t, LoadValues(b, wrong), tensor.ErrMalformed)
	b[0].Shape = tensor.Shape{3, 2}
	require.ErrorIs(t, LoadValues(b, Values(a)), tensor.ErrMalformed)
	b[0].Name = "v"
	require.ErrorIs(t, LoadValues(b, Values(a)), tensor.ErrNotFound)
}

func TestClipScale(t *testing.T) {
	ps := params()
	setGrads(ps, 1)
	norm := GradNorm(ps)
	require.InDelta(t, math.Sqrt(1+4+9+16+25+36+1+4), norm, 1e-9)
	require.Equal(t, float32(1), ClipScale(norm, 0), "no limit")
	require.Equal(t, float32(1), ClipScale(norm, 100))
	require.InDelta(t, 2/norm, ClipScale(norm, 2), 1e-6)
	ZeroGrad(ps)
	require.Zero(t, GradNorm(ps))
	require.Equal(t, float32(1), ClipScale(0, 1))
}
