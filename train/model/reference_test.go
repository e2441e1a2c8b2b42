package model

import (
	"math"
	"slices"

	"github.com/seed18967229/nibble/arch"
)

// reference is the model in float64, written from the definition with nothing
// shared with the code under test: one token at a time, plain loops.
type reference struct {
	a *arch.Model
	w map[string][]float64
	// lora maps a module to its A, B and scale.
	lora map[string]refLoRA
	// see, if it is not nil, gets what each module is given.
	see func(module string, x []float64)
}

type refLoRA struct {
	a, b, magnitude string // names in w
	scale           float64

	// norms are constant: no gradient flows through them.
	norms []float64
}

// measure finds the norms of the weights with magnitudes.
func (r *reference) measure() {
	for _, t := range r.a.Tensors() {
		module := t.Module()
		l, ok := r.lora[module]
		if !ok || l.magnitude == "" || t.Part != "weight" {
			continue
		}
		l.norms = make([]float64, t.Out())
		a, b := r.w[l.a], r.w[l.b]
		rank := len(a) / t.In()
		for o := range l.norms {
			for i := range t.In() {
				at := o*t.In() + i
				if t.Transposed {
					at = i*t.Out() + o
				}
				v := r.w[t.Name][at]
				for k := range rank {
					v += l.scale * b[o*rank+k] * a[k*t.In()+i]
				}
				l.norms[o] += v * v
			}
			l.norms[o] = math.Sqrt(l.norms[o])
		}
		r.lora[module] = l
	}
}

// times returns x·Wᵀ + bias + adapter of a module; transposed says that W is
// stored as [in, out].
func (r *reference) times(module string, x []float64, transposed bool) []float64 {
	if r.see != nil {
		r.see(module, x)
	}
	w := r.w[module+".weight"]
	out := len(w) / len(x)
	y := make([]float64, out)
	for o := range y {
		for i, v := range x {
			at := o*len(x) + i
			if transposed {
				at = i*out + o
			}
			y[o] += w[at] * v
		}
	}
	embed, _ := r.module(arch.Embedding, -1)
	if l, ok := r.lora[module]; ok && module != embed {
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
		if l.magnitude != "" {
			for o, m := range r.w[l.magnitude] {
				y[o] *= m / l.norms[o]
			}
		}
	}
	for o, b := range r.w[module+".bias"] {
		y[o] += b
	}
	return y
}

// embedding returns the embedding of a token with what its adapter adds.
func (r *reference) embedding(module string, token int) []float64 {
	h := int(r.a.HiddenSize)
	x := append([]float64(nil), r.w[module+".weight"][token*h:(token+1)*h]...)
	if l, ok := r.lora[module]; ok {
		a, b := r.w[l.a], r.w[l.b]
		rank := len(b) / h
		for e := range x {
			for k := range rank {
				x[e] += l.scale * b[e*rank+k] * a[k*len(a)/rank+token]
			}
		}
	}
	return x
}

func (r *reference) has(role arch.Role, layer int) bool {
	_, ok := r.a.Find(role, "weight", layer)
	return ok
}

func (r *reference) module(role arch.Role, layer int) (string, bool) {
	t, _ := r.a.Find(role, "weight", layer)
	return t.Module(), t.Transposed
}

func (r *reference) linear(role arch.Role, layer int, x []float64) []float64 {
	module, transposed := r.module(role, layer)
	return r.times(module, x, transposed)
}

// norm normalizes each run of len(weight) elements.
func (r *reference) norm(role arch.Role, layer int, x []float64) []float64 {
	t, _ := r.a.Find(role, "weight", layer)
	w, b := r.w[t.Name], r.w[t.Module()+".bias"]
	h := len(w)
	y := make([]float64, len(x))
	for at := 0; at < len(x); at += h {
		var mean, sum float64
		if b != nil {
			for _, v := range x[at : at+h] {
				mean += v / float64(h)
			}
		}
		for _, v := range x[at : at+h] {
			sum += (v - mean) * (v - mean)
		}
		for i, v := range x[at : at+h] {
			scale := w[i]
			if t.PlusOne {
				scale++
			}
			y[at+i] = (v - mean) / math.Sqrt(sum/float64(h)+r.a.NormEps) * scale
			if b != nil {
				y[at+i] += b[i]
			}
		}
	}
	return y
}

func (r *reference) rotate(x []float64, pos, layer int) {
	if r.has(arch.Position, -1) {
		return
	}
	d := int(r.a.HeadDim)
	angles := r.a.Angles(1)
	if r.a.Slides(layer) {
		angles = r.a.LocalAngles(1)
	}
	half := len(angles.InvFreq)
	for h := 0; h < len(x); h += d {
		for i, f := range angles.InvFreq {
			sin, cos := math.Sincos(float64(pos) * f)
			a, b := x[h+i], x[h+i+half]
			x[h+i], x[h+i+half] = angles.Scale*(a*cos-b*sin), angles.Scale*(b*cos+a*sin)
		}
	}
}

func (r *reference) act(x float64) float64 {
	if r.a.HiddenAct == "silu" {
		return x / (1 + math.Exp(-x))
	}
	return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

func (r *reference) gated(gate, up []float64) []float64 {
	y := make([]float64, len(up))
	for i := range y {
		if gate == nil {
			y[i] = r.act(up[i])
		} else {
			y[i] = r.act(gate[i]) * up[i]
		}
	}
	return y
}

func (r *reference) mlp(layer int, x []float64) []float64 {
	switch {
	case r.has(arch.Router, layer):
		return r.mixture(layer, x)
	case r.has(arch.GateUp, layer):
		both := r.linear(arch.GateUp, layer, x)
		return r.linear(arch.Down, layer, r.gated(both[:len(both)/2], both[len(both)/2:]))
	case !r.has(arch.Gate, layer):
		return r.linear(arch.Down, layer, r.gated(nil, r.linear(arch.Up, layer, x)))
	}
	return r.linear(arch.Down, layer, r.gated(r.linear(arch.Gate, layer, x), r.linear(arch.Up, layer, x)))
}

func (r *reference) mixture(layer int, x []float64) []float64 {
	p := r.linear(arch.Router, layer, x)
	var sum float64
	for i := range p {
		p[i] = math.Exp(p[i])
		sum += p[i]
	}
	var chosen []int
	var weight float64
	for range r.a.NumExpertsPerTok {
		best := -1
		for e := range p {
			if !slices.Contains(chosen, e) && (best < 0 || p[e] > p[best]) {
				best = e
			}
		}
		chosen = append(chosen, best)
		weight += p[best]
	}
	if !r.a.NormTopKProb {
		weight = sum
	}
	y := make([]float64, len(x))
	for _, e := range chosen {
		name := func(role arch.Role) string {
			t, _ := r.a.FindExpert(role, layer, e)
			return t.Module()
		}
		out := r.times(name(arch.Down), r.gated(r.times(name(arch.Gate), x, false), r.times(name(arch.Up), x, false)), false)
		for i, v := range out {
			y[i] += p[e] / weight * v
		}
	}
	if r.has(arch.SharedRouter, layer) {
		g := 1 / (1 + math.Exp(-r.linear(arch.SharedRouter, layer, x)[0]))
		out := r.linear(arch.SharedDown, layer, r.gated(r.linear(arch.SharedGate, layer, x), r.linear(arch.SharedUp, layer, x)))
		for i, v := range out {
			y[i] += g * v
		}
	}
	return y
}

func bounded(x, limit float64) float64 {
	if limit == 0 {
		return x
	}
	return limit * math.Tanh(x/limit)
}

// logits returns the logits after each token of one sequence.
func (r *reference) logits(tokens []int32) [][]float64 {
	h, d := int(r.a.HiddenSize), int(r.a.HeadDim)
	heads, kvHeads := int(r.a.NumAttentionHeads), int(r.a.NumKeyValueHeads)
	embed, _ := r.module(arch.Embedding, -1)
	xs := make([][]float64, len(tokens))
	for i, t := range tokens {
		xs[i] = r.embedding(embed, int(t))
		for e := range xs[i] {
			if r.a.ScaleEmbeddings {
				xs[i][e] *= math.Sqrt(float64(h))
			}
			if r.has(arch.Position, -1) {
				module, _ := r.module(arch.Position, -1)
				xs[i][e] += r.w[module+".weight"][i*h+e]
			}
		}
	}
	scale := 1 / math.Sqrt(float64(d))
	if r.a.QueryPreAttnScalar > 0 {
		scale = 1 / math.Sqrt(r.a.QueryPreAttnScalar)
	}
	for l := range int(r.a.NumHiddenLayers) {
		var ks, vs [][]float64
		for i, x := range xs {
			n := r.norm(arch.AttnNorm, l, x)
			var q, k, v []float64
			if r.has(arch.QKV, l) {
				all := r.linear(arch.QKV, l, n)
				q, k, v = all[:heads*d], all[heads*d:(heads+kvHeads)*d], all[(heads+kvHeads)*d:]
			} else {
				q, k, v = r.linear(arch.Query, l, n), r.linear(arch.Key, l, n), r.linear(arch.Value, l, n)
			}
			if r.has(arch.QueryNorm, l) {
				q, k = r.norm(arch.QueryNorm, l, q), r.norm(arch.KeyNorm, l, k)
			}
			r.rotate(q, i, l)
			r.rotate(k, i, l)
			ks, vs = append(ks, k), append(vs, v)
			o := make([]float64, heads*d)
			for hd := range heads {
				kh := hd / (heads / kvHeads)
				p := make([]float64, i+1)
				var sum float64
				for j := range p {
					if r.a.Slides(l) && i-j >= int(r.a.SlidingWindow) {
						continue
					}
					var s float64
					for e := range d {
						s += q[hd*d+e] * ks[j][kh*d+e]
					}
					p[j] = math.Exp(bounded(s*scale, r.a.AttnLogitSoftcapping))
					sum += p[j]
				}
				for j := range p {
					for e := range d {
						o[hd*d+e] += p[j] / sum * vs[j][kh*d+e]
					}
				}
			}
			x1 := r.linear(arch.AttnOut, l, o)
			if r.has(arch.PostAttnNorm, l) {
				x1 = r.norm(arch.PostAttnNorm, l, x1)
			}
			for e := range x1 {
				x1[e] += x[e]
			}
			y := r.mlp(l, r.norm(arch.MLPNorm, l, x1))
			if r.has(arch.PostMLPNorm, l) {
				y = r.norm(arch.PostMLPNorm, l, y)
			}
			for e := range y {
				y[e] += x1[e]
			}
			xs[i] = y
		}
	}
	head := arch.Head
	if !r.has(head, -1) {
		head = arch.Embedding
	}
	out := make([][]float64, len(xs))
	for i, x := range xs {
		out[i] = r.linear(head, -1, r.norm(arch.FinalNorm, -1, x))
		for e, v := range out[i] {
			out[i][e] = bounded(v, r.a.FinalLogitSoftcapping)
		}
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
