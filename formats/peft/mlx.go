package peft

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// MLXWeightsName is the file of an MLX adapter's tensors; its configuration is called as
// PEFT's is.
const MLXWeightsName = "adapters.safetensors"

// mlxConfig is the adapter_config.json that mlx_lm.lora writes: every argument of the
// training, of which these say what the tensors mean (mlx_lm/tuner/utils.py of 0.31,
// linear_to_lora_layers and load_adapters).
type mlxConfig struct {
	FineTuneType string         `json:"fine_tune_type"`
	Model        string         `json:"model"`
	NumLayers    int64          `json:"num_layers"`
	Parameters   *mlxParameters `json:"lora_parameters"`
}

type mlxParameters struct {
	Rank    int64    `json:"rank"`
	Scale   *float64 `json:"scale"` // multiplies as it is
	Dropout float64  `json:"dropout"`
}

// isMLX reports whether a configuration is that of an MLX adapter.
func isMLX(text []byte) bool {
	var has struct {
		PeftType     jsontext.Value `json:"peft_type"`
		Parameters   jsontext.Value `json:"lora_parameters"`
		FineTuneType jsontext.Value `json:"fine_tune_type"`
	}
	return json.Unmarshal(text, &has) == nil && has.PeftType == nil && (has.Parameters != nil || has.FineTuneType != nil)
}

// openMLX opens the directory of an MLX adapter, whose configuration was read, under the
// names and in the layout of Adapter.
func openMLX(dir string, text []byte) (*Adapter, error) {
	c, err := parseMLX(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, ConfigName), err)
	}
	path := filepath.Join(dir, MLXWeightsName)
	f, err := safetensors.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.Add(fmt.Errorf("%s: %w: no %s; its configuration is that of an MLX adapter", dir, tensor.ErrMalformed, MLXWeightsName),
			"mlx_lm writes it at the end of a training; one of its checkpoints will do under that name")
	}
	if err != nil {
		return nil, noWeights(dir, err)
	}
	config, table, err := fromMLX(f, c)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return NewAdapter(config, table, path, f), nil
}

func parseMLX(text []byte) (*mlxConfig, error) {
	c := &mlxConfig{FineTuneType: "lora"}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("%w: the configuration of an MLX adapter: %w", tensor.ErrMalformed, err)
	}
	switch {
	case c.FineTuneType == "full":
		return nil, hint.Add(fmt.Errorf("%w: fine_tune_type is full: whole weights, no adapter", tensor.ErrUnsupported), "mlx_lm.fuse makes a model of it")
	case c.FineTuneType != "lora" && c.FineTuneType != "dora":
		return nil, fmt.Errorf("%w: fine_tune_type %q", tensor.ErrUnsupported, c.FineTuneType)
	case c.Parameters == nil || c.Parameters.Scale == nil:
		return nil, hint.Add(fmt.Errorf("%w: lora_parameters has no scale, so the scale of the adapter is unknown", tensor.ErrMalformed),
			"add the scale of the training; MLX's default is 20")
	case *c.Parameters.Scale == 0:
		return nil, fmt.Errorf("%w: the scale is 0, so the adapter would change nothing", tensor.ErrMalformed)
	}
	return c, nil
}

// mlxEmbeddings are the last parts of the names of embeddings: MLX has the same names for
// their factors as for those of linear layers.
var mlxEmbeddings = []string{"embed_tokens", "wte", "wpe", "word_embeddings", "tok_embeddings"}

// mlxModules are what MLX calls the modules of families that have names of their own there,
// and what transformers does.
var mlxModules = []struct{ mlx, hf string }{
	{"model.h.", "transformer.h."},
	{"model.wte", "transformer.wte"},
	{"model.wpe", "transformer.wpe"},
}

// conv1D is how the names of modules begin whose weights transformers stores as [in, out].
const conv1D = "transformer.h."

// toHF and toMLX change the name of a module.
func toHF(module string) string {
	for _, m := range mlxModules {
		if rest, ok := strings.CutPrefix(module, m.mlx); ok {
			return m.hf + rest
		}
	}
	return module
}

func toMLX(module string) string {
	for _, m := range mlxModules {
		if rest, ok := strings.CutPrefix(module, m.hf); ok {
			return m.mlx + rest
		}
	}
	return module
}

func isEmbedding(module string) bool {
	return slices.Contains(mlxEmbeddings, module[strings.LastIndexByte(module, '.')+1:])
}

// fromMLX returns an adapter's tensors as PEFT has them: both factors are transposed, and
// alpha is scale times rank.
func fromMLX(src tensor.Source, c *mlxConfig) (*Config, *tensor.Table, error) {
	var entries []tensor.Entry
	var list []ModuleScale
	var modules []string
	config := NewConfig()
	for info := range src.All() {
		module, half := cutMLX(info.Name)
		hf := toHF(module)
		a, b := namesOf(hf, isEmbedding(module))
		switch {
		case half == "":
			return nil, nil, fmt.Errorf("tensor %q: %w: neither lora_a nor lora_b nor m, which an MLX adapter has", info.Name, tensor.ErrUnsupported)
		case half == ".m" && c.FineTuneType == "dora" && !isEmbedding(module):
			entries = append(entries, tensor.Forward(src, info, hf+suffixMagnitude))
			continue
		case half == ".m":
			return nil, nil, fmt.Errorf("tensor %q: %w: a magnitude of %s; of DoRA on embeddings MLX takes the norm of rows, PEFT that of columns", info.Name, tensor.ErrUnsupported, module)
		case len(info.Shape) == 3:
			return nil, nil, hint.Add(fmt.Errorf("tensor %q: %w: the experts of a layer as one, shape %v", info.Name, tensor.ErrUnsupported, info.Shape), "mlx_lm.fuse merges this adapter")
		case len(info.Shape) != 2 || info.Shape.Elems() == 0:
			return nil, nil, fmt.Errorf("tensor %q: %w: shape %v, want a matrix", info.Name, tensor.ErrMalformed, info.Shape)
		}
		rows := int(info.Shape[0])
		out := tensor.Info{Name: a, Shape: tensor.Shape{info.Shape[1], info.Shape[0]}}
		if half == ".lora_b" {
			out.Name = b
		} else {
			list = append(list, ModuleScale{hf, int(info.Shape[1]), *c.Parameters.Scale})
			modules = append(modules, hf)
		}
		config.FanInFanOut = config.FanInFanOut || strings.HasPrefix(hf, conv1D)
		entries = append(entries, computed(src, info.Name, out, func(x []float32) []float32 { return kernel.Transposed(x, rows, len(x)/rows) }))
	}
	if len(list) == 0 {
		return nil, nil, fmt.Errorf("%w: the adapter holds no lora_a", tensor.ErrMalformed)
	}
	table, err := tensor.NewTable(src.Meta(), entries)
	if err != nil {
		return nil, nil, err
	}
	config.TaskType, config.InferenceMode, config.BaseModel, config.LoraDropout = "CAUSAL_LM", true, c.Model, c.Parameters.Dropout
	config.TargetModules = TargetsOf(modules)
	config.SetModules(list)
	config.UseDoRA = c.FineTuneType == "dora"
	return config, table, nil
}

// cutMLX splits a tensor's name into its module and what it is of it.
func cutMLX(name string) (module, half string) {
	for _, half := range []string{".lora_a", ".lora_b", ".m"} {
		if module, ok := strings.CutSuffix(name, half); ok {
			return module, half
		}
	}
	return "", ""
}

// maxFilled is the most numbers that a factor may have when it is filled up with zeros to many
// times its size: no file is to ask for more memory than it has bytes, by far.
const maxFilled = 1 << 28

// ToMLX returns the tensors and the configuration of an MLX adapter. list has its modules.
//
// MLX has one rank and one scale for all modules. Where they differ, factors are filled up
// with zeros, and what a scale differs by goes into B, which rounds unless it is a power of
// two.
func ToMLX(a *Adapter, list []ModuleScale) (*tensor.Table, []byte, error) {
	dora := a.Config.UseDoRA
	rank, scale := 0, commonScale(list)
	var entries []tensor.Entry
	used := make(map[string]bool)
	for _, m := range list {
		rank = max(rank, m.Rank)
	}
	for _, m := range list {
		embedding := tensor.Has(a, m.Module+embeddingA)
		nameA, nameB := namesOf(m.Module, embedding)
		infoA, err := a.Info(nameA)
		if err != nil {
			return nil, nil, err
		}
		infoB, err := a.Info(nameB)
		if err != nil {
			return nil, nil, err
		}
		if len(infoA.Shape) != 2 || len(infoB.Shape) != 2 || embedding != isEmbedding(m.Module) {
			return nil, nil, fmt.Errorf("adapter tensor %q: %w: MLX has no such adapter of %s", nameA, tensor.ErrUnsupported, m.Module)
		}
		in, out, module := infoA.Shape[1], infoB.Shape[0], toMLX(m.Module)
		if most := max(in, out); int64(rank)*most > maxFilled && rank > 16*m.Rank {
			return nil, nil, fmt.Errorf("adapter tensor %q: %w: its rank is %d, that of another module %d, and MLX has one for all", nameA, tensor.ErrUnsupported, m.Rank, rank)
		}
		used[nameA], used[nameB] = true, true
		entries = append(entries,
			computed(a, nameA, tensor.Info{Name: module + ".lora_a", Shape: tensor.Shape{in, int64(rank)}}, func(x []float32) []float32 {
				return kernel.Transposed(append(x, make([]float32, (rank-m.Rank)*int(in))...), rank, int(in))
			}),
			computed(a, nameB, tensor.Info{Name: module + ".lora_b", Shape: tensor.Shape{int64(rank), out}}, func(x []float32) []float32 {
				return append(kernel.Transposed(scaled(x, m.Scale/scale), int(out), m.Rank), make([]float32, (rank-m.Rank)*int(out))...)
			}))
		if info, err := a.Info(m.Module + suffixMagnitude); err == nil && dora && !embedding {
			used[info.Name] = true
			entries = append(entries, tensor.Forward(a, info, module+".m"))
		}
	}
	for info := range a.All() {
		if !used[info.Name] {
			return nil, nil, hint.Add(fmt.Errorf("adapter tensor %q: %w: MLX adapters hold low-rank matrices only", info.Name, tensor.ErrUnsupported), "merge the adapter, and convert the model")
		}
	}
	slices.SortFunc(entries, func(x, y tensor.Entry) int { return strings.Compare(x.Info.Name, y.Info.Name) })
	table, err := tensor.NewTable(nil, entries)
	if err != nil {
		return nil, nil, err
	}
	text, err := encodeMLX(a.Config, list, rank, scale, dora)
	return table, text, err
}

// commonScale returns the scale that most modules have.
func commonScale(list []ModuleScale) float64 {
	count, best := make(map[float64]int), list[0].Scale
	for _, m := range list {
		count[m.Scale]++
	}
	for _, m := range list {
		if count[m.Scale] > count[best] && m.Scale != 0 {
			best = m.Scale
		}
	}
	if best == 0 || math.IsNaN(best) {
		return 1
	}
	return best
}

// encodeMLX returns the text of the configuration. All layers get an adapter where the keys
// say so; those that are in no file begin at zero and change nothing.
func encodeMLX(c *Config, list []ModuleScale, rank int, scale float64, dora bool) ([]byte, error) {
	var keys []string
	for _, m := range list {
		module := toMLX(m.Module)
		key := module
		// MLX looks for a key among the names within a layer and among whole names.
		if _, rest, ok := cutLayer(module); ok {
			key = rest
		}
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	kind := "lora"
	if dora {
		kind = "dora"
	}
	return json.Marshal(map[string]any{
		"fine_tune_type": kind,
		"model":          c.BaseModel,
		"num_layers":     -1,
		"lora_parameters": map[string]any{
			"rank": rank, "scale": scale, "dropout": c.LoraDropout, "keys": keys,
		},
	}, json.Deterministic(true), jsontext.WithIndent("    "))
}

// MLX reports whether the adapter was read from an MLX directory.
func (a *Adapter) MLX() bool { return filepath.Base(a.path) == MLXWeightsName }
