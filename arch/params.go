package arch

// The rows that the families' tables of hyperparameters are written with. JSON
// names are those of transformers' configuration classes, GGUF's keys those of
// gguf-py/gguf/constants.py.

func integer(json, key string, at func(c *Config) *int64) value[int64] {
	return value[int64]{json: []string{json}, key: key, at: at}
}

func float(json, key string, at func(c *Config) *float64) value[float64] {
	return value[float64]{json: []string{json}, key: key, at: at}
}

func flag(json string, at func(c *Config) *bool) value[bool] {
	return value[bool]{json: []string{json}, at: at}
}

var (
	blockCount        = integer("num_hidden_layers", "block_count", func(c *Config) *int64 { return &c.NumHiddenLayers }).required()
	contextLength     = integer("max_position_embeddings", "context_length", func(c *Config) *int64 { return &c.MaxPositionEmbeddings }).required()
	embeddingLength   = integer("hidden_size", "embedding_length", func(c *Config) *int64 { return &c.HiddenSize }).required()
	feedForwardLength = integer("intermediate_size", "feed_forward_length", func(c *Config) *int64 { return &c.IntermediateSize }).required()
	headCount         = integer("num_attention_heads", "attention.head_count", func(c *Config) *int64 { return &c.NumAttentionHeads }).required()
	headCountKV       = integer("num_key_value_heads", "attention.head_count_kv", func(c *Config) *int64 { return &c.NumKeyValueHeads })
	rmsEpsilon        = float("rms_norm_eps", "attention.layer_norm_rms_epsilon", func(c *Config) *float64 { return &c.NormEps }).or(1e-6)
	vocabSize         = integer("vocab_size", "", func(c *Config) *int64 { return &c.VocabSize }).inGGUF(0)

	hiddenAct     = value[string]{json: []string{"hidden_act"}, at: func(c *Config) *string { return &c.HiddenAct }}
	tied          = flag("tie_word_embeddings", func(c *Config) *bool { return &c.TieWordEmbeddings })
	attentionBias = flag("attention_bias", func(c *Config) *bool { return &c.AttentionBias })
	mlpBias       = flag("mlp_bias", func(c *Config) *bool { return &c.MLPBias })

	slidingWindow    = value[int64]{json: []string{"sliding_window"}, at: func(c *Config) *int64 { return &c.SlidingWindow }, null: true}
	useSlidingWindow = flag("use_sliding_window", func(c *Config) *bool { return &c.UseSlidingWindow })
	maxWindowLayers  = integer("max_window_layers", "", func(c *Config) *int64 { return &c.MaxWindowLayers }).or(28)
	layerTypes       = value[[]string]{json: []string{"layer_types"}, at: func(c *Config) *[]string { return &c.LayerTypes }}

	experts            = integer("num_experts", "expert_count", func(c *Config) *int64 { return &c.NumExperts }).names("num_experts", "num_local_experts").required()
	expertsUsed        = integer("num_experts_per_tok", "expert_used_count", func(c *Config) *int64 { return &c.NumExpertsPerTok }).required()
	expertLength       = integer("moe_intermediate_size", "expert_feed_forward_length", func(c *Config) *int64 { return &c.MoEIntermediateSize })
	sharedExpertLength = integer("shared_expert_intermediate_size", "expert_shared_feed_forward_length", func(c *Config) *int64 { return &c.SharedExpertIntermediateSize })
	normTopKProb       = flag("norm_topk_prob", func(c *Config) *bool { return &c.NormTopKProb })
	decoderSparseStep  = integer("decoder_sparse_step", "", func(c *Config) *int64 { return &c.DecoderSparseStep }).or(1)
	mlpOnlyLayers      = value[[]int64]{json: []string{"mlp_only_layers"}, at: func(c *Config) *[]int64 { return &c.MLPOnlyLayers }}
	queryPreAttnScalar = float("query_pre_attn_scalar", "", func(c *Config) *float64 { return &c.QueryPreAttnScalar }).whole()
	finalSoftcapping   = value[float64]{json: []string{"final_logit_softcapping"}, key: "final_logit_softcapping", at: func(c *Config) *float64 { return &c.FinalLogitSoftcapping }, null: true}
	attnSoftcapping    = value[float64]{json: []string{"attn_logit_softcapping"}, key: "attn_logit_softcapping", at: func(c *Config) *float64 { return &c.AttnLogitSoftcapping }, null: true}
)

// textParams is what llama.cpp's converter writes for most families, in its
// order (TextModel.set_gguf_parameters in conversion/base.py); more is what the
// family adds before the file type and after it.
func textParams(context value[int64], kv value[int64], eps value[float64], head headDim, before, after []Param) []Param {
	list := []Param{ropeJSON{}, blockCount, context, embeddingLength, feedForwardLength, headCount, kv, ropeScaling{}, ropeTheta{}, eps}
	list = append(list, before...)
	list = append(list, head, fileType{})
	return append(list, after...)
}

// headDim is head_dim. Its length is that of keys and of values, and GGUF says
// so if the configuration did, or always.
type headDim struct {
	always bool
	def    int64
}

func (h headDim) readJSON(o object, c *Config) error {
	name, raw := o.find([]string{"head_dim"})
	if c.HeadDimGiven = name != ""; !c.HeadDimGiven {
		c.HeadDim = h.def
		return nil
	}
	if err := decode(raw, &c.HeadDim); err != nil {
		return errorIn("head_dim", err)
	}
	return nil
}

func (h headDim) writeJSON(c *Config) []Member {
	if !h.always && !c.HeadDimGiven {
		return nil
	}
	return []Member{{"head_dim", c.HeadDim}}
}

func (h headDim) writeGGUF(c *Config, arch string) []KV {
	if !h.always && !c.HeadDimGiven {
		return nil
	}
	n := uint32(c.HeadDim)
	return []KV{{Key: arch + "attention.key_length", Value: n}, {Key: arch + "attention.value_length", Value: n}}
}

func (h headDim) readGGUF(g GGUF, arch string, c *Config) error {
	var err error
	if c.HeadDimGiven, err = get(g, arch+"attention.key_length", &c.HeadDim); err != nil {
		return err
	}
	value := c.HeadDim
	if found, err := get(g, arch+"attention.value_length", &value); err != nil {
		return err
	} else if found && value != c.HeadDim {
		return errorIn(arch+"attention.value_length", unsupported("values of %d elements beside keys of %d", value, c.HeadDim))
	}
	return nil
}

// rotaryDim is rope.dimension_count, which follows from the other numbers. It
// can be less than a head only if partial says so.
type rotaryDim struct{ partial bool }

func (rotaryDim) readJSON(object, *Config) error { return nil }
func (rotaryDim) writeJSON(*Config) []Member     { return nil }

func (rotaryDim) writeGGUF(c *Config, arch string) []KV {
	return []KV{{Key: arch + "rope.dimension_count", Value: uint32(c.RotaryDim())}}
}

// readGGUF takes a share of the head for what it is. A file without a length of
// keys has heads of this size.
func (p rotaryDim) readGGUF(g GGUF, arch string, c *Config) error {
	var n int64
	found, err := get(g, arch+"rope.dimension_count", &n)
	if err != nil || !found {
		return err
	}
	head := c.HeadDim
	if head == 0 && c.NumAttentionHeads > 0 {
		head = c.HiddenSize / c.NumAttentionHeads
	}
	if n <= 0 || n > head || n < head && !p.partial {
		return errorIn(arch+"rope.dimension_count", unsupported("%d of the %d elements of a head are rotated", n, head))
	}
	c.PartialRotaryFactor = float64(n) / float64(head)
	return nil
}

// fileType is the place of general.file_type.
type fileType struct{}

func (fileType) readJSON(object, *Config) error       { return nil }
func (fileType) writeJSON(*Config) []Member           { return nil }
func (fileType) readGGUF(GGUF, string, *Config) error { return nil }
func (fileType) writeGGUF(*Config, string) []KV       { return []KV{{Key: KeyFileType}} }
