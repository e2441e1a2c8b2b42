package arch

import "slices"

// The groups of tensors that the families' tables are put together from, by
// the names of transformers' Llama and of GGUF.

const (
	hfLayer   = "model.layers.{}."
	ggufLayer = "blk.{}."
)

// tensors joins groups and single rows into a table.
func tensors(groups ...[]Template) []Template { return slices.Concat(groups...) }

var (
	embedTokens = []Template{{Role: Embedding, HF: "model.embed_tokens", GGUF: "token_embd", Part: "weight", Shape: vocabByHidden}}

	lmHead = []Template{{Role: Head, HF: "lm_head", GGUF: "output", Part: "weight", If: untied, Optional: true, Shape: vocabByHidden}}

	inputNorm = norm(AttnNorm, "input_layernorm", "attn_norm")
	mlpNorm   = norm(MLPNorm, "post_attention_layernorm", "ffn_norm")
	lastNorm  = []Template{{Role: FinalNorm, HF: "model.norm", GGUF: "output_norm", Part: "weight", Shape: hidden}}

	headNorms = []Template{
		{Role: QueryNorm, HF: hfLayer + "self_attn.q_norm", GGUF: ggufLayer + "attn_q_norm", Part: "weight", Shape: head},
		{Role: KeyNorm, HF: hfLayer + "self_attn.k_norm", GGUF: ggufLayer + "attn_k_norm", Part: "weight", Shape: head},
	}
)

// norm is a norm over the hidden state of a block.
func norm(role Role, hf, gguf string) []Template {
	return []Template{{Role: role, HF: hfLayer + hf, GGUF: ggufLayer + gguf, Part: "weight", Shape: hidden}}
}

// plusOne is a group of norms of which GGUF holds the weight plus 1.
func plusOne(groups ...[]Template) []Template {
	list := tensors(groups...)
	for i := range list {
		list[i].PlusOne = true
	}
	return list
}

// condition says when a model has a tensor.
type condition = func(c *Config, layer int) bool

// linear is the weight of a linear layer of a block, and its bias if that can
// be.
func linear(role Role, hf, gguf string, out, in func(c *Config) int64, when, bias condition) []Template {
	t := Template{Role: role, HF: hfLayer + hf, GGUF: ggufLayer + gguf, Part: "weight", Linear: true, If: when,
		Shape: func(c *Config) []int64 { return []int64{out(c), in(c)} }}
	if bias == nil {
		return []Template{t}
	}
	b := t
	b.Part, b.Linear, b.If = "bias", false, bias
	b.Shape = func(c *Config) []int64 { return []int64{out(c)} }
	return []Template{t, b}
}

// rotated marks the projections whose rows are in a rotary layout.
func rotated(list []Template, heads func(c *Config) int64) []Template {
	for i := range list {
		list[i].RotaryHeads = heads
	}
	return list
}

// attention is the four projections, with biases on the first three and on the
// last as the conditions say; nil is never.
func attention(bias, outBias condition) []Template {
	return tensors(
		rotated(linear(Query, "self_attn.q_proj", "attn_q", queryDim, hiddenDim, nil, bias), qHeads),
		rotated(linear(Key, "self_attn.k_proj", "attn_k", keyDim, hiddenDim, nil, bias), kvHeads),
		linear(Value, "self_attn.v_proj", "attn_v", keyDim, hiddenDim, nil, bias),
		linear(AttnOut, "self_attn.o_proj", "attn_output", hiddenDim, queryDim, nil, outBias),
	)
}

// gatedMLP is the three projections of an MLP, in the layers that when names.
func gatedMLP(when, bias condition) []Template {
	return tensors(
		linear(Gate, "mlp.gate_proj", "ffn_gate", mlpDim, hiddenDim, when, bias),
		linear(Up, "mlp.up_proj", "ffn_up", mlpDim, hiddenDim, when, bias),
		linear(Down, "mlp.down_proj", "ffn_down", hiddenDim, mlpDim, when, bias),
	)
}

// expertNames are the names of a mixture of experts: of its router and, under
// experts.N, of an expert's projections.
type expertNames struct{ router, experts, gate, up, down string }

// mixture is a mixture of experts.
func mixture(n expertNames) []Template {
	expert := func(role Role, hf, gguf string, out, in func(c *Config) int64) []Template {
		t := linear(role, n.experts+".{}."+hf, gguf, out, in, sparse, nil)
		t[0].Experts = numExperts
		return t
	}
	return tensors(
		[]Template{{Role: Router, HF: hfLayer + n.router, GGUF: ggufLayer + "ffn_gate_inp", Part: "weight", If: sparse, Wide: true,
			Shape: func(c *Config) []int64 { return []int64{c.NumExperts, c.HiddenSize} }}},
		expert(Gate, n.gate, "ffn_gate_exps", expertDim, hiddenDim),
		expert(Up, n.up, "ffn_up_exps", expertDim, hiddenDim),
		expert(Down, n.down, "ffn_down_exps", hiddenDim, expertDim),
	)
}

// qwenExperts are the names of Qwen's.
var qwenExperts = expertNames{router: "mlp.gate", experts: "mlp.experts", gate: "gate_proj", up: "up_proj", down: "down_proj"}

// sharedExpert is the expert that every token goes through.
var sharedExpert = tensors(
	linear(SharedGate, "mlp.shared_expert.gate_proj", "ffn_gate_shexp", sharedDim, hiddenDim, sparse, nil),
	linear(SharedUp, "mlp.shared_expert.up_proj", "ffn_up_shexp", sharedDim, hiddenDim, sparse, nil),
	linear(SharedDown, "mlp.shared_expert.down_proj", "ffn_down_shexp", hiddenDim, sharedDim, sparse, nil),
	[]Template{{Role: SharedRouter, HF: hfLayer + "mlp.shared_expert_gate", GGUF: ggufLayer + "ffn_gate_inp_shexp", Part: "weight", If: sparse, Wide: true,
		Shape: func(c *Config) []int64 { return []int64{1, c.HiddenSize} }}},
)
