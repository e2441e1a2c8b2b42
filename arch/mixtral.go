package arch

// mixtral is Mistral AI's mixtures of experts (modeling_mixtral.py). To GGUF
// they are llama with experts.
var mixtral = &Family{
	Name: "mixtral", GGUF: "llama",
	ModelTypes:  []string{"mixtral"},
	Classes:     []string{"MixtralForCausalLM"},
	Activations: []string{"silu"},
	Rotary:      HalfSplit,
	GGUFRotary:  Interleaved,
	Tokenizers:  LlamaTokenizers,
	Params: llamaParams(contextLength.or(131072), headCountKV.or(8), rmsEpsilon.or(1e-5), headDim{},
		[]Param{experts.names("num_local_experts").or(8), expertsUsed.or(2)},
		slidingWindow, layerTypes),
	Complete: func(c *Config) {
		c.slide(func(int64) bool { return true })
		c.MoEIntermediateSize, c.NormTopKProb, c.DecoderSparseStep = c.IntermediateSize, true, 1
	},
	Trunk:  "model.",
	Unused: []string{".rotary_emb.inv_freq"},
	Tensors: tensors(
		embedTokens,
		inputNorm, attention(nil, nil),
		mlpNorm, mixture(expertNames{router: "block_sparse_moe.gate", experts: "block_sparse_moe.experts", gate: "w1", up: "w3", down: "w2"}),
		lastNorm, lmHead,
	),
	Generated: ropeFreqs,
	Recover:   llama3Factors,
	Differs:   windowLost,
}
