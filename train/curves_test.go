package train

import (
	"context"
	"hash/crc32"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/engine"
	"github.com/seed18967229/nibble/train/optim"
)

// The goldens of ../testdata/curves are runs of transformers' Trainer with PEFT and
// bitsandbytes; ../testdata/README.md tells how they were made.
const curves = "../testdata/curves"

// curve is one run of theirs.
type curve struct {
	Settings struct {
		Model, Base, Method string

		Rank          int     `json:"r"`
		Alpha         float64 `json:"lora_alpha"`
		TargetModules any     `json:"target_modules"`
		UseRSLoRA     bool    `json:"use_rslora"`
		UseDoRA       bool    `json:"use_dora"`

		InitLoRAWeights   any          `json:"init_lora_weights"`
		RankPattern       peft.Pattern `json:"rank_pattern"`
		AlphaPattern      peft.Pattern `json:"alpha_pattern"`
		LayersToTransform []int64      `json:"layers_to_transform"`
		ModulesToSave     []string     `json:"modules_to_save"`

		Optimizer       string
		AdamBeta2       float64 `json:"adam_beta2"`
		Momentum        float64
		LoraPlusLRRatio float64 `json:"loraplus_lr_ratio"`

		LearningRate float64 `json:"learning_rate"`
		Schedule     string
		WarmupSteps  int     `json:"warmup_steps"`
		WeightDecay  float64 `json:"weight_decay"`
		MaxGradNorm  float64 `json:"max_grad_norm"`
		BatchSize    int     `json:"batch_size"`
		Accumulate   int
	}
	Noise         float64
	Losses        []float64
	GradNorms     []float64 `json:"grad_norms"`
	LearningRates []float64 `json:"learning_rates"`
}

// config returns nibble's configuration of the same run.
func (c *curve) config() Config {
	s, cfg := &c.Settings, DefaultConfig()
	cfg.Iters, cfg.MaxSeqLength = len(c.Losses), 64
	cfg.Optimizer, cfg.LearningRate, cfg.LRSchedulerType = s.Optimizer, s.LearningRate, s.Schedule
	cfg.AdamBeta2, cfg.Momentum, cfg.LoraPlusLRRatio = s.AdamBeta2, s.Momentum, s.LoraPlusLRRatio
	cfg.WarmupSteps, cfg.WeightDecay, cfg.MaxGradNorm = s.WarmupSteps, s.WeightDecay, s.MaxGradNorm
	cfg.BatchSize, cfg.GradAccumulationSteps = s.BatchSize, s.Accumulate
	cfg.FineTuneType = s.Method
	if s.Method == "full" {
		return cfg
	}
	if s.UseDoRA {
		cfg.FineTuneType = "dora"
	}
	cfg.Rank, cfg.Alpha, cfg.UseRSLoRA, cfg.RankPattern, cfg.AlphaPattern = s.Rank, s.Alpha, s.UseRSLoRA, s.RankPattern, s.AlphaPattern
	cfg.LayersToTransform, cfg.ModulesToSave = s.LayersToTransform, s.ModulesToSave
	if init, ok := s.InitLoRAWeights.(string); ok {
		cfg.InitLoRAWeights = init
	}
	if targets, ok := s.TargetModules.([]any); ok {
		cfg.TargetModules = nil
		for _, t := range targets {
			cfg.TargetModules = append(cfg.TargetModules, t.(string))
		}
	}
	return cfg
}

func TestLossCurvesAgreeWithPyTorch(t *testing.T) {
	var runs map[string]*curve
	readJSON(t, filepath.Join(curves, "runs.json"), &runs)
	var examples map[string][]struct {
		Tokens   []int32
		LossFrom int `json:"loss_from"`
	}
	readJSON(t, filepath.Join(curves, "examples.json"), &examples)
	bases := map[string]Base{
		"tiny f32":    openGolden(t, "gqa", ".").base,
		"tiny nf4":    openGolden(t, "gqa", "nf4").base,
		"stories f32": openBase(t, "../cmd/nibble/demo/stories260K"),
		"stories nf4": quantizedBase(t, "../cmd/nibble/demo/stories260K"),
	}
	for _, name := range slices.Sorted(maps.Keys(runs)) {
		want := runs[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &want.Settings
			cfg := want.config()
			require.NoError(t, cfg.Validate())
			require.Len(t, want.Losses, 50)
			var list []data.Example
			for _, x := range examples[s.Model] {
				list = append(list, lossFrom(x.Tokens, x.LossFrom))
			}
			base := bases[s.Model+" "+s.Base]
			if _, principal := cfg.PiSSA(); principal {
				cfg.Start = principalStart(t, base, cfg)
			}
			out := &discard{}
			r, err := New(base, cfg, inOrder(list, cfg), nil, &Plan{Choices: engine.Choices{Slots: 2}}, out)
			require.NoError(t, err)
			defer r.Close()
			for _, p := range r.Params() {
				// Those of PiSSA nibble has from the base, as PEFT does.
				if cfg.InitLoRAWeights == "default" && (strings.HasSuffix(p.Name, ".lora_A.weight") || strings.HasSuffix(p.Name, ".lora_embedding_B")) {
					p.Init = func(dst []float32) error { startValues(p, dst); return nil }
				}
			}
			_, err = r.Train(context.Background())
			require.NoError(t, err)
			require.Len(t, out.records, len(want.Losses))
			var worst, norms float64
			for i, got := range out.records {
				worst = max(worst, math.Abs(got.Loss-want.Losses[i]))
				norms = max(norms, math.Abs(got.GradNorm-want.GradNorms[i])/want.GradNorms[i])
				require.InDelta(t, want.LearningRates[i], got.LearningRate, 1e-7*s.LearningRate, "step %d", i+1)
			}
			t.Logf("%s: losses within %.1e, gradient norms within %.1e of their size (PyTorch of itself %.1e)", name, worst, norms, want.Noise)
			// Sign steps and codes of 8 bits turn a last bit into a step of its own.
			require.Less(t, worst, min(1e-3, max(1e-4, 10*want.Noise)))
		})
	}
}

// startValues are those of a parameter that the goldens' runs began with: uniform in
// ±1/sqrt(columns), from its name alone, by SplitMix64.
func startValues(p *optim.Param, dst []float32) {
	z := uint64(crc32.ChecksumIEEE([]byte(strings.TrimSuffix(p.Name, ".weight")))) << 32
	bound := float32(1 / math.Sqrt(float64(p.Shape.Cols())))
	for i := range dst {
		z += 0x9e3779b97f4a7c15
		x := (z ^ z>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
		dst[i] = (float32(x>>40)/(1<<23) - 1) * bound
	}
}

// principalStart is what a run with PiSSA begins with.
func principalStart(t *testing.T, base Base, cfg Config) Start {
	t.Helper()
	p, err := NewPrincipal(base, &cfg)
	require.NoError(t, err)
	values := make(map[string][]float32)
	require.NoError(t, p.Make(context.Background(), func(name string, x []float32) error {
		values[name] = slices.Clone(x)
		return nil
	}))
	var params []*optim.Param
	for _, info := range p.Layout() {
		params = append(params, &optim.Param{Name: info.Name, Shape: info.Shape, Data: values[info.Name]})
	}
	return Start{Adapter: optim.Values(params), Subtract: true}
}

// lossFrom is an example with loss on the tokens from one on.
func lossFrom(tokens []int32, from int) data.Example {
	loss := make([]bool, len(tokens))
	for j := range loss {
		loss[j] = j >= from
	}
	return data.Example{Tokens: tokens, Loss: loss}
}

// shuffled is examples that a run takes in the order of the list, over and over.
type shuffled struct {
	list []data.Example
	at   []int // by the number of the example in the run's own order
}

func inOrder(list []data.Example, cfg Config) shuffled {
	s := shuffled{list, make([]int, cfg.Iters*cfg.BatchSize*cfg.GradAccumulationSteps)}
	for i, number := range data.Permutation(cfg.Seed, 0, len(s.at)) {
		s.at[number] = i % len(list)
	}
	return s
}

func (s shuffled) Len() int                            { return len(s.at) }
func (s shuffled) Example(i int) (data.Example, error) { return s.list[s.at[i]], nil }

func openBase(t *testing.T, dir string) Base {
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

// quantizedBase is a model in NF4 with double quantization, as QLoRA has it.
func quantizedBase(t *testing.T, dir string) Base {
	t.Helper()
	plain := openBase(t, dir)
	p, _, err := bnb.Plan(plain.Source, codecs, nf4Options(plain.Arch))
	require.NoError(t, err)
	d, err := hf.Open(dir)
	require.NoError(t, err)
	defer d.Close()
	out := filepath.Join(t.TempDir(), "nf4")
	w, err := hf.Create(out, hf.Options{Files: []hf.SideFile{{Name: hf.ConfigName, Data: d.Config()}}})
	require.NoError(t, err)
	require.NoError(t, pipeline.Run(context.Background(), p, plain.Source, w))
	return openBase(t, out)
}

// nf4Options is how transformers quantizes a model's linear layers.
func nf4Options(a *arch.Model) bnb.Options {
	o := bnb.Options{Type: tensor.NF4, BlockSize: 64, DoubleQuant: true, Head: "lm_head"}
	for _, x := range a.Tensors() {
		if x.Linear {
			o.Linear = append(o.Linear, x.Name)
		}
	}
	return o
}
