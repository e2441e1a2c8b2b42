package arch

// gemma3 is the text part of Gemma 3 (modeling_gemma3.py): Gemma 2 with norms
// of each head of query and key instead of the bounds, and five layers of six
// with a sliding window and a rotary embedding of their own.
var gemma3 = &Family{
	Name: "gemma3", GGUF: "gemma3",
	ModelTypes:  []string{"gemma3_text", "gemma3"},
	Classes:     []string{"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"},
	Activations: []string{geluTanh},
	Tokenizers:  Gemma3Tokenizers,
	Params: []Param{
		ropeJSON{theta: 1e6, local: 10000},
		blockCount.or(26), contextLength.or(131072), embeddingLength.or(2304), feedForwardLength.or(9216), headCount.or(8), headCountKV.or(4),
		ropeScaling{}, ropeTheta{local: true}, rmsEpsilon, headDim{always: true, def: 256}, fileType{},
		finalSoftcapping.onlyIf(func(c *Config) bool { return c.FinalLogitSoftcapping != 0 }),
		windowKey(slidingWindow.or(4096)).onlyIf(func(c *Config) bool { return c.WindowPattern != 1 }),
		vocabSize.or(262208), hiddenAct.names("hidden_activation").or(geluTanh), tied.or(true), queryPreAttnScalar.or(256).inGGUF(0),
		integer("sliding_window_pattern", "", func(c *Config) *int64 { return &c.WindowPattern }).or(6), layerTypes,
	},
	Complete: func(c *Config) {
		c.slide(func(layer int64) bool { return (layer+1)%max(1, c.WindowPattern) != 0 })
		gemmaScale(c, 62)
	},
	ScaleEmbeddings: true,
	Trunk:           "model.",
	Tensors: tensors(
		embedTokens,
		plusOne(inputNorm), attention(nil, nil), plusOne(headNorms), gemmaNorms,
		gatedMLP(nil, nil), gemmaPostNorm,
		plusOne(lastNorm), lmHead,
	),
	Differs: func(c *Config) []string { return scaleDiffers(c, 62) },
}
