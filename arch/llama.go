package arch

// llama is Meta's Llama, versions 1 to 3, as transformers' LlamaForCausalLM
// names it (modeling_llama.py) and llama.cpp's LLM_ARCH_LLAMA stores it.
var llama = &Family{
	Name:       "llama",
	ModelType:  "llama",
	Class:      "LlamaForCausalLM",
	Activation: "silu",
	Rotary:     HalfSplit,
	GGUFRotary: Interleaved,
	Tensors: []Template{
		{Role: Embedding, HF: "model.embed_tokens", GGUF: "token_embd", Part: "weight", Shape: vocabByHidden},

		{Role: AttnNorm, HF: "model.layers.{}.input_layernorm", GGUF: "blk.{}.attn_norm", Part: "weight", Shape: hidden},
		{Role: Query, HF: "model.layers.{}.self_attn.q_proj", GGUF: "blk.{}.attn_q", Part: "weight", Linear: true, Shape: qByHidden, RotaryHeads: qHeads},
		{Role: Query, HF: "model.layers.{}.self_attn.q_proj", GGUF: "blk.{}.attn_q", Part: "bias", If: attentionBias, Shape: q, RotaryHeads: qHeads},
		{Role: Key, HF: "model.layers.{}.self_attn.k_proj", GGUF: "blk.{}.attn_k", Part: "weight", Linear: true, Shape: kvByHidden, RotaryHeads: kvHeads},
		{Role: Key, HF: "model.layers.{}.self_attn.k_proj", GGUF: "blk.{}.attn_k", Part: "bias", If: attentionBias, Shape: kv, RotaryHeads: kvHeads},
		{Role: Value, HF: "model.layers.{}.self_attn.v_proj", GGUF: "blk.{}.attn_v", Part: "weight", Linear: true, Shape: kvByHidden},
		{Role: Value, HF: "model.layers.{}.self_attn.v_proj", GGUF: "blk.{}.attn_v", Part: "bias", If: attentionBias, Shape: kv},
		{Role: AttnOut, HF: "model.layers.{}.self_attn.o_proj", GGUF: "blk.{}.attn_output", Part: "weight", Linear: true, Shape: hiddenByQ},
		{Role: AttnOut, HF: "model.layers.{}.self_attn.o_proj", GGUF: "blk.{}.attn_output", Part: "bias", If: attentionBias, Shape: hidden},

		{Role: MLPNorm, HF: "model.layers.{}.post_attention_layernorm", GGUF: "blk.{}.ffn_norm", Part: "weight", Shape: hidden},
		{Role: Gate, HF: "model.layers.{}.mlp.gate_proj", GGUF: "blk.{}.ffn_gate", Part: "weight", Linear: true, Shape: mlpByHidden},
		{Role: Gate, HF: "model.layers.{}.mlp.gate_proj", GGUF: "blk.{}.ffn_gate", Part: "bias", If: mlpBias, Shape: mlp},
		{Role: Up, HF: "model.layers.{}.mlp.up_proj", GGUF: "blk.{}.ffn_up", Part: "weight", Linear: true, Shape: mlpByHidden},
		{Role: Up, HF: "model.layers.{}.mlp.up_proj", GGUF: "blk.{}.ffn_up", Part: "bias", If: mlpBias, Shape: mlp},
		{Role: Down, HF: "model.layers.{}.mlp.down_proj", GGUF: "blk.{}.ffn_down", Part: "weight", Linear: true, Shape: hiddenByMLP},
		{Role: Down, HF: "model.layers.{}.mlp.down_proj", GGUF: "blk.{}.ffn_down", Part: "bias", If: mlpBias, Shape: hidden},

		{Role: FinalNorm, HF: "model.norm", GGUF: "output_norm", Part: "weight", Shape: hidden},
		{Role: Head, HF: "lm_head", GGUF: "output", Part: "weight", If: untied, Shape: vocabByHidden},
	},
}
