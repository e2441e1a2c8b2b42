package arch

// gemma2 is Gemma 2 (modeling_gemma2.py): norms on both sides of attention and
// MLP, every other layer with a sliding window, scores and logits held in
// bounds by a tanh.
var gemma2 = &Family{
	Name: "gemma2", GGUF: "gemma2",
	ModelTypes:  []string{"gemma2"},
	Classes:     []string{"Gemma2ForCausalLM"},
	Activations: []string{geluTanh},
	Tokenizers:  Gemma2Tokenizers,
	Params: append(gemmaParams(headCountKV.or(4)), attnSoftcapping.or(50), finalSoftcapping.or(30), windowKey(slidingWindow.or(4096)),
		hiddenAct.names("hidden_activation").or(geluTanh), queryPreAttnScalar.or(256).inGGUF(0), layerTypes),
	Complete: func(c *Config) {
		c.slide(func(layer int64) bool { return layer%2 == 0 })
		gemmaScale(c, 46)
	},
	ScaleEmbeddings: true,
	Trunk:           "model.",
	Unused:          []string{"lm_head.weight"},
	Tensors: tensors(
		embedTokens,
		plusOne(inputNorm), attention(nil, nil), gemmaNorms,
		gatedMLP(nil, nil), gemmaPostNorm,
		plusOne(lastNorm),
	),
	Differs: func(c *Config) []string { return scaleDiffers(c, 46) },
}

var (
	gemmaNorms = plusOne(
		norm(PostAttnNorm, "post_attention_layernorm", "post_attention_norm"),
		norm(MLPNorm, "pre_feedforward_layernorm", "ffn_norm"))
	gemmaPostNorm = plusOne(norm(PostMLPNorm, "post_feedforward_layernorm", "post_ffw_norm"))
)

// windowKey is the row of a sliding window that GGUF holds.
func windowKey(v value[int64]) value[int64] {
	v.key = "attention.sliding_window"
	return v
}

// gemmaScale sets query_pre_attn_scalar where the configuration comes from a
// GGUF file, which does not hold it, as llama.cpp guesses it: by the number of
// layers of the largest model.
func gemmaScale(c *Config, largest int64) {
	if c.QueryPreAttnScalar == 0 {
		c.QueryPreAttnScalar = llamaScale(c, largest)
	}
}

func llamaScale(c *Config, largest int64) float64 {
	if c.NumHiddenLayers == largest && c.NumAttentionHeads > 0 {
		return float64(c.HiddenSize / c.NumAttentionHeads)
	}
	return float64(c.HeadDim)
}

func scaleDiffers(c *Config, largest int64) []string {
	if c.QueryPreAttnScalar == llamaScale(c, largest) {
		return nil
	}
	return []string{"query_pre_attn_scalar: GGUF does not hold it, and llama.cpp takes another for this number of layers"}
}
