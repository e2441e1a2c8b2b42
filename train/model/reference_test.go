package model

import (
	"math"

	"github.com/seed18967229/nibble/arch"
)

// reference is the model in float64, written from the definition with nothing
// shared with the code under test: one token at a time, plain loops.
type reference struct {
	a *arch.Model
	w map[string][]float64
	// lora maps a module to its A, B and scale.
	lora map[string]refLoRA
}

type refLoRA struct {
	a, b  string // names in w
	scale float64
}

func (r *reference) linear(module string, x []float64) []float64 {
	w := r.w[module+".weight"]
	out := len(w) / len(x)
	y := make([]float64, out)
	for o := range y {
		if b := r.w[module+".bias"]; b != nil {
			y[o] = b[o]
		}
		for i, v := range x {
			y[o] += w[o*len(x)+i] * v
		}
	}
	if l, ok := r.lora[module]; ok {
		a, b := r.w[l.a], r.w[l.b]
		rank := len(a) / len(x)
		for k := range rank {
			var u float64
			for i, v := range x {
				u += a[k*len(x)+i] * v
			}
			for o := range y {
				y[o] += l.scale * b[o*rank+k] * u
			}
		}
	}
	return y
}

func (r *reference) norm(name string, x []float64) []float64 {
	w := r.w[name+".weight"]
	var sum float64
	for _, v := range x {
		sum += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(sum/float64(len(x))+r.a.RMSNormEps) * w[i]
	}
	return y
}

func (r *reference) rotate(x []float64, pos int) {
	d := int(r.a.HeadDim)
	freq := r.a.Rope.InvFreq(r.a.HeadDim)
	for h := 0; h < len(x); h += d {
		for i, f := range freq {
			sin, cos := math.Sincos(float64(pos) * f)
			a, b := x[h+i], x[h+i+d/2]
			x[h+i], x[h+i+d/2] = a*cos-b*sin, b*cos+a*sin
		}
	}
}

// logits returns the logits after each token of one sequence.
func (r *reference) logits(tokens []int32) [][]float64 {
	h, d := int(r.a.HiddenSize), int(r.a.HeadDim)
	heads, group := int(r.a.NumAttentionHeads), int(r.a.NumAttentionHeads/r.a.NumKeyValueHeads)
	xs := make([][]float64, len(tokens))
	for i, t := range tokens {
		xs[i] = append([]float64(nil), r.w["model.embed_tokens.weight"][int(t)*h:(int(t)+1)*h]...)
	}
	for l := range int(r.a.NumHiddenLayers) {
		name := func(s string) string { return "model.layers." + string(rune('0'+l)) + "." + s }
		var ks, vs [][]float64
		for i, x := range xs {
			n := r.norm(name("input_layernorm"), x)
			q, k, v := r.linear(name("self_attn.q_proj"), n), r.linear(name("self_attn.k_proj"), n), r.linear(name("self_attn.v_proj"), n)
			r.rotate(q, i)
			r.rotate(k, i)
			ks, vs = append(ks, k), append(vs, v)
			o := make([]float64, heads*d)
			for hd := range heads {
				kh := hd / group
				p := make([]float64, i+1)
				var sum float64
				for j := range p {
					var s float64
					for e := range d {
						s += q[hd*d+e] * ks[j][kh*d+e]
					}
					p[j] = math.Exp(s / math.Sqrt(float64(d)))
					sum += p[j]
				}
				for j := range p {
					for e := range d {
						o[hd*d+e] += p[j] / sum * vs[j][kh*d+e]
					}
				}
			}
			x1 := r.linear(name("self_attn.o_proj"), o)
			for e := range x1 {
				x1[e] += x[e]
			}
			n = r.norm(name("post_attention_layernorm"), x1)
			g, u := r.linear(name("mlp.gate_proj"), n), r.linear(name("mlp.up_proj"), n)
			for e := range g {
				g[e] = g[e] / (1 + math.Exp(-g[e])) * u[e]
			}
			y := r.linear(name("mlp.down_proj"), g)
			for e := range y {
				y[e] += x1[e]
			}
			xs[i] = y
		}
	}
	head := "lm_head"
	if r.a.TieWordEmbeddings {
		head = "model.embed_tokens"
	}
	out := make([][]float64, len(xs))
	for i, x := range xs {
		out[i] = r.linear(head, r.norm("model.norm", x))
	}
	return out
}

// loss returns the sum of the cross-entropies of a sequence's labels.
func (r *reference) loss(tokens []int32, lossFrom int) float64 {
	var sum float64
	for i, l := range r.logits(tokens[:max(0, len(tokens)-1)]) {
		if i+1 < lossFrom {
			continue
		}
		var z float64
		for _, v := range l {
			z += math.Exp(v)
		}
		sum += math.Log(z) - l[tokens[i+1]]
	}
	return sum
}
