package recipe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge/combine"
)

func parsed(t *testing.T, text string) *Recipe {
	t.Helper()
	r, err := Parse([]byte(text))
	require.NoError(t, err)
	return r
}

const ties = `
merge_method: ties
base_model: base
models:
  - model: base
  - model: one
    parameters:
      density: [0.2, 0.5, 1]
      weight: 0.7
  - {model: two, parameters: {weight: [{filter: mlp, value: [0.1, 0.9]}, {filter: norm, value: 3}]}}
adapters:
  - adapter: three
    parameters:
      weight: -1.5
parameters:
  density: 0.6
  weight:
    - filter: norm
      value: 4
    - value: 2
  lambda:
    - filter: "*"
      value: [1, 2]
  int8_mask: yes
  majority_sign_method: frequency
dtype: float32
out_dtype: torch.bfloat16
tokenizer_source: base
`

func TestParams(t *testing.T) {
	r := parsed(t, ties)
	require.NoError(t, r.Plan())
	require.Equal(t, "base", r.Base)
	require.Equal(t, "bfloat16", r.DType)
	require.Equal(t, []Part{{"one", false}, {"two", false}, {"three", true}}, r.Parts, "the base adds nothing to itself")
	require.False(t, r.Absolute)
	require.NoError(t, r.Covers(99))

	at := func(name string, layer int) combine.Params {
		p, err := r.Params(Place{Tensor: name, Layer: layer, Layers: 5})
		require.NoError(t, err)
		return p
	}
	p := at("layers.0.mlp.up_proj.weight", 0)
	require.Equal(t, []float64{0.7, 0.1, -1.5}, []float64{p.Each[0].Weight, p.Each[1].Weight, p.Each[2].Weight})
	require.Equal(t, []float64{0.2, 0.6, 0.6}, []float64{p.Each[0].Density, p.Each[1].Density, p.Each[2].Density})
	require.Equal(t, 1.0, p.Lambda)
	require.True(t, p.Normalize, "the method's own default")
	require.True(t, p.Frequency)

	p = at("layers.1.mlp.up_proj.weight", 1)
	require.InDelta(t, 0.35, p.Each[0].Density, 1e-15)
	require.InDelta(t, 0.3, p.Each[1].Weight, 1e-15)
	require.InDelta(t, 1.25, p.Lambda, 1e-15)
	p = at("layers.4.mlp.up_proj.weight", 4)
	require.Equal(t, []float64{1, 0.9, 2}, []float64{p.Each[0].Density, p.Each[1].Weight, p.Lambda})

	p = at("layers.4.self_attn.q_proj.weight", 4)
	require.Equal(t, 2.0, p.Each[1].Weight, "no case of its own, so that of all")
	p = at("layers.4.norm.weight", 4)
	require.Equal(t, 3.0, p.Each[1].Weight)
	p = at("embed.weight", -1)
	require.Equal(t, []float64{0.2, 2, 1}, []float64{p.Each[0].Density, p.Each[1].Weight, p.Lambda}, "outside of the layers the first of a gradient")
	p, err := r.Params(Place{Tensor: "layers.0.x", Layer: 0, Layers: 1})
	require.NoError(t, err)
	require.Equal(t, 2.0, p.Lambda, "the only layer is the last")
}

func TestSlices(t *testing.T) {
	r := parsed(t, `
slices:
  - sources:
      - {model: one, layer_range: [0, 3], parameters: {weight: [0, 1]}}
      - {model: two, layer_range: [0, 3]}
    parameters: {weight: 0.3}
  - sources:
      - {model: one, layer_range: [3, 4]}
      - {model: two, layer_range: [3, 4], parameters: {weight: [5, 6]}}
merge_method: linear
parameters: {weight: 0.6}
`)
	require.NoError(t, r.Plan())
	require.True(t, r.Absolute)
	require.NoError(t, r.Covers(4))
	require.ErrorContains(t, r.Covers(5), "end at layer 4, the model has 5")
	for _, c := range []struct {
		place    Place
		one, two float64
	}{
		{Place{Layer: 0}, 0, 0.3}, {Place{Layer: 1}, 0.5, 0.3}, {Place{Layer: 2}, 1, 0.3}, {Place{Layer: 3}, 0.6, 6},
		{Place{Layer: -1}, 0, 0.3}, {Place{Layer: -1, After: true}, 0.6, 5},
	} {
		c.place.Layers = 4
		p, err := r.Params(c.place)
		require.NoError(t, err)
		require.Equal(t, []float64{c.one, c.two}, []float64{p.Each[0].Weight, p.Each[1].Weight}, "%+v", c.place)
		require.True(t, p.Normalize)
	}
}

func TestPlan(t *testing.T) {
	model := func(names ...string) (out []Part) {
		for _, n := range names {
			path, adapter := strings.CutPrefix(n, "lora/")
			out = append(out, Part{path, adapter})
		}
		return out
	}
	for name, c := range map[string]struct {
		method, base string
		parts        []Part
		absolute     bool
		want         []Part
		says         string
	}{
		"mean":                      {"linear", "", model("a", "b"), true, model("a", "b"), ""},
		"the base is in the mean":   {"linear", "b", model("a", "./b"), true, model("a", "./b"), ""},
		"sum of differences":        {"linear", "c", model("a", "b"), false, model("a", "b"), ""},
		"adapters":                  {"linear", "c", model("lora/a", "c", "b"), false, model("lora/a", "b"), ""},
		"adapters without a base":   {"linear", "", model("lora/a"), false, nil, "an adapter needs a base"},
		"differences without one":   {"ties", "", model("a", "b"), false, nil, "ties needs a base"},
		"the base adds nothing":     {"ties", "b", model("a", "b", "c"), false, model("a", "c"), ""},
		"slerp from the base":       {"slerp", "b", model("a", "b"), true, model("b", "a"), ""},
		"slerp with the base":       {"slerp", "b", model("a"), true, model("b", "a"), ""},
		"slerp of two":              {"slerp", "", model("a", "b"), true, model("a", "b"), ""},
		"slerp of differences":      {"slerp", "c", model("a", "b"), false, model("a", "b"), ""},
		"slerp of adapters":         {"slerp", "c", model("lora/a", "lora/b"), false, model("lora/a", "lora/b"), ""},
		"slerp of three":            {"slerp", "", model("a", "b", "c"), false, nil, "slerp combines at most 2, not 3"},
		"slerp of one":              {"slerp", "", model("a"), false, nil, "slerp combines at least 2, not 1"},
		"stock of one and the base": {"model_stock", "b", model("a", "b"), false, nil, "at least 2, not 1"},
		"nothing":                   {"ties", "b", model("b"), false, nil, "nothing to combine"},
	} {
		m, err := combine.ByName(c.method)
		require.NoError(t, err)
		r := New(m, c.base, c.parts)
		err = r.Plan()
		if c.says != "" {
			require.ErrorContains(t, err, c.says, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.want, r.Parts, name)
		require.Equal(t, c.absolute, r.Absolute, name)
		_, err = r.Params(Place{Layer: -1})
		require.NoError(t, err, name)
	}
	// Parameters follow their parts.
	m, err := combine.ByName("ties")
	require.NoError(t, err)
	r := New(m, "b", model("b", "a", "c"))
	require.NoError(t, r.Set(0, "weight", 7.0))
	require.NoError(t, r.Set(1, "weight", 8.0))
	require.NoError(t, r.Set(-1, "density", 0.5))
	require.ErrorContains(t, r.Set(-1, "t", 0.5), "ties takes no t")
	require.ErrorContains(t, r.Set(-1, "density", 5.0), "want 0 to 1")
	require.NoError(t, r.Plan())
	p, err := r.Params(Place{Layer: -1})
	require.NoError(t, err)
	require.Equal(t, []combine.Each{{Weight: 8, Density: 0.5, Gamma: 0.01, Epsilon: 0.15}, {Weight: 1, Density: 0.5, Gamma: 0.01, Epsilon: 0.15}}, p.Each)
}

func TestWhatIsRefused(t *testing.T) {
	models := "models: [{model: a}, {model: b}]\n"
	for name, c := range map[string]struct{ text, says, hint string }{
		"empty":                   {"", "nothing, where there must be a mapping", ""},
		"a list":                  {"- a", "a list, where there must be a mapping", ""},
		"no YAML":                 {"a: [", "", ""},
		"two documents":           {"merge_method: ties\n---\nmerge_method: ties\n", "2 documents", ""},
		"no method":               {models, "merge_method is missing", ""},
		"unknown method":          {"merge_method: tise\n" + models, `no method "tise"`, "ties"},
		"passthrough":             {"merge_method: passthrough\n" + models, `no method "passthrough"`, "linear"},
		"unknown key":             {"merge_method: ties\nmerge_methods: ties\n" + models, `line 2: unknown key "merge_methods" in a recipe`, "merge_method"},
		"unknown key of a model":  {"merge_method: ties\nmodels:\n  - model: a\n    wieght: 1\n", `line 4: unknown key "wieght" in models`, "parameters"},
		"unknown parameter":       {"merge_method: ties\nmodels:\n  - model: a\n    parameters:\n      wieght: 1\n", `line 5: unknown parameter "wieght"`, "weight"},
		"another's parameter":     {"merge_method: slerp\nparameters: {weight: 1}\n" + models, "line 2: slerp takes no weight", "t"},
		"bad value":               {"merge_method: ties\nparameters:\n  density: 2\n" + models, "line 3: density: 2, want 0 to 1", ""},
		"bad value in a list":     {"merge_method: ties\nparameters:\n  density: [0.1, x]\n" + models, "density: x is not a number", ""},
		"bad value in a case":     {"merge_method: ties\nparameters:\n  density: [{filter: a, value: [0.1, 7]}]\n" + models, "density: 7, want 0 to 1", ""},
		"a quoted number":         {"merge_method: ties\nparameters:\n  density: \"0.1\"\n" + models, "0.1 is not a number", ""},
		"case without a value":    {"merge_method: ties\nparameters:\n  density: [{filter: a}]\n" + models, "a case without a value", ""},
		"unknown key of a case":   {"merge_method: ties\nparameters:\n  density: [{filtre: a, value: 1}]\n" + models, `unknown key "filtre"`, "filter and value"},
		"mixed cases":             {"merge_method: ties\nparameters:\n  density: [{value: 1}, 3]\n" + models, "a value among filters", ""},
		"empty gradient":          {"merge_method: ties\nparameters:\n  density: []\n" + models, "a list", ""},
		"twice":                   {"merge_method: ties\nmerge_method: ties\n" + models, "", ""},
		"no models":               {"merge_method: ties\n", "neither models nor adapters nor slices", ""},
		"empty models":            {"merge_method: ties\nmodels: []\n", "are empty", ""},
		"models of another kind":  {"merge_method: ties\nmodels: {a: 1}\n", "where there must be a list", ""},
		"a model without a path":  {"merge_method: ties\nmodels: [{parameters: {weight: 1}}]\n", "model is missing", ""},
		"a model's name as a map": {"merge_method: ties\nmodels: [{model: {path: a}}]\n", "model: a mapping, where there must be text", ""},
		"slices beside models":    {"merge_method: ties\nslices: []\n" + models, "slices beside models", ""},
		"dtype":                   {"merge_method: ties\ndtype: int8\n" + models, `dtype "int8"`, "bfloat16"},
		"tokenizer":               {"merge_method: ties\nbase_model: base\ntokenizer_source: union\n" + models, "always that of base", "one vocabulary"},
		"tokenizer's tokens":      {"merge_method: ties\ntokenizer: {source: base, tokens: {}}\n" + models, `unknown key "tokens" in tokenizer`, "source"},
		"chat template":           {"merge_method: ties\nchat_template: auto\n" + models, `unknown key "chat_template"`, ""},
		"an alias":                {"merge_method: ties\nparameters: &a {density: 1}\n" + models, "without them", ""},
		"a tag":                   {"merge_method: !!str ties\n" + models, "without them", ""},
		"nested":                  {"merge_method: " + strings.Repeat("[", 100) + "\n", "nested more than 32 deep", ""},
		"nested lists":            {strings.Repeat("- ", 100) + "\n", "nested more than 32 deep", ""},
		"too large":               {strings.Repeat("#\n", maxSize), "over the limit", ""},
		"layers out of place":     {"merge_method: linear\nslices: [{sources: [{model: a, layer_range: [1, 3]}]}]\n", "layer 0 of every model must be next", "stacking"},
		"layers twice": {"merge_method: linear\nslices:\n- sources: [{model: a, layer_range: [0, 3]}]\n- sources: [{model: a, layer_range: [2, 4]}]\n",
			"layer 3 of every model must be next", "stacking"},
		"layers that differ": {"merge_method: linear\nslices:\n- sources: [{model: a, layer_range: [0, 3]}, {model: b, layer_range: [1, 4]}]\n", "[1, 4]", "stacking"},
		"other models":       {"merge_method: linear\nslices:\n- sources: [{model: a, layer_range: [0, 3]}]\n- sources: [{model: b, layer_range: [3, 4]}]\n", "other models", "same sources"},
		"layers of no kind":  {"merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 1.5]}]}]\n", "two numbers", ""},
		"no layers":          {"merge_method: linear\nslices: [{sources: [{model: a}]}]\n", "needs model and layer_range", ""},
		"no sources":         {"merge_method: linear\nslices: [{parameters: {weight: 1}}]\n", "a list of sources", ""},
	} {
		_, err := Parse([]byte(c.text))
		require.Error(t, err, name)
		require.ErrorContains(t, err, c.says, name)
		require.Contains(t, hint.Of(err), c.hint, name)
		require.NotContains(t, err.Error(), "\n", name)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(ties))
	files, err := filepath.Glob("../../testdata/recipes/*.yaml")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<12 {
			return
		}
		r, err := Parse(text)
		if err != nil || r.Plan() != nil {
			return
		}
		for _, at := range []Place{{Layer: -1}, {Layer: -1, After: true}, {Tensor: "model.layers.1.mlp.up_proj.weight", Layer: 1, Layers: 4}, {Layer: 3, Layers: 4}} {
			p, err := r.Params(at)
			if err == nil {
				require.Len(t, p.Each, len(r.Parts))
			}
		}
	})
}
