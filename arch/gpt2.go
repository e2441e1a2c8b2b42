package arch

// gpt2 is OpenAI's GPT-2 (modeling_gpt2.py): learned positions, LayerNorms with
// biases, query, key and value in one projection, and an MLP without a gate.
// Its weights are stored as [in, out].
var gpt2 = &Family{
	Name: "gpt2", GGUF: "gpt2",
	ModelTypes:  []string{"gpt2"},
	Classes:     []string{"GPT2LMHeadModel", "GPT2Model"},
	Activations: []string{"gelu_new", geluTanh},
	Tokenizers:  ByteLevelTokenizers,
	Params: []Param{
		ropeJSON{},
		blockCount.names("n_layer", "num_hidden_layers"),
		contextLength.names("n_positions", "n_ctx", "max_position_embeddings").or(1024),
		embeddingLength.names("n_embd", "hidden_size"),
		value[int64]{json: []string{"n_inner"}, key: "feed_forward_length", at: func(c *Config) *int64 { return &c.IntermediateSize }, null: true},
		headCount.names("n_head", "num_attention_heads"),
		float("layer_norm_epsilon", "attention.layer_norm_epsilon", func(c *Config) *float64 { return &c.NormEps }).or(1e-5),
		fileType{},
		vocabSize.or(50257), hiddenAct.names("activation_function").or("gelu_new"), tied.or(true),
	},
	Complete: func(c *Config) {
		if c.IntermediateSize == 0 {
			c.IntermediateSize = 4 * c.HiddenSize
		}
	},
	Trunk:  "transformer.",
	Unused: []string{".attn.bias", ".attn.masked_bias"},
	Tensors: tensors(
		[]Template{
			{Role: Embedding, HF: "transformer.wte", GGUF: "token_embd", Part: "weight", Shape: vocabByHidden},
			{Role: Position, HF: "transformer.wpe", GGUF: "position_embd", Part: "weight", Wide: true,
				Shape: func(c *Config) []int64 { return []int64{c.MaxPositionEmbeddings, c.HiddenSize} }},
		},
		layerNorm(AttnNorm, "transformer.h.{}.ln_1", "blk.{}.attn_norm"),
		conv1D(QKV, "attn.c_attn", "attn_qkv", qkvDim, hiddenDim),
		conv1D(AttnOut, "attn.c_proj", "attn_output", hiddenDim, queryDim),
		layerNorm(MLPNorm, "transformer.h.{}.ln_2", "blk.{}.ffn_norm"),
		conv1D(Up, "mlp.c_fc", "ffn_up", mlpDim, hiddenDim),
		conv1D(Down, "mlp.c_proj", "ffn_down", hiddenDim, mlpDim),
		layerNorm(FinalNorm, "transformer.ln_f", "output_norm"),
		lmHead,
	),
}

func layerNorm(role Role, hf, gguf string) []Template {
	return []Template{
		{Role: role, HF: hf, GGUF: gguf, Part: "weight", Shape: hidden},
		{Role: role, HF: hf, GGUF: gguf, Part: "bias", Shape: hidden},
	}
}

// conv1D is a linear layer with its bias whose weight is stored as [in, out].
func conv1D(role Role, hf, gguf string, out, in func(c *Config) int64) []Template {
	t := linear(role, "", gguf, out, in, nil, always)
	for i := range t {
		t[i].HF = "transformer.h.{}." + hf
	}
	t[0].Transposed = true
	t[0].Shape = func(c *Config) []int64 { return []int64{in(c), out(c)} }
	return t
}
