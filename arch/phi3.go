package arch

// phi3 is Microsoft's Phi-3 and Phi-4 (modeling_phi3.py): query, key and value
// in one projection, gate and up in another, and in the long-context models
// rotary frequencies divided by factors of their own.
var phi3 = &Family{
	Name: "phi3", GGUF: "phi3",
	ModelTypes:  []string{"phi3"},
	Classes:     []string{"Phi3ForCausalLM"},
	Activations: []string{"silu"},
	Tokenizers:  Phi3Tokenizers,
	Params: []Param{
		ropeJSON{context: 4096, partial: true},
		contextLength.or(4096), longRope{}, embeddingLength, feedForwardLength, blockCount, headCount, headCountKV, rmsEpsilon.or(1e-5),
		rotaryDim{partial: true}, ropeTheta{}, fileType{}, windowKey(slidingWindow),
		vocabSize.or(32064), hiddenAct.or("silu"), tied,
	},
	Complete: func(c *Config) { c.slide(func(int64) bool { return true }) },
	Trunk:    "model.",
	Unused:   []string{".rotary_emb.inv_freq"},
	Tensors: tensors(
		embedTokens,
		inputNorm,
		linear(QKV, "self_attn.qkv_proj", "attn_qkv", qkvDim, hiddenDim, nil, nil),
		linear(AttnOut, "self_attn.o_proj", "attn_output", hiddenDim, queryDim, nil, nil),
		mlpNorm,
		linear(GateUp, "mlp.gate_up_proj", "ffn_up", func(c *Config) int64 { return 2 * c.IntermediateSize }, hiddenDim, nil, nil),
		linear(Down, "mlp.down_proj", "ffn_down", hiddenDim, mlpDim, nil, nil),
		lastNorm, lmHead,
	),
	Generated: longRopeFactors,
	Recover:   recoverLongRope,
	Differs:   windowLost,
}

func qkvDim(c *Config) int64 { return (c.NumAttentionHeads + 2*c.NumKeyValueHeads) * c.HeadDim }

const (
	longFactorsName  = "rope_factors_long.weight"
	shortFactorsName = "rope_factors_short.weight"
)

func longRopeFactors(c *Config) []Generated {
	if c.Rope.Type != "longrope" {
		return nil
	}
	return []Generated{{longFactorsName, narrow(c.Rope.LongFactor)}, {shortFactorsName, narrow(c.Rope.ShortFactor)}}
}

func narrow(list []float64) []float32 {
	out := make([]float32, len(list))
	for i, v := range list {
		out[i] = float32(v)
	}
	return out
}

func recoverLongRope(c *Config, list []Generated) bool {
	if len(list) == 0 {
		return true
	}
	for _, g := range list {
		wide := make([]float64, len(g.Values))
		for i, v := range g.Values {
			wide[i] = shortest(v)
		}
		switch g.Name {
		case longFactorsName:
			c.Rope.LongFactor = wide
		case shortFactorsName:
			c.Rope.ShortFactor = wide
		default:
			return false
		}
	}
	c.Rope.Type = "longrope"
	return c.Rope.checkLong(c.RotaryDim()) == nil
}
