package model

import (
	"encoding/json"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/train/optim"
)

// gradGolden is a grads.json of ../../testdata/families.
type gradGolden struct {
	MicroBatches [][]struct {
		Tokens   []int32
		LossFrom int `json:"loss_from"`
	} `json:"micro_batches"`
	Full, LoRA struct {
		Rank  int
		Alpha float32

		LossSums []float64 `json:"loss_sums"`

		// Gradients are the norm of each, and its product with uniform numbers.
		Gradients map[string][2]float64
	}
}

// TestGradientsAgreeWithPyTorch takes a checkpoint of every family through the
// micro-batches of its golden, training everything and then an adapter on every
// linear layer, routers too, and compares every gradient: its norm, its product
// with numbers made up from its name, and some of them element by element. The
// goldens are in float64; transformers' own float32 is up to 1e-5 off.
func TestGradientsAgreeWithPyTorch(t *testing.T) {
	list, err := filepath.Glob(filepath.Join(families, "*", "grads.json"))
	require.NoError(t, err)
	require.Len(t, list, 18, "every checkpoint has gradients")
	for _, path := range list {
		dir := filepath.Dir(path)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var g gradGolden
		require.NoError(t, json.Unmarshal(text, &g))
		whole, err := safetensors.Open(filepath.Join(dir, "grads.safetensors"))
		require.NoError(t, err)
		defer whole.Close()

		s := openFamily(t, dir)
		for _, micro := range g.MicroBatches {
			var list []sequence
			for _, x := range micro {
				list = append(list, sequence{x.Tokens, x.LossFrom})
			}
			s.micro = append(s.micro, list)
		}
		check := func(t *testing.T, losses []float64, gradients map[string][2]float64) {
			got := s.pass(t, 2)
			require.Len(t, got, len(losses))
			for k, want := range losses {
				require.InEpsilon(t, want, got[k], 2e-6, "loss of micro-batch %d", k)
			}
			require.Len(t, s.params(), len(gradients))
			for _, p := range s.params() {
				want, ok := gradients[p.Name]
				require.True(t, ok, "PyTorch trains no %s", p.Name)
				var square, product float64
				for i, v := range uniform(p.Name, len(p.Grad)) {
					square += float64(p.Grad[i]) * float64(p.Grad[i])
					product += float64(p.Grad[i]) * v
				}
				allowed := 1e-5 * want[0]
				require.InDelta(t, want[0], math.Sqrt(square), allowed, "norm of the gradient of %s", p.Name)
				require.InDelta(t, want[1], product, allowed, "product with the gradient of %s, the norm of which is %g", p.Name, want[0])
			}
			seen := 0
			for _, p := range s.params() {
				if _, err := whole.Info(p.Name); err != nil {
					continue
				}
				seen++
				_, want, err := codecs.ReadAll(whole, p.Name)
				require.NoError(t, err)
				for i, v := range want {
					require.InDelta(t, v, p.Grad[i], 2e-5*gradients[p.Name][0], "gradient of %s, element %d", p.Name, i)
				}
			}
			require.NotZero(t, seen)
		}
		t.Run(filepath.Base(dir)+"/full", func(t *testing.T) {
			s.train = Trainable{Params: map[string]*optim.Param{}}
			for _, x := range s.arch.Tensors() {
				_, v, err := codecs.ReadAll(s.src, x.Name)
				require.NoError(t, err)
				p := &optim.Param{Name: x.Name, Shape: x.Dims, Layer: x.Layer, Init: optim.Copy(v)}
				require.NoError(t, p.Fill())
				s.train.Params[x.Name] = p
			}
			check(t, g.Full.LossSums, g.Full.Gradients)
		})
		t.Run(filepath.Base(dir)+"/lora", func(t *testing.T) {
			s.train = Trainable{Adapters: map[string]*Adapter{}}
			for _, x := range s.arch.Tensors() {
				if _, ok := g.LoRA.Gradients[x.Module()+".lora_A.weight"]; !ok || x.Part != "weight" {
					require.False(t, x.Linear, "no golden for an adapter of %s", x.Name)
					continue
				}
				ad := NewAdapter(x, g.LoRA.Rank, g.LoRA.Alpha/float32(g.LoRA.Rank), 0, 1)
				require.NoError(t, ad.Fill())
				for p, scale := range map[*optim.Param]float64{ad.A: 0.5, ad.B: 0.25} {
					for i, v := range uniform(p.Name, len(p.Data)) {
						p.Data[i] = float32(v * scale)
					}
				}
				s.train.Adapters[x.Module()] = ad
			}
			check(t, g.LoRA.LossSums, g.LoRA.Gradients)
		})
	}
}

// openFamily opens a checkpoint of a family.
func openFamily(t *testing.T, dir string) *setup {
	d, err := hf.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	a, err := arch.ParseConfig(d.Config())
	require.NoError(t, err)
	src, err := convert.Canonical(d, a)
	require.NoError(t, err)
	return &setup{arch: a, src: src}
}

// uniform returns n numbers in [-1, 1) that follow from a name: those of
// ../../testdata/gen/family_grads.py.
func uniform(name string, n int) []float64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	out := make([]float64, n)
	for i := range out {
		// mix adds splitmix64's increment once itself.
		z := mix(h.Sum64() + uint64(i)*0x9e3779b97f4a7c15)
		out[i] = float64(z>>40)/(1<<23) - 1
	}
	return out
}
