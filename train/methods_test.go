package train

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/engine"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
)

// The goldens of ../testdata/methods were made with PyTorch and PEFT; the script
// ../testdata/gen/peft_methods.py tells how.
const methodGoldens = "../testdata/methods"

// methodGolden is a case of expect.json.
type methodGolden struct {
	Model    string
	Key      uint64
	Settings struct {
		TargetModules     peft.Modules `json:"target_modules"`
		ExcludeModules    []string     `json:"exclude_modules"`
		LayersToTransform []int64      `json:"layers_to_transform"`
		InitLoRAWeights   string       `json:"init_lora_weights"`
	}
	LossSums []float64 `json:"loss_sums"`
	Labels   int
	Batch    [][]struct {
		Tokens   []int32
		LossFrom int `json:"loss_from"`
	}
}

func openModel(t *testing.T, dir string) Base {
	t.Helper()
	d, err := hf.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	a, err := arch.ParseConfig(d.Config())
	require.NoError(t, err)
	src, err := bnb.View(d, tensor.Invalid)
	require.NoError(t, err)
	return Base{Arch: a, Source: src, Codecs: codecs}
}

func openAdapter(t *testing.T, dir string) *peft.Adapter {
	t.Helper()
	ad, err := peft.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { ad.Close() })
	return ad
}

// config returns the settings that PEFT was given.
func (g *methodGolden) config(c *peft.Config) Config {
	cfg := DefaultConfig()
	if c.UseDoRA {
		cfg.FineTuneType = "dora"
	}
	cfg.Rank, cfg.Alpha, cfg.Dropout, cfg.UseRSLoRA = int(c.R), c.LoraAlpha, c.LoraDropout, c.UseRSLoRA
	cfg.RankPattern, cfg.AlphaPattern = c.RankPattern, c.AlphaPattern
	cfg.TargetModules, cfg.ExcludeModules, cfg.LayersToTransform = g.Settings.TargetModules.Names, g.Settings.ExcludeModules, g.Settings.LayersToTransform
	if re := g.Settings.TargetModules.Regex; re != "" {
		cfg.TargetModules = []string{re}
	}
	cfg.ModulesToSave, cfg.Bias = c.ModulesToSave, c.Bias
	if i := g.Settings.InitLoRAWeights; i != "" {
		cfg.InitLoRAWeights = i
	}
	return cfg
}

func methodGoldensOf(t *testing.T) map[string]*methodGolden {
	all := make(map[string]*methodGolden)
	readJSON(t, filepath.Join(methodGoldens, "expect.json"), &all)
	require.GreaterOrEqual(t, len(all), 16)
	return all
}

func (g *methodGolden) base(t *testing.T) Base {
	dir := filepath.Join(goldens, g.Model)
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Join("../testdata/families", g.Model)
	}
	return openModel(t, dir)
}

func (g *methodGolden) batches() (out []*model.Batch) {
	for _, micro := range g.Batch {
		b := &model.Batch{}
		for _, s := range micro {
			b.Add(s.Tokens, s.LossFrom)
		}
		out = append(out, b)
	}
	return out
}

// grads computes the gradients and the sums of the losses.
func (g *methodGolden) grads(t *testing.T, base Base, tr model.Trainable) []float64 {
	e, err := engine.New(base.Source, codecs, base.Arch, tr, engine.Options{Choices: engine.Choices{Slots: 2}, Positions: 128})
	require.NoError(t, err)
	defer e.Close()
	sums, err := e.Grad(context.Background(), g.batches(), func(k int) uint64 { return g.Key + uint64(k) }, 1/float32(g.Labels))
	require.NoError(t, err)
	return sums
}

func TestMethodsAgreeWithPEFT(t *testing.T) {
	for name, g := range methodGoldensOf(t) {
		t.Run(name, func(t *testing.T) {
			base := g.base(t)
			dir := filepath.Join(methodGoldens, name)
			ad := openAdapter(t, filepath.Join(dir, "adapter"))
			cfg := g.config(ad.Config)
			require.NoError(t, cfg.Validate())
			cfg.Start = Start{Adapter: ad}
			_, principal := cfg.PiSSA()
			if principal {
				cfg.Start = Start{Adapter: openAdapter(t, filepath.Join(dir, "initial")), Subtract: true}
			}
			tr, params, err := NewTrainable(base.Arch, base.Source, codecs, &cfg)
			require.NoError(t, err)
			filled(t, params)
			if principal {
				require.NoError(t, optim.LoadValues(params, ad))
			}
			sums := g.grads(t, base, tr)
			for k, want := range g.LossSums {
				require.InEpsilon(t, want, sums[k], 5e-6, "micro-batch %d", k)
			}
			grads := openTensors(t, filepath.Join(dir, "grads.safetensors"))
			n := 0
			for range grads.All() {
				n++
			}
			require.Equal(t, n, len(params), "everything that PEFT trains is trained here")
			for _, p := range params {
				_, want, err := codecs.ReadAll(grads, goldenName(grads, p.Name))
				require.NoError(t, err)
				require.Len(t, p.Grad, len(want))
				var top float64
				for _, v := range want {
					top = max(top, math.Abs(float64(v)))
				}
				for i, v := range want {
					require.InDelta(t, v, p.Grad[i], 1e-5*top+2e-7, "%s element %d", p.Name, i)
				}
			}

			// The configuration that is written means the same modules.
			written, err := cfg.PEFT(base.Arch)
			require.NoError(t, err)
			require.Equal(t, ad.Config.EnsureWeightTying, written.EnsureWeightTying)
			text, err := written.Encode()
			require.NoError(t, err)
			again, err := peft.ParseConfig(text)
			require.NoError(t, err)
			means, err := again.Targeted()
			require.NoError(t, err)
			scales, err := again.Scales()
			require.NoError(t, err)
			for _, x := range base.Arch.Tensors() {
				a := tr.Adapters[x.Module()]
				if x.Part != "weight" {
					continue
				}
				require.Equal(t, a != nil, means(x.Module()), x.Module())
				if a != nil {
					scale, err := scales(x.Module(), int(a.A.Shape[0]))
					require.NoError(t, err)
					require.Equal(t, float32(scale), a.Scale)
				}
			}
		})
	}
}

// TestPiSSAAgreesWithPEFT compares what adapters begin with, and what becomes of them in
// the end.
func TestPiSSAAgreesWithPEFT(t *testing.T) {
	for _, name := range []string{"pissa", "pissa_rslora"} {
		t.Run(name, func(t *testing.T) {
			g := methodGoldensOf(t)[name]
			base := g.base(t)
			dir := filepath.Join(methodGoldens, name)
			trained, initial := openAdapter(t, filepath.Join(dir, "adapter")), openAdapter(t, filepath.Join(dir, "initial"))
			cfg := g.config(trained.Config)
			for _, init := range []string{"pissa", "pissa_niter_12"} {
				cfg.InitLoRAWeights = init
				p, err := NewPrincipal(base, &cfg)
				require.NoError(t, err)
				made := make(map[string][]float32)
				require.NoError(t, p.Make(context.Background(), func(name string, values []float32) error {
					made[name] = values
					return nil
				}))
				require.Greater(t, p.Memory(), int64(0))
				for _, info := range p.Layout() {
					require.Len(t, made[info.Name], int(info.Shape.Elems()))
					module, ok := strings.CutSuffix(info.Name, ".lora_A.weight")
					if !ok {
						continue
					}
					// The singular vectors may point the other way; their product may not.
					_, a, err := codecs.ReadAll(initial, info.Name)
					require.NoError(t, err)
					b, wantB, err := codecs.ReadAll(initial, module+".lora_B.weight")
					require.NoError(t, err)
					r, in, out := int(info.Shape[0]), int(info.Shape[1]), int(b.Shape[0])
					want, got := make([]float32, in*out), make([]float32, in*out)
					require.NoError(t, kernel.Mul(want, wantB, out, kernel.Dense{Data: a, Rows: r, Cols: in}, false))
					require.NoError(t, kernel.Mul(got, made[module+".lora_B.weight"], out, kernel.Dense{Data: made[info.Name], Rows: r, Cols: in}, false))
					for i, v := range want {
						require.InDelta(t, v, got[i], 2e-5, "%s element %d", module, i)
					}
				}
			}

			c, whole, err := peft.WithoutInitial(trained.Config, trained, initial)
			require.NoError(t, err)
			converted := openAdapter(t, filepath.Join(dir, "converted"))
			require.Equal(t, converted.Config.R, c.R)
			require.InDelta(t, converted.Config.LoraAlpha, c.LoraAlpha, 1e-12)
			require.Equal(t, converted.Config.InitLoraWeights, c.InitLoraWeights)
			for info := range converted.All() {
				_, want, err := codecs.ReadAll(converted, info.Name)
				require.NoError(t, err)
				own, got, err := codecs.ReadAll(whole, info.Name)
				require.NoError(t, err)
				require.Equal(t, info.Shape, own.Shape)
				require.Equal(t, want, got, info.Name)
			}
		})
	}
}

// TestPiSSABeginsAsTheBase trains nothing yet: what is taken out of the base is what the
// adapters put in.
func TestPiSSABeginsAsTheBase(t *testing.T) {
	for _, kind := range []string{"lora", "dora"} {
		g := methodGoldensOf(t)["pissa"]
		base := g.base(t)
		initial := openAdapter(t, filepath.Join(methodGoldens, "pissa", "initial"))
		cfg := g.config(initial.Config)
		cfg.FineTuneType, cfg.Start = kind, Start{Adapter: initial, Subtract: true}
		tr, params, err := NewTrainable(base.Arch, base.Source, codecs, &cfg)
		require.NoError(t, err)
		filled(t, params)
		want := g.grads(t, base, model.Trainable{})
		for k, sum := range g.grads(t, base, tr) {
			require.InEpsilon(t, want[k], sum, 2e-6, kind)
		}
	}
}

func TestChoices(t *testing.T) {
	base, _ := tiny(t)
	tied := openModel(t, filepath.Join(goldens, "mha_tied"))
	gpt2 := openModel(t, "../testdata/families/gpt2")
	for says, c := range map[string]struct {
		base   Base
		change func(c *Config)
	}{
		`--target-modules "lm_head"`:  {tied, func(c *Config) { c.TargetModules = []string{"lm_head"} }},
		"--target-modules lm_head":    {base, func(c *Config) { c.TargetModules = []string{"lm_head"} }},
		"--target-modules model.norm": {base, func(c *Config) { c.TargetModules = []string{"norm"} }},
		"that may get an adapter none": {base, func(c *Config) {
			c.ExcludeModules = []string{"self_attn.q_proj", "k_proj", "v_proj", "o_proj", "mlp.gate_proj", "up_proj", "down_proj"}
		}},
		`"x_proj"`:                     {base, func(c *Config) { c.TargetModules = []string{"q_proj", "x_proj"} }},
		"the head of this model is":    {tied, func(c *Config) { c.ModulesToSave = []string{"lm_head"} }},
		"no module whose name ends so": {base, func(c *Config) { c.ModulesToSave = []string{"wte"} }},
		`--rank-pattern "lm_head"`:     {base, func(c *Config) { c.RankPattern = peft.Pattern{{Key: "lm_head", Value: 3}} }},
		`--alpha-pattern "o_pro"`:      {base, func(c *Config) { c.AlphaPattern = peft.Pattern{{Key: "o_pro", Value: 3}} }},
		"layers 0 to 2":                {base, func(c *Config) { c.LayersToTransform = []int64{3} }},
		"DoRA of embeddings":           {base, func(c *Config) { c.FineTuneType, c.TargetModules = "dora", []string{"embed_tokens"} }},
		"PiSSA of embeddings":          {base, func(c *Config) { c.InitLoRAWeights, c.TargetModules = "pissa", []string{"embed_tokens"} }},
		"singular values":              {base, func(c *Config) { c.InitLoRAWeights, c.Rank = "pissa", 1000 }},
		"--target-modules is empty":    {base, func(c *Config) { c.TargetModules = nil }},
		"transformer.wpe":              {gpt2, func(c *Config) { c.TargetModules = []string{"wpe"} }},
	} {
		cfg := tinyConfig()
		c.change(&cfg)
		_, _, err := NewTrainable(c.base.Arch, c.base.Source, codecs, &cfg)
		require.ErrorContains(t, err, says)
	}

	count := func(change func(c *Config)) int {
		cfg := tinyConfig()
		change(&cfg)
		require.NoError(t, cfg.Validate())
		tr, _, err := NewTrainable(base.Arch, base.Source, codecs, &cfg)
		require.NoError(t, err)
		return len(tr.Adapters)
	}
	require.Equal(t, 14, count(func(c *Config) { c.NumLayers = 2 }))
	require.Equal(t, 7, count(func(c *Config) { c.LayersToTransform = []int64{1} }))
	require.Equal(t, 18, count(func(c *Config) { c.ExcludeModules = []string{"q_proj"} }))
	require.Equal(t, 22, count(func(c *Config) { c.TargetModules = []string{"all-linear", "embed_tokens"} }))
	require.Equal(t, 4, count(func(c *Config) { c.TargetModules = []string{`re:.*layers\.[01]\.mlp\.(up|down)_proj`} }))
	require.Equal(t, 18, count(func(c *Config) { c.ModulesToSave = []string{"q_proj"} }), "what is saved has no adapter")
}

func TestMethodsValidate(t *testing.T) {
	for says, change := range map[string]func(c *Config){
		"--bias is":                                  func(c *Config) { c.Bias = "some" },
		"--init-lora-weights is":                     func(c *Config) { c.InitLoRAWeights = "pissa_niter_0" },
		"--lora-dtype is":                            func(c *Config) { c.LoRADType = "f16" },
		"--num-layers is 0":                          func(c *Config) { c.NumLayers = 0 },
		"both say which layers":                      func(c *Config) { c.NumLayers, c.LayersToTransform = 1, []int64{1} },
		"beside which PEFT knows no layers":          func(c *Config) { c.NumLayers, c.TargetModules = 1, []string{"re:.*q_proj"} },
		"rank_pattern":                               func(c *Config) { c.RankPattern = peft.Pattern{{Key: "q", Value: 1.5}} },
		"--bias is of adapters":                      func(c *Config) { c.FineTuneType, c.Bias = "full", "all" },
		"--modules-to-save is of adapters, and full": func(c *Config) { c.FineTuneType, c.ModulesToSave = "full", []string{"norm"} },
	} {
		c := DefaultConfig()
		change(&c)
		require.ErrorContains(t, c.Validate(), says)
	}
}

// TestStartOfAnotherModel goes on from adapters that do not fit.
func TestStartOfAnotherModel(t *testing.T) {
	g := methodGoldensOf(t)["dora"]
	base := g.base(t)
	for name, says := range map[string]string{"dora_bias": "its shape is", "embedding_tied": "its shape is", "dropout": "nothing that is trained"} {
		ad := openAdapter(t, filepath.Join(methodGoldens, name, "adapter"))
		cfg := g.config(ad.Config)
		cfg.Start = Start{Adapter: ad}
		if name == "dropout" {
			cfg.TargetModules = []string{"q_proj"}
		}
		if name == "dora_bias" {
			cfg.TargetModules = []string{"v_proj", "up_proj"}
		}
		_, _, err := NewTrainable(base.Arch, base.Source, codecs, &cfg)
		require.ErrorIs(t, err, tensor.ErrMalformed, name)
		require.ErrorContains(t, err, says, name)
		require.NotEmpty(t, hint.Of(err))
	}
}

func TestLoRAInBF16(t *testing.T) {
	base, _ := tiny(t)
	cfg := tinyConfig()
	cfg.LoRADType, cfg.ModulesToSave = "bf16", []string{"norm"}
	_, params, err := NewTrainable(base.Arch, base.Source, codecs, &cfg)
	require.NoError(t, err)
	for _, p := range filled(t, params) {
		if !strings.Contains(p.Name, ".lora_") {
			require.Equal(t, tensor.Invalid, p.DType)
			continue
		}
		require.Equal(t, tensor.BF16, p.DType)
		for _, v := range p.Data {
			require.Equal(t, kernel.BF16ToF32(kernel.F32ToBF16(v)), v)
		}
	}
}
