package arch

// qwen3moe is Qwen 3's mixtures of experts (modeling_qwen3_moe.py).
var qwen3moe = &Family{
	Name: "qwen3moe", GGUF: "qwen3moe",
	ModelTypes:  []string{"qwen3_moe"},
	Classes:     []string{"Qwen3MoeForCausalLM"},
	Activations: []string{"silu"},
	Tokenizers:  ByteLevelTokenizers,
	Params: qwenParams(headCountKV.or(4), headDim{},
		[]Param{experts.or(128), expertsUsed.or(8)},
		[]Param{expertLength.or(768), normTopKProb.inGGUF(true), decoderSparseStep, mlpOnlyLayers, attentionBias}),
	Complete: qwenWindows,
	Trunk:    "model.",
	Tensors: tensors(
		embedTokens,
		inputNorm, attention(hasAttentionBias, hasAttentionBias), headNorms,
		mlpNorm, gatedMLP(dense, nil), mixture(qwenExperts),
		lastNorm, lmHead,
	),
	Differs: func(c *Config) []string { return append(windowLost(c), normalized(c, true)...) },
}
