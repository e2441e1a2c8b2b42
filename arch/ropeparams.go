package arch

import (
	"encoding/json"
	"fmt"
)

func errorIn(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))
}

// ropeJSON is what config.json says of the rotary embedding: rope_theta,
// rope_scaling and more beside each other in transformers 4, rope_parameters in
// transformers 5, where layers with a sliding window may have their own.
type ropeJSON struct {
	// theta is the default of rope_theta, local that of rope_local_base_freq.
	theta, local float64

	// context is the default of original_max_position_embeddings where that is
	// a member of its own.
	context int64

	// partial says that partial_rotary_factor is a member.
	partial bool
}

// ropeMember is rope_scaling or rope_parameters; "type" is the old name of
// "rope_type" and "su" that of "longrope".
type ropeMember struct {
	Theta     float64         `json:"rope_theta"`
	Type      string          `json:"rope_type"`
	OldType   string          `json:"type"`
	Factor    float64         `json:"factor"`
	Low       float64         `json:"low_freq_factor"`
	High      float64         `json:"high_freq_factor"`
	Original  float64         `json:"original_max_position_embeddings"`
	Attention float64         `json:"attention_factor"`
	Attn      float64         `json:"attn_factor"`
	BetaFast  float64         `json:"beta_fast"`
	BetaSlow  float64         `json:"beta_slow"`
	Extra     float64         `json:"extrapolation_factor"`
	MScale    float64         `json:"mscale"`
	MScaleAll float64         `json:"mscale_all_dim"`
	Truncate  *bool           `json:"truncate"`
	Short     []float64       `json:"short_factor"`
	Long      []float64       `json:"long_factor"`
	Partial   float64         `json:"partial_rotary_factor"`
	Full      json.RawMessage `json:"full_attention"`
	Sliding   *ropeMember     `json:"sliding_attention"`
}

func (p ropeJSON) readJSON(o object, c *Config) error {
	c.Rope = Rope{Theta: 10000, Type: "default"}
	if p.theta != 0 {
		c.Rope.Theta = p.theta
	}
	c.LocalTheta, c.PartialRotaryFactor, c.Rope.OriginalMaxPositionEmbeddings = p.local, 1, p.context
	for _, f := range []struct {
		names []string
		to    *float64
	}{
		{[]string{"rope_theta", "rotary_emb_base"}, &c.Rope.Theta},
		{[]string{"rope_local_base_freq"}, &c.LocalTheta},
		{[]string{"partial_rotary_factor"}, &c.PartialRotaryFactor},
	} {
		if name, raw := o.find(f.names); raw != nil {
			if err := decode(raw, f.to); err != nil {
				return errorIn(name, err)
			}
		}
	}
	if name, raw := o.find([]string{"original_max_position_embeddings"}); raw != nil {
		if err := decode(raw, &c.Rope.OriginalMaxPositionEmbeddings); err != nil {
			return errorIn(name, err)
		}
	}
	for _, name := range []string{"rope_scaling", "rope_parameters"} {
		_, raw := o.find([]string{name})
		if raw == nil {
			continue
		}
		var m ropeMember
		if err := json.Unmarshal(raw, &m); err != nil {
			return fmt.Errorf("%s: %.200s", name, err)
		}
		if m.Sliding != nil && m.Sliding.Theta != 0 {
			c.LocalTheta = m.Sliding.Theta
		}
		if m.Full != nil {
			full := m.Full
			m = ropeMember{}
			if err := json.Unmarshal(full, &m); err != nil {
				return fmt.Errorf("%s: full_attention: %.200s", name, err)
			}
		}
		m.apply(c)
	}
	if c.PartialRotaryFactor != 1 && !p.partial {
		return errorIn("partial_rotary_factor", unsupported("%v; the family rotates whole heads", c.PartialRotaryFactor))
	}
	return nil
}

func (m *ropeMember) apply(c *Config) {
	old := c.Rope
	c.Rope = Rope{
		Theta: m.Theta, Type: m.Type, Factor: m.Factor, LowFreqFactor: m.Low, HighFreqFactor: m.High,
		OriginalMaxPositionEmbeddings: int64(m.Original), AttentionFactor: m.Attention,
		BetaFast: m.BetaFast, BetaSlow: m.BetaSlow, ExtrapolationFactor: m.Extra, MScale: m.MScale, MScaleAllDim: m.MScaleAll,
		NoTruncate: m.Truncate != nil && !*m.Truncate, ShortFactor: m.Short, LongFactor: m.Long,
	}
	r := &c.Rope
	if r.Theta == 0 {
		r.Theta = old.Theta
	}
	if r.OriginalMaxPositionEmbeddings == 0 {
		r.OriginalMaxPositionEmbeddings = old.OriginalMaxPositionEmbeddings
	}
	if r.AttentionFactor == 0 {
		r.AttentionFactor = m.Attn
	}
	if r.Type == "" {
		r.Type = m.OldType
	}
	switch r.Type {
	case "":
		r.Type = "default"
	case "su":
		r.Type = "longrope"
	}
	if m.Partial != 0 {
		c.PartialRotaryFactor = m.Partial
	}
}

func (p ropeJSON) writeJSON(c *Config) []Member {
	r := &c.Rope
	out := []Member{{"rope_theta", r.Theta}, {"rope_scaling", r.scaling(p)}}
	if p.local != 0 {
		out = append(out, Member{"rope_local_base_freq", c.LocalTheta})
	}
	if p.context != 0 {
		out = append(out, Member{"original_max_position_embeddings", r.OriginalMaxPositionEmbeddings})
	}
	if p.partial {
		out = append(out, Member{"partial_rotary_factor", c.PartialRotaryFactor})
	}
	return out
}

// scaling returns rope_scaling as transformers 4 has it, nil for none.
func (r *Rope) scaling(p ropeJSON) any {
	out := map[string]any{}
	set := func(name string, v float64) {
		if v != 0 {
			out[name] = v
		}
	}
	switch r.Type {
	case "default":
		return nil
	case "longrope":
		// Phi-3's configuration class takes these three members and no other.
		out["type"], out["short_factor"], out["long_factor"] = r.Type, r.ShortFactor, r.LongFactor
		if p.context != 0 {
			return out
		}
	}
	out["rope_type"] = r.Type
	set("factor", r.Factor)
	set("low_freq_factor", r.LowFreqFactor)
	set("high_freq_factor", r.HighFreqFactor)
	set("attention_factor", r.AttentionFactor)
	set("beta_fast", r.BetaFast)
	set("beta_slow", r.BetaSlow)
	set("extrapolation_factor", r.ExtrapolationFactor)
	set("mscale", r.MScale)
	set("mscale_all_dim", r.MScaleAllDim)
	if r.OriginalMaxPositionEmbeddings != 0 {
		out["original_max_position_embeddings"] = r.OriginalMaxPositionEmbeddings
	}
	if r.NoTruncate {
		out["truncate"] = false
	}
	return out
}

func (ropeJSON) writeGGUF(*Config, string) []KV { return nil }

func (p ropeJSON) readGGUF(_ GGUF, _ string, c *Config) error {
	c.Rope = Rope{Theta: 10000, Type: "default", OriginalMaxPositionEmbeddings: p.context}
	c.LocalTheta, c.PartialRotaryFactor = p.local, 1
	return nil
}

// ropeTheta is rope.freq_base, and with it that of the layers with a sliding
// window.
type ropeTheta struct{ local bool }

func (ropeTheta) readJSON(object, *Config) error { return nil }
func (ropeTheta) writeJSON(*Config) []Member     { return nil }

func (p ropeTheta) writeGGUF(c *Config, arch string) []KV {
	out := []KV{{Key: arch + "rope.freq_base", Value: float32(c.Rope.Theta)}}
	if p.local {
		out = append(out, KV{Key: arch + "rope.freq_base_swa", Value: float32(c.LocalTheta)})
	}
	return out
}

func (p ropeTheta) readGGUF(g GGUF, arch string, c *Config) error {
	if _, err := get(g, arch+"rope.freq_base", &c.Rope.Theta); err != nil || !p.local {
		return err
	}
	_, err := get(g, arch+"rope.freq_base_swa", &c.LocalTheta)
	return err
}

// ropeScaling is the rotary scaling that has keys of its own. That of llama3 is
// a tensor, and "dynamic" GGUF does not hold.
type ropeScaling struct{}

func (ropeScaling) readJSON(object, *Config) error { return nil }
func (ropeScaling) writeJSON(*Config) []Member     { return nil }

const (
	keyScalingType    = "rope.scaling.type"
	keyScalingFactor  = "rope.scaling.factor"
	keyScalingContext = "rope.scaling.original_context_length"
	keyScalingAttn    = "rope.scaling.attn_factor"
)

// yarnKeys are those of yarn's further numbers, which are written if the
// configuration has them.
func yarnKeys(r *Rope) []struct {
	key string
	at  *float64
} {
	return []struct {
		key string
		at  *float64
	}{
		{"rope.scaling.yarn_ext_factor", &r.ExtrapolationFactor},
		{"rope.scaling.yarn_attn_factor", &r.AttentionFactor},
		{"rope.scaling.yarn_beta_fast", &r.BetaFast},
		{"rope.scaling.yarn_beta_slow", &r.BetaSlow},
	}
}

func (ropeScaling) writeGGUF(c *Config, arch string) []KV {
	r := &c.Rope
	switch r.Type {
	case "linear", "yarn":
	case "longrope":
		return []KV{{Key: arch + keyScalingType, Value: r.Type}}
	default:
		return nil
	}
	out := []KV{{Key: arch + keyScalingType, Value: r.Type}, {Key: arch + keyScalingFactor, Value: float32(r.Factor)}}
	if r.Type == "yarn" {
		out = append(out, KV{Key: arch + keyScalingContext, Value: uint32(c.yarnContext())})
		for _, k := range yarnKeys(r) {
			if *k.at != 0 {
				out = append(out, KV{Key: arch + k.key, Value: float32(*k.at)})
			}
		}
	}
	return out
}

func (ropeScaling) readGGUF(g GGUF, arch string, c *Config) error {
	r := &c.Rope
	var kind string
	found, err := get(g, arch+keyScalingType, &kind)
	if err != nil || !found || kind == "none" {
		return err
	}
	r.Type = kind
	switch kind {
	case "linear", "yarn", "longrope":
	default:
		return errorIn(arch+keyScalingType, unsupported("rotary scaling %q", kind))
	}
	r.Factor = 1
	if _, err := get(g, arch+keyScalingFactor, &r.Factor); err != nil {
		return err
	}
	if kind == "longrope" {
		r.Factor = 0
	}
	if _, err := get(g, arch+keyScalingContext, &r.OriginalMaxPositionEmbeddings); err != nil {
		return err
	}
	for _, k := range yarnKeys(r) {
		if _, err := get(g, arch+k.key, k.at); err != nil {
			return err
		}
	}
	return nil
}

// longRope is what Phi-3 says of its rotary scaling: how long the original
// context was, always; and, before anything else, what sines and cosines are
// multiplied by if there are factors.
type longRope struct{}

func (longRope) readJSON(object, *Config) error { return nil }
func (longRope) writeJSON(*Config) []Member     { return nil }

func (longRope) writeGGUF(c *Config, arch string) []KV {
	out := []KV{{Key: arch + keyScalingContext, Value: uint32(c.Rope.OriginalMaxPositionEmbeddings)}}
	if c.Rope.Type == "longrope" {
		// The converter does not look at attention_factor.
		out = append(out, KV{Key: arch + keyScalingAttn, Value: float32(c.longRopeDefault()), Early: true})
	}
	return out
}

func (longRope) readGGUF(g GGUF, arch string, c *Config) error {
	if _, err := get(g, arch+keyScalingContext, &c.Rope.OriginalMaxPositionEmbeddings); err != nil {
		return err
	}
	var scale float64
	found, err := get(g, arch+keyScalingAttn, &scale)
	if err != nil || !found {
		return err
	}
	// What follows from the other numbers need not be said.
	if float32(c.longRopeDefault()) != float32(scale) {
		c.Rope.AttentionFactor = scale
	}
	return nil
}
