package optim

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// numbers are those of the script that made the goldens.
func numbers(name string, step, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		z := mix(uint64(len(name))<<56 + uint64(step)<<32 + uint64(i))
		out[i] = float32(math.Ldexp(float64(int64(z>>40)-1<<23), -23-i%7))
	}
	return out
}

// every is the distance of the matrix's elements that are stored.
const every = 32

func sampled(x []float32) (out []float32) {
	for i := 0; i < len(x); i += every {
		out = append(out, x[i])
	}
	return out
}

// TestStepsAgreeWithPeers follows runs of torch's, transformers' and bitsandbytes'
// optimizers; testdata/README.md tells of them.
func TestStepsAgreeWithPeers(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "steps.json"))
	require.NoError(t, err)
	var golden struct {
		Runs map[string]struct {
			LR          float64
			WeightDecay float64 `json:"weight_decay"`
			Betas       [2]float64
			Eps         float64
			Momentum    float64
		}
	}
	require.NoError(t, json.Unmarshal(text, &golden))
	src, err := safetensors.Open(filepath.Join("testdata", "steps.safetensors"))
	require.NoError(t, err)
	defer src.Close()
	for run, c := range map[string]struct {
		optimizer string

		// weights is how far weights of about 1 may be off, state moments relative to the
		// largest. Torch multiplies and adds in one rounding where we round twice.
		weights, state float64

		// fields are the names of the state here and there.
		fields map[string]string
	}{
		"adamw":        {"adamw", 3e-7, 1e-6, map[string]string{".exp_avg": "exp_avg", ".exp_avg_sq": "exp_avg_sq"}},
		"adamw_betas":  {"adamw", 3e-7, 1e-6, map[string]string{".exp_avg": "exp_avg", ".exp_avg_sq": "exp_avg_sq"}},
		"adamw_8bit":   {"adamw_8bit", 1e-5, 1e-6, map[string]string{".state1": "state1", ".state2": "state2", ".absmax1": "absmax1", ".absmax2": "absmax2"}},
		"lion":         {"lion", 3e-7, 1e-6, map[string]string{".exp_avg": "state1"}},
		"sgd":          {"sgd", 3e-7, 1e-6, nil},
		"sgd_momentum": {"sgd", 1e-6, 1e-6, map[string]string{".momentum_buffer": "momentum_buffer"}},
		"adafactor":    {"adafactor", 1e-6, 1e-6, map[string]string{".exp_avg_sq": "exp_avg_sq", ".exp_avg_sq_row": "exp_avg_sq_row", ".exp_avg_sq_col": "exp_avg_sq_col"}},
	} {
		t.Run(run, func(t *testing.T) {
			g, there := golden.Runs[run]
			require.True(t, there)
			o, err := New(c.optimizer, Options{WeightDecay: g.WeightDecay, Beta1: g.Betas[0], Beta2: g.Betas[1], Eps: g.Eps, Momentum: g.Momentum})
			require.NoError(t, err)
			for _, p := range []*Param{
				{Name: "matrix", Shape: tensor.Shape{4, 1100}, Decay: true}, {Name: "small", Shape: tensor.Shape{6, 5}, Decay: true}, {Name: "vector", Shape: tensor.Shape{37}},
			} {
				n := int(p.Shape.Elems())
				p.Data = numbers(p.Name, 0, n)
				var state [][]byte
				for _, f := range o.State(p) {
					state = append(state, kernel.Bytes(make([]float32, (f.Info(p).Size()+3)/4))[:f.Info(p).Size()])
				}
				want := tensortest.Floats(t, src, run+"."+p.Name)
				worst := 0.0
				for step := 1; step <= 20; step++ {
					p.Grad = numbers(p.Name, step, n)
					o.Step(step, g.LR*(1-float64(step)/64), p, state)
					got := p.Data
					if p.Name == "matrix" {
						got = sampled(got)
					}
					for i, v := range got {
						worst = max(worst, math.Abs(float64(v-want[(step-1)*len(got)+i])))
					}
				}
				t.Logf("%s: weights are off by at most %.2g", p.Name, worst)
				require.LessOrEqual(t, worst, c.weights, p.Name)
				for k, f := range o.State(p) {
					name := run + "." + p.Name + "." + c.fields[f.Suffix]
					if f.DType == tensor.U8 {
						// A moment on the border of two codes may have the other.
						other := 0
						for i, code := range tensortest.Bytes(t, src, name) {
							if d := int(code) - int(state[k][i]); d != 0 {
								require.InDelta(t, 0, d, 1)
								other++
							}
						}
						t.Logf("%s: %d of %d codes differ", name, other, n)
						require.Less(t, other, n/100)
						continue
					}
					got := kernel.Floats(state[k])
					if p.Name == "matrix" && len(got) == n {
						got = sampled(got)
					}
					want := tensortest.Floats(t, src, name)
					require.Len(t, want, len(got))
					top := float64(kernel.Absmax(want))
					for i := range want {
						require.InDelta(t, want[i], got[i], c.state*top, "%s[%d]", name, i)
					}
				}
			}
		})
	}
}

// What codes of 8 bits stand for is as bitsandbytes has it, to the bit.
func TestDynamicMapsAreThePeers(t *testing.T) {
	src, err := safetensors.Open(filepath.Join("testdata", "maps.safetensors"))
	require.NoError(t, err)
	defer src.Close()
	for name, signed := range map[string]bool{"signed": true, "unsigned": false} {
		got := kernel.DynamicMap(signed)
		require.Equal(t, tensortest.Floats(t, src, name), got[:])
	}
}
