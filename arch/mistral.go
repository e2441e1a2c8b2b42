package arch

// mistral is Mistral AI's dense models (modeling_mistral.py). To GGUF they are
// llama.
var mistral = &Family{
	Name: "mistral", GGUF: "llama",
	ModelTypes:  []string{"mistral"},
	Classes:     []string{"MistralForCausalLM"},
	Activations: []string{"silu"},
	Rotary:      HalfSplit,
	GGUFRotary:  Interleaved,
	Tokenizers:  LlamaTokenizers,
	Params: llamaParams(contextLength.or(131072), headCountKV.or(8), rmsEpsilon, headDim{}, nil,
		slidingWindow.or(4096), layerTypes),
	Complete: func(c *Config) { c.slide(func(int64) bool { return true }) },
	Trunk:    "model.",
	Unused:   []string{".rotary_emb.inv_freq"},
	Tensors: tensors(
		embedTokens,
		inputNorm, attention(nil, nil),
		mlpNorm, gatedMLP(nil, nil),
		lastNorm, lmHead,
	),
	Generated: ropeFreqs,
	Recover:   llama3Factors,
	Differs:   windowLost,
}

// windowLost says that GGUF has no place for the sliding window of these
// families.
func windowLost(c *Config) []string {
	if c.SlidingWindow == 0 || c.SlidingWindow >= c.MaxPositionEmbeddings {
		return nil
	}
	return []string{"sliding_window: llama.cpp attends to all tokens, where transformers looks back a window"}
}
