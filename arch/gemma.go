package arch

// gemma is Google's Gemma (modeling_gemma.py): embeddings scaled by the root of
// their width, norms that scale by 1 + weight, and GELU in the MLP.
var gemma = &Family{
	Name: "gemma", GGUF: "gemma",
	ModelTypes:      []string{"gemma"},
	Classes:         []string{"GemmaForCausalLM"},
	Activations:     []string{geluTanh, "gelu", "gelu_new"},
	Tokenizers:      GemmaTokenizers,
	Params:          append(gemmaParams(headCountKV.or(16)), hiddenAct.or(geluTanh)),
	ScaleEmbeddings: true,
	Trunk:           "model.",
	Unused:          []string{"lm_head.weight"},
	Tensors: tensors(
		embedTokens,
		plusOne(inputNorm), attention(nil, nil),
		plusOne(mlpNorm), gatedMLP(nil, nil),
		plusOne(lastNorm),
	),
	Differs: func(c *Config) []string {
		if c.HiddenAct == "gelu" {
			return []string{"hidden_act: llama.cpp computes the tanh approximation of gelu"}
		}
		return nil
	},
}

const geluTanh = "gelu_pytorch_tanh"

// gemmaParams are the hyperparameters of Gemma 1 and 2 (GemmaModel in
// conversion/gemma.py).
func gemmaParams(kv value[int64]) []Param {
	return []Param{
		ropeJSON{}, contextLength.or(8192), embeddingLength, blockCount, feedForwardLength, headCount, kv, rmsEpsilon,
		headDim{always: true, def: 256}, fileType{}, vocabSize.or(256000), tied.or(true),
	}
}
