package arch

// qwen2moe is Qwen's mixtures of experts with a shared one
// (modeling_qwen2_moe.py).
var qwen2moe = &Family{
	Name: "qwen2moe", GGUF: "qwen2moe",
	ModelTypes:  []string{"qwen2_moe"},
	Classes:     []string{"Qwen2MoeForCausalLM"},
	Activations: []string{"silu"},
	Tokenizers:  ByteLevelTokenizers,
	Params: qwenParams(headCountKV.or(16), headDim{},
		[]Param{experts.or(60), expertsUsed.or(4)},
		[]Param{expertLength.or(1408), sharedExpertLength.or(5632), normTopKProb, decoderSparseStep, mlpOnlyLayers}),
	Complete: qwenWindows,
	Trunk:    "model.",
	Tensors: tensors(
		embedTokens,
		inputNorm, attention(always, nil),
		mlpNorm, gatedMLP(dense, nil), mixture(qwenExperts), sharedExpert,
		lastNorm, lmHead,
	),
	Differs: func(c *Config) []string { return append(windowLost(c), normalized(c, false)...) },
}

// normalized says if llama.cpp weights the chosen experts otherwise than the
// configuration asks for.
func normalized(c *Config, always bool) []string {
	if c.NormTopKProb == always {
		return nil
	}
	return []string{"norm_topk_prob: llama.cpp does not read it and takes the opposite for this architecture"}
}
