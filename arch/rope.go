package arch

import (
	"fmt"
	"math"
	"slices"
)

// Rope is the rotary position embedding: rope_theta and rope_scaling in the
// config.json of transformers 4, rope_parameters in that of transformers 5.
type Rope struct {
	Theta float64

	// Type is one of RopeTypes.
	Type string

	Factor                        float64
	LowFreqFactor, HighFreqFactor float64 // llama3
	OriginalMaxPositionEmbeddings int64   // llama3, yarn, longrope

	// AttentionFactor scales the sines and cosines of yarn and longrope; 0 is
	// what follows from the other numbers.
	AttentionFactor float64

	// Of yarn; 0 is transformers' default.
	BetaFast, BetaSlow, ExtrapolationFactor, MScale, MScaleAllDim float64
	NoTruncate                                                    bool

	// ShortFactor and LongFactor divide the frequencies of longrope for
	// sequences up to OriginalMaxPositionEmbeddings and for longer ones.
	ShortFactor, LongFactor []float64
}

// RopeTypes lists what Rope.Type can be. "dynamic" is "default" for as long as
// a sequence is no longer than the model was trained for.
func RopeTypes() []string {
	return []string{"default", "linear", "llama3", "yarn", "longrope", "dynamic"}
}

func (r *Rope) check(dim int64) error {
	if !(r.Theta > 0) || math.IsInf(r.Theta, 0) {
		return fmt.Errorf("rope_theta is %v, want a positive number", r.Theta)
	}
	for _, v := range []float64{r.Factor, r.LowFreqFactor, r.HighFreqFactor, r.AttentionFactor, r.BetaFast, r.BetaSlow, r.MScale, r.MScaleAllDim} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return fmt.Errorf("rope_scaling holds %v, want positive numbers", v)
		}
	}
	if r.OriginalMaxPositionEmbeddings < 0 || r.OriginalMaxPositionEmbeddings > limit {
		return fmt.Errorf("original_max_position_embeddings is %d, want a number from 1 to %d", r.OriginalMaxPositionEmbeddings, limit)
	}
	switch r.Type {
	case "default", "dynamic":
	case "linear", "llama3", "yarn":
		if r.Factor == 0 {
			return fmt.Errorf("rope_type %s wants a positive factor", r.Type)
		}
	case "longrope":
		return r.checkLong(dim)
	default:
		return fmt.Errorf("%w: rope_type %q (known: %v)", ErrUnsupported, r.Type, RopeTypes())
	}
	if r.Type == "llama3" && !(r.HighFreqFactor > r.LowFreqFactor && r.LowFreqFactor > 0 && r.OriginalMaxPositionEmbeddings > 0) {
		return fmt.Errorf("rope_type llama3 wants high_freq_factor > low_freq_factor > 0 and original_max_position_embeddings, not %v, %v and %d",
			r.HighFreqFactor, r.LowFreqFactor, r.OriginalMaxPositionEmbeddings)
	}
	return nil
}

func (r *Rope) checkLong(dim int64) error {
	for _, list := range [][]float64{r.ShortFactor, r.LongFactor} {
		if int64(len(list)) != dim/2 {
			return fmt.Errorf("rope_type longrope wants short_factor and long_factor of %d numbers, not %d and %d", dim/2, len(r.ShortFactor), len(r.LongFactor))
		}
		if slices.ContainsFunc(list, func(f float64) bool { return !(f > 0) || math.IsInf(f, 0) }) {
			return fmt.Errorf("rope_type longrope has factors that are no positive numbers")
		}
	}
	if r.OriginalMaxPositionEmbeddings < 2 {
		return fmt.Errorf("rope_type longrope wants original_max_position_embeddings, not %d", r.OriginalMaxPositionEmbeddings)
	}
	return nil
}

// Factors returns by what each of the dim/2 rotary frequencies is divided: 1
// everywhere for "default". GGUF stores the factors of "llama3" as
// rope_freqs.weight. The interpolation is that of transformers'
// modeling_rope_utils.py and of llama.cpp's converter (conversion/llama.py),
// which compute it in float32; so does this, to the same bits.
func (r *Rope) Factors(dim int64) []float32 {
	out := make([]float32, dim/2)
	for i := range out {
		out[i] = 1
		switch r.Type {
		case "linear":
			out[i] = float32(r.Factor)
		case "llama3":
			exponent := float32(2*i) / float32(dim)
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

// Angles is what a rotary embedding turns by: InvFreq radians per position for
// each pair of elements, and Scale, which its sines and cosines are multiplied
// by.
type Angles struct {
	InvFreq []float64
	Scale   float64
}

// Angles returns the frequencies of dim rotated elements for sequences of up to
// positions tokens.
func (c *Config) Angles(positions int) Angles {
	r, dim := &c.Rope, c.RotaryDim()
	a := Angles{InvFreq: make([]float64, dim/2), Scale: 1}
	for i, f := range r.Factors(dim) {
		a.InvFreq[i] = math.Pow(r.Theta, -float64(2*i)/float64(dim)) / float64(f)
	}
	switch r.Type {
	case "yarn":
		r.yarn(a.InvFreq, float64(c.yarnContext()))
		a.Scale = r.yarnScale()
	case "longrope":
		factors := r.ShortFactor
		if int64(positions) > r.OriginalMaxPositionEmbeddings {
			factors = r.LongFactor
		}
		for i, f := range factors {
			a.InvFreq[i] /= f
		}
		a.Scale = c.LongRopeScale()
	}
	return a
}

// LocalAngles returns those of the layers with a sliding window.
func (c *Config) LocalAngles(positions int) Angles {
	if c.LocalTheta == 0 {
		return c.Angles(positions)
	}
	dim := c.RotaryDim()
	a := Angles{InvFreq: make([]float64, dim/2), Scale: 1}
	for i := range a.InvFreq {
		a.InvFreq[i] = math.Pow(c.LocalTheta, -float64(2*i)/float64(dim))
	}
	return a
}

// LongRopeScale returns what longrope multiplies sines and cosines by.
func (c *Config) LongRopeScale() float64 {
	if c.Rope.AttentionFactor != 0 {
		return c.Rope.AttentionFactor
	}
	return c.longRopeDefault()
}

func (c *Config) longRopeDefault() float64 {
	old := float64(c.Rope.OriginalMaxPositionEmbeddings)
	if factor := float64(c.MaxPositionEmbeddings) / old; factor > 1 {
		return math.Sqrt(1 + math.Log(factor)/math.Log(old))
	}
	return 1
}

func (c *Config) yarnContext() int64 {
	if n := c.Rope.OriginalMaxPositionEmbeddings; n > 0 {
		return n
	}
	return c.MaxPositionEmbeddings
}

// yarn blends the frequencies with those of positions divided by Factor (Peng
// et al., 2023; _compute_yarn_parameters in transformers).
func (r *Rope) yarn(invFreq []float64, context float64) {
	fast, slow := 32.0, 1.0
	if r.BetaFast != 0 {
		fast = r.BetaFast
	}
	if r.BetaSlow != 0 {
		slow = r.BetaSlow
	}
	dim := float64(2 * len(invFreq))
	turns := func(n float64) float64 {
		return dim * math.Log(context/(n*2*math.Pi)) / (2 * math.Log(r.Theta))
	}
	low, high := turns(fast), turns(slow)
	if !r.NoTruncate {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(low, 0), min(high, dim-1)
	if low == high {
		high += 0.001
	}
	for i, f := range invFreq {
		ramp := min(max((float64(i)-low)/(high-low), 0), 1)
		invFreq[i] = f/r.Factor*ramp + f*(1-ramp)
	}
}

func (r *Rope) yarnScale() float64 {
	if r.AttentionFactor != 0 {
		return r.AttentionFactor
	}
	scale := func(m float64) float64 {
		if r.Factor <= 1 {
			return 1
		}
		return 0.1*m*math.Log(r.Factor) + 1
	}
	if r.MScale != 0 && r.MScaleAllDim != 0 {
		return scale(r.MScale) / scale(r.MScaleAllDim)
	}
	return scale(1)
}
