package arch

import "slices"

// llama is Meta's Llama, versions 1 to 3, as transformers' LlamaForCausalLM
// names it (modeling_llama.py) and llama.cpp's LLM_ARCH_LLAMA stores it.
var llama = &Family{
	Name: "llama", GGUF: "llama",
	ModelTypes:  []string{"llama"},
	Classes:     []string{"LlamaForCausalLM", "LLaMAForCausalLM"},
	Activations: []string{"silu"},
	Rotary:      HalfSplit,
	GGUFRotary:  Interleaved,
	Tokenizers:  LlamaTokenizers,
	Params: llamaParams(contextLength.or(2048), headCountKV, rmsEpsilon, headDim{always: true}, nil,
		attentionBias, mlpBias),
	Trunk:  "model.",
	Unused: []string{".rotary_emb.inv_freq"},
	Tensors: tensors(
		embedTokens,
		inputNorm, attention(hasAttentionBias, hasAttentionBias),
		mlpNorm, gatedMLP(nil, hasMLPBias),
		lastNorm, lmHead,
	),
	Generated: ropeFreqs,
	Recover:   llama3Factors,
}

// llamaParams are the hyperparameters of what GGUF calls llama (LlamaModel in
// conversion/llama.py).
func llamaParams(context, kv value[int64], eps value[float64], head headDim, before []Param, more ...Param) []Param {
	size := vocabSize
	size.key = "vocab_size"
	return textParams(context, kv, eps, head, before, append([]Param{size, rotaryDim{}, hiddenAct.or("silu"), tied}, more...))
}

// ropeFreqsName is the tensor that holds the factors of llama3's rotary
// scaling.
const ropeFreqsName = "rope_freqs.weight"

func ropeFreqs(c *Config) []Generated {
	if c.Rope.Type != "llama3" {
		return nil
	}
	return []Generated{{ropeFreqsName, c.Rope.Factors(c.HeadDim)}}
}

// llama3Factors explains rope_freqs.weight. GGUF stores the factors of llama3
// scaling and not what they were computed from; those are found by trying what
// Meta has published, and believed only if they give the same factors bit for
// bit.
func llama3Factors(c *Config, list []Generated) bool {
	if len(list) == 0 {
		return true
	}
	factors := list[0].Values
	if len(list) > 1 || list[0].Name != ropeFreqsName || len(factors) == 0 {
		return false
	}
	// The factor itself stands at the low end of the frequencies.
	r := Rope{Theta: c.Rope.Theta, Type: "llama3", Factor: float64(factors[len(factors)-1]), LowFreqFactor: 1, HighFreqFactor: 4}
	for old := int64(1 << 5); old <= 1<<20; old *= 2 {
		r.OriginalMaxPositionEmbeddings = old
		if slices.Equal(r.Factors(c.HeadDim), factors) {
			c.Rope = r
			return true
		}
	}
	return false
}
