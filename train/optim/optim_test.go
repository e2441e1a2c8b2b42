package optim

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

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

// TestAdamW follows two steps by the formula, in float64. That whole runs agree
// with torch is tested in package train.
func TestAdamW(t *testing.T) {
	ps := params()
	o, err := New("adamw", Options{WeightDecay: 0.1})
	require.NoError(t, err)
	require.Equal(t, "adamw", o.Name())
	require.Equal(t, int64(80), o.StateBytes(10))
	var want, m, v [2][]float64
	for i, p := range ps {
		for _, x := range p.Data {
			want[i] = append(want[i], float64(x))
		}
		m[i], v[i] = make([]float64, len(p.Data)), make([]float64, len(p.Data))
	}
	for step := 1; step <= 2; step++ {
		setGrads(ps, float32(step))
		o.Step(step, 0.01, ps)
		for i, p := range ps {
			for j := range want[i] {
				g := float64(step) * float64(j+1)
				m[i][j] = 0.9*m[i][j] + 0.1*g
				v[i][j] = 0.999*v[i][j] + 0.001*g*g
				if p.Decay {
					want[i][j] -= 0.01 * 0.1 * want[i][j]
				}
				mh, vh := m[i][j]/(1-math.Pow(0.9, float64(step))), v[i][j]/(1-math.Pow(0.999, float64(step)))
				want[i][j] -= 0.01 * mh / (math.Sqrt(vh) + 1e-8)
				require.InDelta(t, want[i][j], p.Data[j], 1e-6, "%s[%d] after step %d", p.Name, j, step)
			}
		}
	}
}

func TestStateRoundTrip(t *testing.T) {
	for _, name := range Names() {
		a, b := params(), params()
		oa, err := New(name, Options{})
		require.NoError(t, err)
		setGrads(a, 1)
		oa.Step(1, 0.1, a)

		state := oa.State(a)
		tensortest.TestSource(t, state)
		ob, err := New(name, Options{})
		require.NoError(t, err)
		require.NoError(t, LoadValues(b, Values(a)))
		require.NoError(t, ob.Load(b, state))
		for _, x := range []struct {
			o  Optimizer
			ps []*Param
		}{{oa, a}, {ob, b}} {
			setGrads(x.ps, -3)
			x.o.Step(2, 0.1, x.ps)
		}
		for i := range a {
			require.Equal(t, a[i].Data, b[i].Data)
		}

		require.ErrorIs(t, ob.Load(b, Values(a)), tensor.ErrNotFound, "a state that lacks a moment")
		b[0].Shape = tensor.Shape{3, 2}
		require.ErrorIs(t, ob.Load(b, state), tensor.ErrMalformed, "a state of another shape")
	}
	_, err := New("none", Options{})
	require.ErrorContains(t, err, "adamw")
}

func TestLoadValues(t *testing.T) {
	ps := params()
	wrong := tensortest.NewSource(t, nil, tensortest.Tensor{
		Info: tensor.Info{Name: "w", DType: tensor.F16, Shape: tensor.Shape{2, 3}}, Data: make([]byte, 12),
	})
	require.ErrorIs(t, LoadValues(ps, wrong), tensor.ErrMalformed)
}

func TestClip(t *testing.T) {
	ps := params()
	setGrads(ps, 1)
	norm := math.Sqrt(1 + 4 + 9 + 16 + 25 + 36 + 1 + 4)
	require.InDelta(t, norm, GradNorm(ps), 1e-9)
	require.InDelta(t, norm, Clip(ps, 0), 1e-9)
	require.InDelta(t, norm, Clip(ps, 100), 1e-9)
	require.InDelta(t, norm, GradNorm(ps), 1e-9, "neither no limit nor a high one changes anything")
	require.InDelta(t, norm, Clip(ps, 2), 1e-9, "the norm before clipping")
	require.InDelta(t, 2, GradNorm(ps), 1e-5)
	ZeroGrad(ps)
	require.Zero(t, GradNorm(ps))
}
