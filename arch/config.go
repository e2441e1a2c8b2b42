package arch

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrUnsupported says that a configuration is of a family, or asks for a
// feature, that nibble does not know.
var ErrUnsupported = errors.New("unsupported model")

// Config is what the arithmetic of a model depends on. The names are those that
// most families' config.json has; the rows of Family.Params say how each family
// spells them.
type Config struct {
	HiddenSize            int64
	IntermediateSize      int64
	NumHiddenLayers       int64
	NumAttentionHeads     int64
	NumKeyValueHeads      int64
	HeadDim               int64
	VocabSize             int64
	MaxPositionEmbeddings int64

	// NormEps is rms_norm_eps or layer_norm_epsilon.
	NormEps           float64
	HiddenAct         string
	TieWordEmbeddings bool
	AttentionBias     bool
	MLPBias           bool

	// HeadDimGiven says that the configuration spells head_dim out. llama.cpp's
	// converter writes key and value lengths only then.
	HeadDimGiven bool

	Rope Rope

	// LocalTheta is rope_theta of the layers with a sliding window, 0 if it is
	// that of all.
	LocalTheta float64

	// PartialRotaryFactor is the part of each head that is rotated.
	PartialRotaryFactor float64

	// SlidingWindow is how many tokens, itself included, a token sees in the
	// layers that Slides names; 0 is all before it.
	SlidingWindow    int64
	UseSlidingWindow bool
	MaxWindowLayers  int64
	WindowPattern    int64
	LayerTypes       []string

	QueryPreAttnScalar    float64
	AttnLogitSoftcapping  float64
	FinalLogitSoftcapping float64

	NumExperts                   int64
	NumExpertsPerTok             int64
	MoEIntermediateSize          int64
	SharedExpertIntermediateSize int64
	NormTopKProb                 bool
	DecoderSparseStep            int64
	MLPOnlyLayers                []int64
}

// limit bounds every extent in a configuration, so that products of two of
// them and sums over layers stay far from overflow.
const limit = 1 << 24

// The values of layer_types.
const (
	fullAttention    = "full_attention"
	slidingAttention = "sliding_attention"
)

// Slides reports whether the layer sees no further back than SlidingWindow.
func (c *Config) Slides(layer int) bool {
	return c.SlidingWindow > 0 && layer < len(c.LayerTypes) && c.LayerTypes[layer] == slidingAttention
}

// slide sets LayerTypes, unless the configuration spells it out.
func (c *Config) slide(when func(layer int64) bool) {
	if len(c.LayerTypes) > 0 || c.SlidingWindow == 0 || c.NumHiddenLayers > maxLayers {
		return
	}
	for l := range c.NumHiddenLayers {
		kind := fullAttention
		if when(l) {
			kind = slidingAttention
		}
		c.LayerTypes = append(c.LayerTypes, kind)
	}
}

// AttentionScale returns what the scores of queries and keys are multiplied by.
func (c *Config) AttentionScale() float64 {
	if c.QueryPreAttnScalar > 0 {
		return 1 / math.Sqrt(c.QueryPreAttnScalar)
	}
	return 1 / math.Sqrt(float64(c.HeadDim))
}

// RotaryDim returns how many elements of each head are rotated.
func (c *Config) RotaryDim() int64 { return int64(float64(c.HeadDim) * c.PartialRotaryFactor) }

// Sparse reports whether the MLP of a layer is a mixture of experts.
func (c *Config) Sparse(layer int) bool {
	return c.NumExperts > 0 && !slices.Contains(c.MLPOnlyLayers, int64(layer)) && (int64(layer)+1)%max(1, c.DecoderSparseStep) == 0
}

// maxLayers is the most blocks a model may have (llama.cpp takes 512),
// maxExperts the most experts of all blocks together.
const (
	maxLayers  = 1 << 10
	maxExperts = 1 << 17
)

// New completes and checks the configuration of a model of the family.
func New(f *Family, c *Config) (*Model, error) {
	if c.NumKeyValueHeads == 0 {
		c.NumKeyValueHeads = c.NumAttentionHeads
	}
	if c.HeadDim == 0 && c.NumAttentionHeads > 0 {
		if c.HiddenSize%c.NumAttentionHeads != 0 {
			return nil, fmt.Errorf("hidden_size %d is not a multiple of num_attention_heads %d and there is no head_dim", c.HiddenSize, c.NumAttentionHeads)
		}
		c.HeadDim = c.HiddenSize / c.NumAttentionHeads
	}
	if c.PartialRotaryFactor == 0 {
		c.PartialRotaryFactor = 1
	}
	if c.HiddenAct == "" {
		c.HiddenAct = f.Activations[0]
	}
	if c.Rope.Type == "" {
		c.Rope.Type = "default"
	}
	if len(c.MLPOnlyLayers) == 0 {
		c.MLPOnlyLayers = nil
	}
	if f.Complete != nil {
		f.Complete(c)
	}
	if err := c.check(f); err != nil {
		return nil, err
	}
	return &Model{Family: f, Config: c}, nil
}

func (c *Config) check(f *Family) error {
	type extent struct {
		name string
		n    int64
	}
	list := []extent{
		{"hidden_size", c.HiddenSize}, {"intermediate_size", c.IntermediateSize}, {"num_hidden_layers", c.NumHiddenLayers},
		{"num_attention_heads", c.NumAttentionHeads}, {"num_key_value_heads", c.NumKeyValueHeads},
		{"head_dim", c.HeadDim}, {"vocab_size", c.VocabSize}, {"max_position_embeddings", c.MaxPositionEmbeddings},
	}
	if f.moe() {
		list = append(list, extent{"the number of experts", c.NumExperts}, extent{"num_experts_per_tok", c.NumExpertsPerTok},
			extent{"moe_intermediate_size", c.MoEIntermediateSize})
	}
	for _, v := range list {
		if v.n <= 0 || v.n > limit {
			return fmt.Errorf("%s is %d, want a number from 1 to %d", v.name, v.n, int64(limit))
		}
	}
	switch {
	case c.NumHiddenLayers > maxLayers:
		return fmt.Errorf("num_hidden_layers is %d, want at most %d", c.NumHiddenLayers, maxLayers)
	case c.NumAttentionHeads%c.NumKeyValueHeads != 0:
		return fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.NumAttentionHeads, c.NumKeyValueHeads)
	case c.NumAttentionHeads > limit/c.HeadDim:
		return fmt.Errorf("num_attention_heads %d times head_dim %d is over %d", c.NumAttentionHeads, c.HeadDim, int64(limit))
	case !(c.PartialRotaryFactor > 0 && c.PartialRotaryFactor <= 1):
		return fmt.Errorf("partial_rotary_factor is %v, want a number above 0 and up to 1", c.PartialRotaryFactor)
	case c.RotaryDim()%2 != 0:
		return fmt.Errorf("%d elements of each head are rotated, want an even number", c.RotaryDim())
	case !(c.NormEps >= 0) || math.IsInf(c.NormEps, 0):
		return fmt.Errorf("the norms' epsilon is %v, want a small positive number", c.NormEps)
	case !slices.Contains(f.Activations, c.HiddenAct):
		return fmt.Errorf("%w: hidden_act %q, the %s family has %q", ErrUnsupported, c.HiddenAct, f.Name, f.Activations)
	case f.moe() && (c.NumExperts > maxExperts/c.NumHiddenLayers || c.NumExpertsPerTok > c.NumExperts):
		return fmt.Errorf("num_experts_per_tok is %d of %d experts in each of %d layers", c.NumExpertsPerTok, c.NumExperts, c.NumHiddenLayers)
	case c.SlidingWindow < 0 || c.SharedExpertIntermediateSize < 0 || c.SharedExpertIntermediateSize > limit:
		return fmt.Errorf("sliding_window is %d, shared_expert_intermediate_size %d: want no negative number", c.SlidingWindow, c.SharedExpertIntermediateSize)
	case len(c.LayerTypes) > 0 && int64(len(c.LayerTypes)) != c.NumHiddenLayers:
		return fmt.Errorf("layer_types has %d entries for %d layers", len(c.LayerTypes), c.NumHiddenLayers)
	}
	for _, kind := range c.LayerTypes {
		if kind != fullAttention && kind != slidingAttention {
			return fmt.Errorf("%w: layer_types has %q", ErrUnsupported, kind)
		}
	}
	for _, v := range []float64{c.QueryPreAttnScalar, c.AttnLogitSoftcapping, c.FinalLogitSoftcapping, c.LocalTheta} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return fmt.Errorf("query_pre_attn_scalar %v, attn_logit_softcapping %v, final_logit_softcapping %v, rope_local_base_freq %v: want positive numbers",
				c.QueryPreAttnScalar, c.AttnLogitSoftcapping, c.FinalLogitSoftcapping, c.LocalTheta)
		}
	}
	return c.Rope.check(c.RotaryDim())
}
