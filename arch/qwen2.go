package arch

// qwen2 is Alibaba's Qwen 1.5, 2 and 2.5 (modeling_qwen2.py).
var qwen2 = &Family{
	Name: "qwen2", GGUF: "qwen2",
	ModelTypes:  []string{"qwen2"},
	Classes:     []string{"Qwen2ForCausalLM", "Qwen2Model"},
	Activations: []string{"silu"},
	Tokenizers:  QwenTokenizers,
	Params:      qwenParams(headCountKV.or(32), headDim{}, nil, nil),
	Complete:    qwenWindows,
	Trunk:       "model.",
	Tensors: tensors(
		embedTokens,
		inputNorm, attention(always, nil),
		mlpNorm, gatedMLP(nil, nil),
		lastNorm, lmHead,
	),
	Differs: windowLost,
}

// qwenParams are the hyperparameters of all of Qwen's models.
func qwenParams(kv value[int64], head headDim, before, after []Param) []Param {
	return textParams(contextLength.or(32768), kv, rmsEpsilon, head, before, append(after,
		vocabSize.or(151936), hiddenAct.or("silu"), tied, useSlidingWindow, slidingWindow.or(4096), maxWindowLayers, layerTypes))
}

// qwenWindows gives the upper layers a sliding window if the configuration asks
// for it; its size alone does not.
func qwenWindows(c *Config) {
	if !c.UseSlidingWindow {
		c.SlidingWindow = 0
	}
	c.slide(func(layer int64) bool { return layer >= c.MaxWindowLayers })
}
