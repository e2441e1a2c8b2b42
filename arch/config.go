package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// ErrUnsupported says that a configuration is of a family, or asks for a
// feature, that nibble does not know.
var ErrUnsupported = errors.New("unsupported model")

// Config is what the arithmetic of a model depends on. The names are those of
// config.json, where the JSON tags spell them.
type Config struct {
	Architectures         []string `json:"architectures"`
	ModelType             string   `json:"model_type"`
	HiddenSize            int64    `json:"hidden_size"`
	IntermediateSize      int64    `json:"intermediate_size"`
	NumHiddenLayers       int64    `json:"num_hidden_layers"`
	NumAttentionHeads     int64    `json:"num_attention_heads"`
	NumKeyValueHeads      int64    `json:"num_key_value_heads"`
	HeadDim               int64    `json:"head_dim"`
	VocabSize             int64    `json:"vocab_size"`
	MaxPositionEmbeddings int64    `json:"max_position_embeddings"`
	RMSNormEps            float64  `json:"rms_norm_eps"`
	HiddenAct             string   `json:"hidden_act"`
	TieWordEmbeddings     bool     `json:"tie_word_embeddings"`
	AttentionBias         bool     `json:"attention_bias"`
	MLPBias               bool     `json:"mlp_bias"`
	Rope                  Rope     `json:"-"`
}

// Rope is the rotary position embedding: rope_theta and rope_scaling in the
// config.json of transformers 4, rope_parameters in that of transformers 5.
type Rope struct {
	Theta float64 `json:"rope_theta"`

	// Type is "default", "linear" or "llama3".
	Type string `json:"rope_type"`

	Factor                        float64 `json:"factor"`
	LowFreqFactor                 float64 `json:"low_freq_factor"`
	HighFreqFactor                float64 `json:"high_freq_factor"`
	OriginalMaxPositionEmbeddings int64   `json:"original_max_position_embeddings"`
}

// limit bounds every extent in a configuration, so that products of two of
// them and sums over layers stay far from overflow.
const limit = 1 << 24

// ParseConfig reads the text of a config.json. A missing value gets
// transformers' default; one that is missing and has none, or that no model can
// have, is an error that names it.
func ParseConfig(text []byte) (*Model, error) {
	var in struct {
		Config
		RopeTheta      float64 `json:"rope_theta"`
		RopeScaling    *rope   `json:"rope_scaling"`
		RopeParameters *rope   `json:"rope_parameters"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, err
	}
	c := &in.Config
	c.Rope = Rope{Theta: 10000, Type: "default"}
	if in.RopeTheta != 0 {
		c.Rope.Theta = in.RopeTheta
	}
	for _, r := range []*rope{in.RopeScaling, in.RopeParameters} {
		if r != nil {
			r.apply(&c.Rope)
		}
	}
	return New(c)
}

// rope is rope_scaling or rope_parameters; "type" is the old name of
// "rope_type".
type rope struct {
	Rope
	OldType string `json:"type"`
}

func (r *rope) apply(to *Rope) {
	if r.Theta == 0 {
		r.Theta = to.Theta
	}
	if r.Type == "" {
		r.Type = r.OldType
	}
	if r.Type == "" {
		r.Type = "default"
	}
	*to = r.Rope
}

// New completes and checks a configuration and returns the model it describes.
func New(c *Config) (*Model, error) {
	f, err := lookup(c)
	if err != nil {
		return nil, err
	}
	if c.NumKeyValueHeads == 0 {
		c.NumKeyValueHeads = c.NumAttentionHeads
	}
	if c.HeadDim == 0 && c.NumAttentionHeads > 0 {
		if c.HiddenSize%c.NumAttentionHeads != 0 {
			return nil, fmt.Errorf("hidden_size %d is not a multiple of num_attention_heads %d and there is no head_dim", c.HiddenSize, c.NumAttentionHeads)
		}
		c.HeadDim = c.HiddenSize / c.NumAttentionHeads
	}
	if c.HiddenAct == "" {
		c.HiddenAct = "silu"
	}
	if c.MaxPositionEmbeddings == 0 {
		c.MaxPositionEmbeddings = 2048
	}
	if c.RMSNormEps == 0 {
		c.RMSNormEps = 1e-6
	}
	for _, v := range []struct {
		name string
		n    int64
	}{
		{"hidden_size", c.HiddenSize}, {"intermediate_size", c.IntermediateSize}, {"num_hidden_layers", c.NumHiddenLayers},
		{"num_attention_heads", c.NumAttentionHeads}, {"num_key_value_heads", c.NumKeyValueHeads},
		{"head_dim", c.HeadDim}, {"vocab_size", c.VocabSize}, {"max_position_embeddings", c.MaxPositionEmbeddings},
	} {
		if v.n <= 0 || v.n > limit {
			return nil, fmt.Errorf("%s is %d, want a number from 1 to %d", v.name, v.n, int64(limit))
		}
	}
	switch {
	case c.NumHiddenLayers > 1<<10:
		return nil, fmt.Errorf("num_hidden_layers is %d, want at most %d", c.NumHiddenLayers, 1<<10)
	case c.NumAttentionHeads%c.NumKeyValueHeads != 0:
		return nil, fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.NumAttentionHeads, c.NumKeyValueHeads)
	case c.HeadDim%2 != 0:
		return nil, fmt.Errorf("head_dim is %d, want an even number", c.HeadDim)
	case c.NumAttentionHeads > limit/c.HeadDim:
		return nil, fmt.Errorf("num_attention_heads %d times head_dim %d is over %d", c.NumAttentionHeads, c.HeadDim, int64(limit))
	case c.RMSNormEps < 0 || math.IsNaN(c.RMSNormEps) || math.IsInf(c.RMSNormEps, 0):
		return nil, fmt.Errorf("rms_norm_eps is %v, want a small positive number", c.RMSNormEps)
	case c.HiddenAct != f.Activation:
		return nil, fmt.Errorf("%w: hidden_act %q, the %s family has %q", ErrUnsupported, c.HiddenAct, f.Name, f.Activation)
	}
	if err := c.Rope.check(); err != nil {
		return nil, err
	}
	return &Model{Family: f, Config: c}, nil
}

func (r *Rope) check() error {
	if !(r.Theta > 0) || math.IsInf(r.Theta, 0) {
		return fmt.Errorf("rope_theta is %v, want a positive number", r.Theta)
	}
	switch r.Type {
	case "default":
		return nil
	case "linear", "llama3":
		if !(r.Factor > 0) || math.IsInf(r.Factor, 0) {
			return fmt.Errorf("rope factor is %v, want a positive number", r.Factor)
		}
	default:
		return fmt.Errorf("%w: rope_type %q", ErrUnsupported, r.Type)
	}
	if r.Type == "llama3" && !(r.HighFreqFactor > r.LowFreqFactor && r.LowFreqFactor > 0 && r.OriginalMaxPositionEmbeddings > 0) {
		return fmt.Errorf("rope_type llama3 wants high_freq_factor > low_freq_factor > 0 and original_max_position_embeddings, not %v, %v and %d",
			r.HighFreqFactor, r.LowFreqFactor, r.OriginalMaxPositionEmbeddings)
	}
	return nil
}

// Factors returns by what each of the headDim/2 rotary frequencies is divided:
// 1 everywhere for "default". GGUF stores the factors of "llama3" as
// rope_freqs.weight. The interpolation is that of transformers'
// modeling_rope_utils.py and of llama.cpp's converter (conversion/llama.py),
// which compute it in float32; so does this, to the same bits.
func (r *Rope) Factors(headDim int64) []float32 {
	out := make([]float32, headDim/2)
	for i := range out {
		out[i] = 1
		switch r.Type {
		case "linear":
			out[i] = float32(r.Factor)
		case "llama3":
			exponent := float32(2*i) / float32(headDim)
			freq := 1 / float32(math.Pow(r.Theta, float64(exponent)))
			wavelen := float32(2*math.Pi) / freq
			old, low, high := float32(r.OriginalMaxPositionEmbeddings), float32(r.LowFreqFactor), float32(r.HighFreqFactor)
			switch {
			case wavelen < old/high:
			case wavelen > old/low:
				out[i] = float32(r.Factor)
			default:
				smooth := (old/wavelen - low) / (high - low)
				out[i] = 1 / ((1-smooth)/float32(r.Factor) + smooth)
			}
		}
	}
	return out
}

// InvFreq returns the headDim/2 rotary frequencies in radians per position.
func (r *Rope) InvFreq(headDim int64) []float64 {
	out := make([]float64, headDim/2)
	for i, f := range r.Factors(headDim) {
		out[i] = math.Pow(r.Theta, -float64(2*i)/float64(headDim)) / float64(f)
	}
	return out
}
