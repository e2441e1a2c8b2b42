package arch

// qwen3 is Alibaba's Qwen 3 (modeling_qwen3.py): Qwen 2 with norms of each head
// of query and key, and without biases.
var qwen3 = &Family{
	Name: "qwen3", GGUF: "qwen3",
	ModelTypes:  []string{"qwen3"},
	Classes:     []string{"Qwen3ForCausalLM", "Qwen3Model"},
	Activations: []string{"silu"},
	Tokenizers:  QwenTokenizers,
	Params:      qwenParams(headCountKV.or(32), headDim{always: true, def: 128}, nil, []Param{attentionBias}),
	Complete:    qwenWindows,
	Trunk:       "model.",
	Tensors: tensors(
		embedTokens,
		inputNorm, attention(hasAttentionBias, hasAttentionBias), headNorms,
		mlpNorm, gatedMLP(nil, nil),
		lastNorm, lmHead,
	),
	Differs: windowLost,
}
