package arch

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const stories = `{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
"num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512, "max_position_embeddings": 512,
"rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true}`

func TestStories(t *testing.T) {
	m, err := ParseConfig([]byte(stories))
	require.NoError(t, err)
	require.Equal(t, int64(8), m.HeadDim)
	require.Equal(t, int64(260032), m.NumParams())
	list := m.Tensors()
	require.Len(t, list, 1+5*9+1)
	require.Equal(t, "model.embed_tokens.weight", list[0].Name)
	require.Equal(t, "token_embd.weight", list[0].GGUFName)
	require.Equal(t, "model.norm.weight", list[len(list)-1].Name)
	k, ok := m.Find(Key, "weight", 3)
	require.True(t, ok)
	require.Equal(t, "model.layers.3.self_attn.k_proj.weight", k.Name)
	require.Equal(t, "model.layers.3.self_attn.k_proj", k.Module())
	require.Equal(t, "blk.3.attn_k.weight", k.GGUFName)
	require.Equal(t, []int64{32, 64}, k.Dims)
	require.Equal(t, int64(4), k.RotaryHeads(m.Config))
	_, ok = m.Find(Head, "weight", -1)
	require.False(t, ok, "the head is tied")
	_, ok = m.Find(Key, "bias", 0)
	require.False(t, ok)
	_, ok = m.Find(Embedding, "weight", 0)
	require.False(t, ok, "embeddings are not in a block")
	require.Equal(t, []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}, m.LinearModules())
}

func TestOptionalTensors(t *testing.T) {
	text := strings.NewReplacer(`"tie_word_embeddings": true`, `"attention_bias": true, "mlp_bias": true`).Replace(stories)
	m, err := ParseConfig([]byte(text))
	require.NoError(t, err)
	require.Len(t, m.Tensors(), 1+5*(9+7)+2)
	seen := map[string]bool{}
	for _, x := range m.Tensors() {
		require.False(t, seen[x.Name], x.Name)
		require.False(t, seen[x.GGUFName], x.GGUFName)
		seen[x.Name], seen[x.GGUFName] = true, true
		if x.Part == "bias" {
			require.Len(t, x.Dims, 1)
		}
	}
	require.True(t, seen["lm_head.weight"])
	require.True(t, seen["blk.4.attn_output.bias"])
}

func TestRopeSpellings(t *testing.T) {
	llama3 := Rope{Theta: 500000, Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 8192}
	for name, c := range map[string]struct {
		text string
		want Rope
	}{
		"none":    {`"x": 1`, Rope{Theta: 10000, Type: "default"}},
		"null":    {`"rope_theta": 5e5, "rope_scaling": null`, Rope{Theta: 5e5, Type: "default"}},
		"old":     {`"rope_scaling": {"type": "linear", "factor": 2}`, Rope{Theta: 10000, Type: "linear", Factor: 2}},
		"llama 3": {`"rope_theta": 500000.0, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}`, llama3},
		"new":     {`"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}`, Rope{Theta: 1e6, Type: "default"}},
		"by kind": {`"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8}, "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}`, Rope{Theta: 1e6, Type: "linear", Factor: 8}},
		"yarn":    {`"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "beta_fast": 24}`, Rope{Theta: 1e6, Type: "yarn", Factor: 4, OriginalMaxPositionEmbeddings: 32768, BetaFast: 24}},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.NewReplacer(`"rope_theta": 10000.0`, c.text).Replace(stories)
			m, err := ParseConfig([]byte(text))
			require.NoError(t, err)
			require.Equal(t, c.want, m.Rope)
			again := roundTrip(t, m)
			require.Equal(t, c.want, again.Rope)
		})
	}
}

// roundTrip writes a configuration and reads it again.
func roundTrip(t *testing.T, m *Model) *Model {
	t.Helper()
	o := map[string]any{}
	for _, x := range m.Members() {
		o[x.Name] = x.Value
	}
	text, err := json.Marshal(o)
	require.NoError(t, err)
	again, err := ParseConfig(text)
	require.NoError(t, err, "%s", text)
	return again
}

func TestLlama3Factors(t *testing.T) {
	r := Rope{Theta: 500000, Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 8192}
	f := r.Factors(128)
	require.Len(t, f, 64)
	require.Equal(t, float32(1), f[0])
	require.Equal(t, float32(8), f[63])
	// From transformers 5.23.0, ROPE_INIT_FUNCTIONS["llama3"] of that
	// configuration with 128 elements a head; it computes in float32.
	inv := (&Config{HeadDim: 128, PartialRotaryFactor: 1, Rope: r}).Angles(1).InvFreq
	for i, want := range map[int]float64{
		0: 1, 1: 0.8146172165870667, 28: 0.0032114461064338684, 29: 0.0021665706299245358, 30: 0.0013718936825171113,
		33: 0.0003126936499029398, 35: 9.556212171446532e-05, 36: 7.784655463183299e-05, 40: 3.428102354519069e-05,
		63: 3.068925877869333e-07,
	} {
		require.InEpsilon(t, want, inv[i], 1e-6, "%d", i)
	}
	lin := Config{HeadDim: 8, PartialRotaryFactor: 1, Rope: Rope{Theta: 10000, Type: "linear", Factor: 2}}
	require.Equal(t, 0.5, lin.Angles(1).InvFreq[0])
}

func TestImpossibleConfigs(t *testing.T) {
	for name, c := range map[string][3]string{
		"family":      {`"model_type": "llama"`, `"model_type": "bloom"`, `model_type "bloom" (known: llama`},
		"no size":     {`"hidden_size": 64`, `"x": 1`, "hidden_size is 0"},
		"negative":    {`"vocab_size": 512`, `"vocab_size": -512`, "vocab_size is -512"},
		"huge":        {`"vocab_size": 512`, `"vocab_size": 9000000000`, "vocab_size is 9000000000"},
		"layers":      {`"num_hidden_layers": 5`, `"num_hidden_layers": 100000`, "num_hidden_layers is 100000"},
		"type":        {`"hidden_size": 64`, `"hidden_size": "64"`, "hidden_size"},
		"heads":       {`"num_key_value_heads": 4`, `"num_key_value_heads": 3`, "not a multiple of num_key_value_heads 3"},
		"odd head":    {`"num_key_value_heads": 4`, `"num_key_value_heads": 4, "head_dim": 7`, "7 elements of each head are rotated"},
		"no head dim": {`"hidden_size": 64`, `"hidden_size": 65`, "not a multiple of num_attention_heads"},
		"activation":  {`"silu"`, `"gelu"`, `hidden_act "gelu"`},
		"eps":         {`1e-05`, `-1e-05`, "epsilon"},
		"theta":       {`10000.0`, `-1`, "rope_theta"},
		"rope type":   {`"rope_theta": 10000.0`, `"rope_scaling": {"rope_type": "mrope", "factor": 2}`, `rope_type "mrope"`},
		"rope factor": {`"rope_theta": 10000.0`, `"rope_scaling": {"rope_type": "linear"}`, "wants a positive factor"},
		"rope llama3": {`"rope_theta": 10000.0`, `"rope_scaling": {"rope_type": "llama3", "factor": 8}`, "rope_type llama3 wants"},
		"not JSON":    {`{"arch`, `["arch`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(stories, c[0], c[1], 1)
			require.NotEqual(t, stories, text)
			_, err := ParseConfig([]byte(text))
			require.ErrorContains(t, err, c[2])
		})
	}
}

func TestFamiliesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Families() {
		for _, name := range append(append([]string{f.Name + "!"}, f.ModelTypes...), f.Classes...) {
			require.False(t, seen[name], name)
			seen[name] = true
		}
		require.Same(t, f, ByName(f.Name))
		got, err := ByGGUF(f.GGUF, map[bool]int64{true: 4}[f.moe()])
		require.NoError(t, err)
		require.Equal(t, f.GGUF, got.GGUF)
		require.Equal(t, f.moe(), got.moe())
	}
	require.Nil(t, ByName("none"))
	_, err := ByGGUF("none", 0)
	require.ErrorIs(t, err, ErrUnsupported)
	_, err = ByGGUF("gpt2", 8)
	require.ErrorIs(t, err, ErrUnsupported)
}

// configs are the shapes of published models, shortened to what they say of
// their family.
var configs = map[string]string{
	"Mistral-7B-v0.1":    `{"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 32000}`,
	"Mixtral-8x7B-v0.1":  `{"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null, "vocab_size": 32000}`,
	"Qwen2.5-0.5B":       `{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24, "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true, "use_sliding_window": false, "vocab_size": 151936}`,
	"Qwen1.5-MoE-A2.7B":  `{"architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "decoder_sparse_step": 1, "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 8192, "max_window_layers": 21, "moe_intermediate_size": 1408, "norm_topk_prob": false, "num_attention_heads": 16, "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16, "rope_theta": 1000000.0, "shared_expert_intermediate_size": 5632, "tie_word_embeddings": false, "vocab_size": 151936}`,
	"Qwen3-0.6B":         `{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128, "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960, "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rope_theta": 1000000, "tie_word_embeddings": true, "vocab_size": 151936}`,
	"Qwen3-30B-A3B":      `{"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960, "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "rope_theta": 1000000.0, "vocab_size": 151936}`,
	"gemma-2b":           `{"architectures": ["GemmaForCausalLM"], "model_type": "gemma", "head_dim": 256, "hidden_act": "gelu", "hidden_size": 2048, "intermediate_size": 16384, "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1, "vocab_size": 256000}`,
	"gemma-2-27b":        `{"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "head_dim": 128, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 4608, "intermediate_size": 36864, "max_position_embeddings": 8192, "num_attention_heads": 32, "num_hidden_layers": 46, "num_key_value_heads": 16, "query_pre_attn_scalar": 144, "sliding_window": 4096, "vocab_size": 256000}`,
	"gemma-3-4b-it":      `{"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}, "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 27}}`,
	"Phi-3-mini-4k":      `{"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_scaling": null, "sliding_window": 2047, "vocab_size": 32064}`,
	"phi with factors":   `{"model_type": "phi3", "hidden_size": 24, "intermediate_size": 8, "max_position_embeddings": 131072, "num_attention_heads": 4, "num_hidden_layers": 2, "original_max_position_embeddings": 4096, "rope_scaling": {"type": "su", "short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.0, 64.1]}, "vocab_size": 50}`,
	"gpt2":               `{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257}`,
	"llama by its class": `{"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8, "vocab_size": 512}`,
}

// params are the sizes of those models, from their model cards.
var params = map[string]int64{
	"Mistral-7B-v0.1": 7_241_732_096, "Mixtral-8x7B-v0.1": 46_702_792_704, "Qwen2.5-0.5B": 494_032_768, "Qwen1.5-MoE-A2.7B": 14_315_784_192,
	"Qwen3-0.6B": 596_049_920, "Qwen3-30B-A3B": 30_532_122_624, "gemma-2b": 2_506_172_416, "gemma-2-27b": 27_227_128_320,
	"gemma-3-4b-it": 3_880_263_168, "Phi-3-mini-4k": 3_821_079_552, "gpt2": 124_439_808,
}

func TestPublishedModels(t *testing.T) {
	for name, text := range configs {
		t.Run(name, func(t *testing.T) {
			m, err := ParseConfig([]byte(text))
			require.NoError(t, err)
			if want, ok := params[name]; ok {
				require.Equal(t, want, m.NumParams())
			}
			again := roundTrip(t, m)
			// What the class alone says is spelled out; head_dim may be.
			again.Config.HeadDimGiven = m.HeadDimGiven
			require.Equal(t, m.Config, again.Config)
			seen := map[string]bool{}
			for _, x := range m.Tensors() {
				require.False(t, seen[x.Name], x.Name)
				seen[x.Name] = true
				if x.Expert < 0 {
					found, ok := m.Find(x.Role, x.Part, x.Layer)
					require.True(t, ok)
					require.Equal(t, x.Name, found.Name)
				} else {
					found, ok := m.FindExpert(x.Role, x.Layer, x.Expert)
					require.True(t, ok)
					require.Equal(t, x.Name, found.Name)
				}
			}
		})
	}
}

// meta is GGUF metadata.
type meta map[string]any

func (m meta) Get(key string) (any, bool) { v, ok := m[key]; return v, ok }

// TestThroughGGUF checks that the hyperparameters come back from what is
// written of them, but for what GGUF has no place for.
func TestThroughGGUF(t *testing.T) {
	for name, text := range configs {
		t.Run(name, func(t *testing.T) {
			m, err := ParseConfig([]byte(text))
			require.NoError(t, err)
			g := meta{}
			for _, kv := range m.KVs() {
				require.NotContains(t, g, kv.Key)
				g[kv.Key] = kv.Value
			}
			require.Contains(t, g, KeyFileType)
			f, err := ByGGUF(m.GGUF, m.NumExperts)
			require.NoError(t, err)
			names := map[string]bool{}
			for _, x := range m.Tensors() {
				names[x.GGUFName] = true
			}
			again, err := FromGGUF(f, g, func(n string) bool { return names[n] }, m.VocabSize)
			require.NoError(t, err)
			if m.Generated != nil {
				require.True(t, again.Recover(again.Config, m.Generated(m.Config)))
			}
			want := *m.Config
			want.HeadDimGiven, again.HeadDimGiven = false, false
			want.MaxWindowLayers, again.MaxWindowLayers = 0, 0
			want.AttentionBias, again.AttentionBias = false, false
			want.MLPBias, again.MLPBias = false, false
			if want.HiddenAct == "gelu" {
				want.HiddenAct = geluTanh
			}
			if name == "Mistral-7B-v0.1" { // to GGUF it is a llama
				want.SlidingWindow, want.LayerTypes = 0, nil
			}
			require.Equal(t, &want, again.Config)
		})
	}
}

func TestWindows(t *testing.T) {
	window := func(name string) string {
		m, err := ParseConfig([]byte(configs[name]))
		require.NoError(t, err)
		var b strings.Builder
		for l := range int(min(m.NumHiddenLayers, 7)) {
			b.WriteByte("-s"[map[bool]int{true: 1}[m.Slides(l)]])
		}
		return b.String()
	}
	require.Equal(t, "sssssss", window("Mistral-7B-v0.1"))
	require.Equal(t, "-------", window("Mixtral-8x7B-v0.1"))
	require.Equal(t, "-------", window("Qwen2.5-0.5B"))
	require.Equal(t, "s-s-s-s", window("gemma-2-27b"))
	require.Equal(t, "sssss-s", window("gemma-3-4b-it"))
	require.Equal(t, "sssssss", window("Phi-3-mini-4k"))
}

func TestSparseLayers(t *testing.T) {
	text := strings.Replace(configs["Qwen1.5-MoE-A2.7B"], `"decoder_sparse_step": 1`, `"decoder_sparse_step": 2, "mlp_only_layers": [3]`, 1)
	m, err := ParseConfig([]byte(text))
	require.NoError(t, err)
	for l, want := range []bool{false, true, false, false, false, true} {
		require.Equal(t, want, m.Sparse(l), "%d", l)
		_, ok := m.Find(Router, "weight", l)
		require.Equal(t, want, ok)
		_, ok = m.Find(Gate, "weight", l)
		require.Equal(t, !want, ok)
	}
	require.True(t, slices.Contains(m.LinearModules(), "gate_proj"))
}

// FuzzParseConfig checks that what is believed of a config.json can be worked
// with: no panic, nothing out of proportion.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(stories))
	f.Add([]byte(strings.Replace(stories, `"rope_theta": 10000.0`, `"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}`, 1)))
	for _, text := range configs {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"model_type": "llama", "head_dim": 4611686018427387904, "hidden_size": 1e400, "rope_scaling": [], "vocab_size": null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseConfig(text)
		if err != nil {
			return
		}
		list := m.Tensors()
		require.LessOrEqual(t, len(list), 3*maxExperts+maxLayers*20)
		require.Positive(t, m.NumParams())
		for _, x := range list {
			for _, d := range x.Dims {
				require.Positive(t, d)
			}
		}
		if m.HeadDim <= 1<<12 {
			require.Len(t, m.Angles(10).InvFreq, int(m.RotaryDim()/2))
			require.Len(t, m.LocalAngles(10).InvFreq, int(m.RotaryDim()/2))
		}
		require.NotEmpty(t, m.KVs())
		require.NotEmpty(t, m.Members())
	})
}
