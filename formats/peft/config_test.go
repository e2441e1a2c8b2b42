package peft

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// object is a JSON object by key.
type object map[string]json.RawMessage

// with returns the text of the object with the other's members on top.
func (o object) with(t testing.TB, other object) []byte {
	t.Helper()
	all := maps.Clone(o)
	maps.Copy(all, other)
	b, err := json.Marshal(all)
	require.NoError(t, err)
	return b
}

type setting struct {
	Set     []string
	Written object
}

// configs is what PEFT writes.
func configs(t testing.TB) (def object, refused, accepted []setting) {
	t.Helper()
	var f struct {
		Default           object
		Refused, Accepted []setting
	}
	require.NoError(t, json.Unmarshal(read(t, "testdata/configs.json"), &f))
	require.NotEmpty(t, f.Refused)
	require.NotEmpty(t, f.Accepted)
	return f.Default, f.Refused, f.Accepted
}

// TestKeysAreThoseOfPEFT checks names, defaults and order of the table.
func TestKeysAreThoseOfPEFT(t *testing.T) {
	def, _, _ := configs(t)
	var names []string
	for _, k := range keys() {
		names = append(names, k.name)
		if k.name != "peft_version" {
			require.Equal(t, string(def[k.name]), k.def, "%s", k.name)
		}
	}
	require.Equal(t, slices.Sorted(maps.Keys(def)), names)
}

func TestDefaults(t *testing.T) {
	def, _, _ := configs(t)
	got, err := NewConfig().Encode()
	require.NoError(t, err)
	require.JSONEq(t, string(def.with(t, nil)), string(got))

	parsed, err := ParseConfig([]byte(`{"peft_type":"LORA","r":8,"lora_alpha":8}`))
	require.NoError(t, err)
	parsed.PeftVersion = Version
	require.Equal(t, NewConfig(), parsed)
}

// TestEncodeSameBytesAsPEFT reads what PEFT wrote and writes it again.
func TestEncodeSameBytesAsPEFT(t *testing.T) {
	for _, dir := range []string{"golden", "golden_regex"} {
		text := read(t, "testdata/"+dir+"/adapter_config.json")
		c, err := ParseConfig(text)
		require.NoError(t, err)
		require.NoError(t, c.Unsupported())
		got, err := c.Encode()
		require.NoError(t, err)
		require.Equal(t, string(text), string(got))
	}
}

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig(read(t, "testdata/golden_regex/adapter_config.json"))
	require.NoError(t, err)
	require.Equal(t, "LORA", c.PeftType)
	require.Equal(t, Version, c.PeftVersion)
	require.Empty(t, c.TaskType)
	require.Equal(t, "main", c.Revision)
	require.EqualValues(t, 3, c.R)
	require.Equal(t, 2.5, c.LoraAlpha)
	require.Equal(t, 1e-5, c.LoraDropout)
	require.True(t, c.UseRSLoRA)
	require.True(t, c.InferenceMode)
	require.False(t, c.FanInFanOut)
	require.Equal(t, "none", c.Bias)
	require.Equal(t, Init("gaussian"), c.InitLoraWeights)
	require.Equal(t, Modules{Regex: `.*layers\.1\.(self_attn|mlp)\..*_proj`}, c.TargetModules)
	require.Equal(t, Modules{}, c.ExcludeModules)
	require.Nil(t, c.ModulesToSave)
	require.Nil(t, c.LayersToTransform)
	require.Equal(t, 2.5/math.Sqrt(3), c.Scaling())

	c, err = ParseConfig([]byte(`{"peft_type":"LORA","r":16,"lora_alpha":32.0,"target_modules":["b","a"],"exclude_modules":"x",
		"layers_to_transform":5,"modules_to_save":["lm_head"],"init_lora_weights":false,"bias":"all","inference_mode":null,
		"rank_pattern":{"z":1,"a":2},"alpha_pattern":{"q":2.5},"runtime_config":{"ephemeral_gpu_offload":true}}`))
	require.NoError(t, err)
	require.Equal(t, Modules{Names: []string{"b", "a"}}, c.TargetModules)
	require.Equal(t, Modules{Regex: "x"}, c.ExcludeModules)
	require.Equal(t, Layers{5}, c.LayersToTransform)
	require.Equal(t, []string{"lm_head"}, c.ModulesToSave)
	require.Equal(t, Init("false"), c.InitLoraWeights)
	require.Equal(t, Pattern{{"z", 1}, {"a", 2}}, c.RankPattern, "the first match counts, so order does")
	require.Equal(t, Pattern{{"q", 2.5}}, c.AlphaPattern)
	require.Equal(t, 2.0, c.Scaling())
	text, err := c.Encode()
	require.NoError(t, err)
	require.NotContains(t, string(text), "runtime_config")
	require.Contains(t, string(text), "\n  \"lora_alpha\": 32,\n")
	require.Contains(t, string(text), "\"rank_pattern\": {\n    \"z\": 1,\n    \"a\": 2\n  }")
	require.Contains(t, string(text), "\"q\": 2.5\n")
}

func TestParseConfigErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want, hint string }{
		{"empty", ``, "EOF", ""},
		{"cut off", `{"peft_type": "LORA"`, "EOF", ""},
		{"not an object", `[]`, "", ""},
		{"null", `null`, "null", ""},
		{"key twice", `{"peft_type":"LORA","r":8,"r":8,"lora_alpha":1}`, `"r"`, ""},
		{"no peft_type", `{"r":8,"lora_alpha":16}`, "no peft_type", "save_pretrained"},
		{"peft_type null", `{"peft_type":null,"r":8,"lora_alpha":16}`, "", ""},
		{"peft_type a number", `{"peft_type":1,"r":8,"lora_alpha":16}`, "peft_type", ""},
		{"no r", `{"peft_type":"LORA","lora_alpha":16}`, "no r,", "PEFT's default is 8"},
		{"no alpha", `{"peft_type":"LORA","r":8}`, "no lora_alpha", "PEFT's default is 8"},
		{"r zero", `{"peft_type":"LORA","r":0,"lora_alpha":16}`, "r is 0", ""},
		{"r negative", `{"peft_type":"LORA","r":-4,"lora_alpha":16}`, "r is -4", ""},
		{"r null", `{"peft_type":"LORA","r":null,"lora_alpha":16}`, "r is 0", ""},
		{"r a string", `{"peft_type":"LORA","r":"8","lora_alpha":16}`, "r: malformed", ""},
		{"r a fraction", `{"peft_type":"LORA","r":8.5,"lora_alpha":16}`, "r: malformed", ""},
		{"r too large", `{"peft_type":"LORA","r":99999999999999999999,"lora_alpha":16}`, "r: malformed", ""},
		{"alpha zero", `{"peft_type":"LORA","r":8,"lora_alpha":0}`, "lora_alpha is 0", "that of the training"},
		{"alpha too large", `{"peft_type":"LORA","r":8,"lora_alpha":1e999}`, "lora_alpha", ""},
		{"alpha infinite in Python", `{"peft_type":"LORA","r":8,"lora_alpha":Infinity}`, "lora_alpha", ""},
		{"alpha not a number in Python", `{"peft_type":"LORA","r":8,"lora_alpha":NaN}`, "lora_alpha", ""},
		{"alpha a string", `{"peft_type":"LORA","r":8,"lora_alpha":"16"}`, "lora_alpha: malformed", ""},
		{"targets a number", `{"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":3}`, "target_modules: malformed", ""},
		{"target a number", `{"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":[3]}`, "target_modules: malformed", ""},
		{"layers a string", `{"peft_type":"LORA","r":8,"lora_alpha":16,"layers_to_transform":"3"}`, "layers_to_transform: malformed", ""},
		{"pattern a list", `{"peft_type":"LORA","r":8,"lora_alpha":16,"rank_pattern":[]}`, "rank_pattern: malformed", ""},
		{"pattern of strings", `{"peft_type":"LORA","r":8,"lora_alpha":16,"alpha_pattern":{"q":"1"}}`, "alpha_pattern: malformed", ""},
		{"pattern too large", `{"peft_type":"LORA","r":8,"lora_alpha":16,"alpha_pattern":{"q":1e999}}`, "alpha_pattern: malformed", ""},
		{"init a number", `{"peft_type":"LORA","r":8,"lora_alpha":16,"init_lora_weights":1}`, "init_lora_weights: malformed", ""},
		{"use_rslora a string", `{"peft_type":"LORA","r":8,"lora_alpha":16,"use_rslora":"yes"}`, "use_rslora: malformed", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseConfig([]byte(c.text))
			require.Error(t, err)
			if c.name != "peft_type null" {
				require.ErrorIs(t, err, tensor.ErrMalformed)
			}
			require.ErrorContains(t, err, c.want)
			require.Contains(t, hint.Of(err), c.hint)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestOtherKindsOfAdapter(t *testing.T) {
	for _, text := range []string{
		`{"peft_type":"LOHA","r":8,"lora_alpha":16}`,
		`{"fine_tune_type":"lora","lora_parameters":{"rank":8,"scale":10.0}}`,
	} {
		_, err := ParseConfig([]byte(text))
		require.ErrorIs(t, err, tensor.ErrUnsupported)
	}
}

// TestUnsupported parses what PEFT writes for each setting.
func TestUnsupported(t *testing.T) {
	def, refused, accepted := configs(t)
	for _, s := range refused {
		c, err := ParseConfig(def.with(t, s.Written))
		require.NoError(t, err)
		err = c.Unsupported()
		require.ErrorIs(t, err, tensor.ErrUnsupported, "%v", s)
		require.ErrorContains(t, err, s.Set[0]+" = ")
		require.NotContains(t, err.Error(), ", ", "no other key is named")
		switch key := s.Set[0]; key {
		case "alora_invocation_tokens", "arrow_config", "use_qalora":
			require.Empty(t, hint.Of(err), "PEFT cannot merge it either")
			require.ErrorIs(t, c.Unmergeable(), tensor.ErrUnsupported)
		case "kasa_config", "use_bdlora", "megatron_config":
			require.Contains(t, hint.Of(err), "merge_and_unload")
			require.ErrorContains(t, c.Unmergeable(), key)
		default:
			require.Contains(t, hint.Of(err), "nibble merge")
			require.NoError(t, c.Unmergeable(), "%v", s)
			require.Equal(t, key == "init_lora_weights", c.ChangedBase())
			text, err := c.Encode()
			require.NoError(t, err)
			require.JSONEq(t, string(def.with(t, s.Written)), string(text), "%v", s)
		}
	}
	for _, s := range accepted {
		c, err := ParseConfig(def.with(t, s.Written))
		require.NoError(t, err)
		require.NoError(t, c.Unsupported(), "%v", s)
		text, err := c.Encode()
		require.NoError(t, err)
		want := def.with(t, s.Written)
		if slices.Equal(s.Set, []string{"layers_to_transform"}) {
			want = def.with(t, object{"layers_to_transform": json.RawMessage(`[3]`), "target_modules": s.Written["target_modules"], "task_type": s.Written["task_type"]})
		}
		require.JSONEq(t, string(want), string(text), "%v", s)
	}
}

// TestEveryRefusedKeyIsTested keeps the table and the goldens together.
func TestEveryRefusedKeyIsTested(t *testing.T) {
	_, refusedBy, _ := configs(t)
	tested := make(map[string]bool)
	for _, s := range refusedBy {
		tested[s.Set[0]] = true
	}
	for _, k := range keys() {
		require.Equal(t, k.rule == refused || k.rule == merged, tested[k.name], "%s", k.name)
	}
}

func TestUnsupportedNamesThemAll(t *testing.T) {
	c, err := ParseConfig([]byte(`{"peft_type":"LORA","r":8,"lora_alpha":16,"use_dora":true,"rank_pattern":{"q":4},
		"init_lora_weights":"loftq","loftq_config":{"loftq_bits":4},"new_scale":[1, 2],"new_off":false,"new_null":null,"new_empty":{ },
		"new_list":[],"new_text":"","new_long":"` + strings.Repeat("x", 1000) + `","modules_to_save":[],"use_bdlora":false}`))
	require.NoError(t, err)
	err = c.Unsupported()
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, `has init_lora_weights = "loftq", rank_pattern = {"q":4}, use_dora = true, the unknown new_long = "xxx`)
	require.ErrorContains(t, err, `the unknown new_scale = [1,2]`)
	require.NotContains(t, err.Error(), "new_off")
	require.NotContains(t, err.Error(), "new_empty")
	require.Less(t, len(err.Error()), 400)
	require.Contains(t, hint.Of(err), "unknown key")
	text, err := c.Encode()
	require.NoError(t, err)
	require.Contains(t, string(text), `"new_scale": [`, "what is not understood is not lost")
}

func TestRealConfigs(t *testing.T) {
	c, err := ParseConfig(read(t, "testdata/distilgpt2-r8/adapter_config.json"))
	require.NoError(t, err)
	require.Equal(t, "0.18.1", c.PeftVersion)
	require.Equal(t, "distilgpt2", c.BaseModel)
	require.Equal(t, 2.0, c.Scaling())
	require.True(t, c.FanInFanOut)
	require.NoError(t, c.Unsupported())

	c, err = ParseConfig(read(t, "testdata/dialogpt-synthetic-r8/adapter_config.json"))
	require.NoError(t, err)
	require.Equal(t, Modules{Names: []string{"c_attn", "c_proj"}}, c.TargetModules)
	require.ErrorContains(t, c.Unsupported(), "has the unknown alpha = 16")
}

func TestEncodeErrors(t *testing.T) {
	for name, spoil := range map[string]func(c *Config){
		"r is 0":       func(c *Config) { c.R = 0 },
		"lora_alpha":   func(c *Config) { c.LoraAlpha = math.NaN() },
		"is +Inf":      func(c *Config) { c.LoraAlpha = math.Inf(1) },
		"peft_type":    func(c *Config) { c.PeftType = "" },
		"task_type":    func(c *Config) { c.TaskType = "\xff" },
		"malformed":    func(c *Config) { c.LoraDropout = math.NaN() },
		"rank_pattern": func(c *Config) { c.RankPattern = Pattern{{"\xff", 1}} },
	} {
		c := NewConfig()
		spoil(c)
		_, err := c.Encode()
		require.ErrorContains(t, err, name)
	}
}

// TestEncodeLiteral encodes a Config that NewConfig did not make.
func TestEncodeLiteral(t *testing.T) {
	text, err := (&Config{PeftType: "LORA", R: 1, LoraAlpha: 1}).Encode()
	require.NoError(t, err)
	require.Contains(t, string(text), `"r": 1,`)
}

func TestNumbersAreSpelledAsInPython(t *testing.T) {
	for want, f := range map[string]float64{
		"0.0": 0, "0.05": 0.05, "1.0": 1, "1e-05": 1e-5, "0.0001": 1e-4, "1e+16": 1e16, "1000000000000000.0": 1e15,
		"1.5e-300": 1.5e-300, "-2.5": -2.5, "0.1": 0.1, "123456789.125": 123456789.125,
	} {
		require.Equal(t, want, string(appendNumber(nil, f, false)))
	}
	require.Equal(t, "16", string(appendNumber(nil, 16, true)))
	require.Equal(t, "2.5", string(appendNumber(nil, 2.5, true)))
	require.Equal(t, "1e+300", string(appendNumber(nil, 1e300, true)))
}

// FuzzParseConfig checks that what was read and is written reads the same.
func FuzzParseConfig(f *testing.F) {
	for _, dir := range []string{"golden", "golden_regex", "distilgpt2-r8", "dialogpt-synthetic-r8"} {
		f.Add(read(f, "testdata/"+dir+"/adapter_config.json"))
	}
	def, refused, accepted := configs(f)
	for _, s := range append(refused, accepted...) {
		f.Add(def.with(f, s.Written))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseConfig(text)
		if err != nil {
			return
		}
		unsupported := c.Unsupported()
		again, err := c.Encode()
		require.NoError(t, err)
		d, err := ParseConfig(again)
		require.NoError(t, err)
		require.Equal(t, unsupported == nil, d.Unsupported() == nil)
		require.Equal(t, c.Unmergeable() == nil, d.Unmergeable() == nil)
		_, _ = c.Targeted()
		_, _ = c.Patterns()
		third, err := d.Encode()
		require.NoError(t, err)
		require.Equal(t, string(again), string(third))
		require.Equal(t, c.Scaling(), d.Scaling())
	})
}
