package arch

import (
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
	require.Equal(t, int64(260032), m.Params())
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
	for name, c := range map[string]struct {
		text string
		want Rope
	}{
		"none":    {`"x": 1`, Rope{Theta: 10000, Type: "default"}},
		"null":    {`"rope_theta": 5e5, "rope_scaling": null`, Rope{Theta: 5e5, Type: "default"}},
		"old":     {`"rope_scaling": {"type": "linear", "factor": 2}`, Rope{Theta: 10000, Type: "linear", Factor: 2}},
		"llama 3": {`"rope_theta": 500000.0, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}`, Rope{500000, "llama3", 8, 1, 4, 8192}},
		"new":     {`"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}`, Rope{Theta: 1e6, Type: "default"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.NewReplacer(`"rope_theta": 10000.0`, c.text).Replace(stories)
			m, err := ParseConfig([]byte(text))
			require.NoError(t, err)
			require.Equal(t, c.want, m.Rope)
		})
	}
}

func TestLlama3Factors(t *testing.T) {
	r := Rope{Theta: 500000, Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 8192}
	f := r.Factors(128)
	require.Len(t, f, 64)
	require.Equal(t, float32(1), f[0])
	require.Equal(t, float32(8), f[63])
	// From transformers 5.23.0, ROPE_INIT_FUNCTIONS["llama3"] of that
	// configuration with 128 elements a head; it computes in float32.
	inv := r.InvFreq(128)
	for i, want := range map[int]float64{
		0: 1, 1: 0.8146172165870667, 28: 0.0032114461064338684, 29: 0.0021665706299245358, 30: 0.0013718936825171113,
		33: 0.0003126936499029398, 35: 9.556212171446532e-05, 36: 7.784655463183299e-05, 40: 3.428102354519069e-05,
		63: 3.068925877869333e-07,
	} {
		require.InEpsilon(t, want, inv[i], 1e-6, "%d", i)
	}
	lin := Rope{Theta: 10000, Type: "linear", Factor: 2}
	require.Equal(t, 0.5, lin.InvFreq(8)[0])
}

func TestImpossibleConfigs(t *testing.T) {
	for name, c := range map[string][3]string{
		"family":      {`"model_type": "llama"`, `"model_type": "bloom"`, `model_type "bloom" (known: llama)`},
		"no size":     {`"hidden_size": 64`, `"x": 1`, "hidden_size is 0"},
		"negative":    {`"vocab_size": 512`, `"vocab_size": -512`, "vocab_size is -512"},
		"huge":        {`"vocab_size": 512`, `"vocab_size": 9000000000`, "vocab_size is 9000000000"},
		"layers":      {`"num_hidden_layers": 5`, `"num_hidden_layers": 100000`, "num_hidden_layers is 100000"},
		"type":        {`"hidden_size": 64`, `"hidden_size": "64"`, "hidden_size"},
		"heads":       {`"num_key_value_heads": 4`, `"num_key_value_heads": 3`, "not a multiple of num_key_value_heads 3"},
		"odd head":    {`"num_key_value_heads": 4`, `"num_key_value_heads": 4, "head_dim": 7`, "head_dim is 7"},
		"no head dim": {`"hidden_size": 64`, `"hidden_size": 65`, "not a multiple of num_attention_heads"},
		"activation":  {`"silu"`, `"gelu"`, `hidden_act "gelu"`},
		"eps":         {`1e-05`, `-1e-05`, "rms_norm_eps"},
		"theta":       {`10000.0`, `-1`, "rope_theta"},
		"rope type":   {`"rope_theta": 10000.0`, `"rope_scaling": {"rope_type": "yarn", "factor": 2}`, `rope_type "yarn"`},
		"rope factor": {`"rope_theta": 10000.0`, `"rope_scaling": {"rope_type": "linear"}`, "rope factor"},
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
		require.False(t, seen[f.Name] || seen[f.ModelType+"!"] || seen[f.Class])
		seen[f.Name], seen[f.ModelType+"!"], seen[f.Class] = true, true, true
		got, err := ByGGUF(f.Name)
		require.NoError(t, err)
		require.Same(t, f, got)
	}
	_, err := ByGGUF("none")
	require.ErrorIs(t, err, ErrUnsupported)
}

// FuzzParseConfig checks that what is believed of a config.json can be worked
// with: no panic, nothing out of proportion.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(stories))
	f.Add([]byte(strings.Replace(stories, `"rope_theta": 10000.0`, `"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}`, 1)))
	f.Add([]byte(`{"model_type": "llama", "head_dim": 4611686018427387904, "hidden_size": 1e400, "rope_scaling": [], "vocab_size": null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseConfig(text)
		if err != nil {
			return
		}
		list := m.Tensors()
		require.LessOrEqual(t, len(list), 1024*16+4)
		require.Positive(t, m.Params())
		for _, x := range list {
			for _, d := range x.Dims {
				require.Positive(t, d)
			}
		}
		if m.HeadDim <= 1<<12 {
			require.Len(t, m.Rope.InvFreq(m.HeadDim), int(m.HeadDim/2))
		}
	})
}
