package model

import (
	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
)

// add adds x to y.
func add(y, x []float32) { kernel.Add(y, x) }

// attention is the attention of a block with its projections.
type attention struct {
	kernel.Attention
	qkv          *linear // or:
	q, k, v      *linear
	qNorm, kNorm *norm   // of each head; nil in most families
	rotate       *rotary // nil where positions are learned
	o            *linear
}

// attnInner is what the backward pass needs from inside.
type attnInner struct {
	rawQ, rawK []float32 // before the norms of heads, if there are any
	q, k, v    []float32 // rotated
	out        []float32 // before the output projection
	lse        []float32 // of the scores of each token and head; nil without a backward pass
}

func (a *attention) bind(b binding, layer int) error {
	m := b.m
	a.Attention = kernel.Attention{
		Heads: int(m.arch.NumAttentionHeads), KVHeads: int(m.arch.NumKeyValueHeads), HeadDim: int(m.arch.HeadDim),
		Scale: float32(m.arch.AttentionScale()), Cap: float32(m.arch.AttnLogitSoftcapping),
	}
	a.rotate = m.rotate
	if m.arch.Slides(layer) {
		a.Window, a.rotate = int(m.arch.SlidingWindow), m.local
	}
	var err error
	if _, fused := m.arch.Find(arch.QKV, "weight", layer); fused {
		if a.qkv, err = b.linear(arch.QKV, layer); err != nil {
			return err
		}
	} else {
		for _, l := range []struct {
			to   **linear
			role arch.Role
		}{{&a.q, arch.Query}, {&a.k, arch.Key}, {&a.v, arch.Value}} {
			if *l.to, err = b.linear(l.role, layer); err != nil {
				return err
			}
		}
	}
	if a.o, err = b.linear(arch.AttnOut, layer); err != nil {
		return err
	}
	if a.qNorm, err = b.maybeNorm(arch.QueryNorm, layer); err != nil {
		return err
	}
	a.kNorm, err = b.maybeNorm(arch.KeyNorm, layer)
	return err
}

func (a *attention) qDim() int  { return a.Heads * a.HeadDim }
func (a *attention) kvDim() int { return a.KVHeads * a.HeadDim }

// project computes queries, keys and values from h, and makes room for what
// attention makes of them.
func (a *attention) project(s *arena, in *attnInner, h []float32, pos []int32, d dropout) error {
	n := len(pos)
	in.q, in.k, in.v = s.take(n*a.qDim()), s.take(n*a.kvDim()), s.take(n*a.kvDim())
	if a.qkv != nil {
		all := s.take(n * a.qkv.out)
		if err := a.qkv.forward(s, all, h, n, d); err != nil {
			return err
		}
		split(all, n, in.q, in.k, in.v)
	} else {
		for _, p := range []struct {
			l *linear
			y []float32
		}{{a.q, in.q}, {a.k, in.k}, {a.v, in.v}} {
			if err := p.l.forward(s, p.y, h, n, d); err != nil {
				return err
			}
		}
	}
	if a.qNorm != nil {
		in.rawQ, in.q = in.q, s.take(len(in.q))
		a.qNorm.Forward(in.q, in.rawQ, n*a.Heads)
	}
	if a.kNorm != nil {
		in.rawK, in.k = in.k, s.take(len(in.k))
		a.kNorm.Forward(in.k, in.rawK, n*a.KVHeads)
	}
	if a.rotate != nil {
		r := a.rotate.of(pos)
		r.Apply(in.q, a.Heads, pos)
		r.Apply(in.k, a.KVHeads, pos)
	}
	in.out = s.take(n * a.qDim())
	return nil
}

// attend computes attention for the sequences of a batch.
func (a *attention) attend(s *arena, in *attnInner, batch *Batch) {
	qs, ks := a.qDim(), a.kvDim()
	in.lse = s.take(len(batch.Tokens) * a.Heads)
	batch.sequences(func(from, to int) {
		a.Forward(in.out[from*qs:to*qs], in.lse[from*a.Heads:to*a.Heads], in.q[from*qs:to*qs], in.k[from*ks:to*ks], in.v[from*ks:to*ks], to-from, to-from)
	})
}

// extend computes it for the next n tokens of a sequence in the cache.
func (a *attention) extend(in *attnInner, n int, c *Cache, layer int) {
	kv := &c.layers[layer]
	kv.k = append(kv.k[:c.n*a.kvDim()], in.k...)
	kv.v = append(kv.v[:c.n*a.kvDim()], in.v...)
	a.Forward(in.out, nil, in.q, kv.k, kv.v, n, c.n+n)
}

// backward adds to dh the gradient with respect to h, given that of the output
// projection's result.
func (a *attention) backward(s *arena, dh, dy []float32, in *attnInner, h []float32, batch *Batch, d dropout) error {
	n := len(batch.Tokens)
	do := s.zeros(len(in.out))
	if err := a.o.backward(s, do, dy, in.out, n, d); err != nil {
		return err
	}
	dq, dk, dv := s.take(len(in.q)), s.take(len(in.k)), s.take(len(in.v))
	qs, ks := a.qDim(), a.kvDim()
	batch.sequences(func(from, to int) {
		a.Grad(dq[from*qs:to*qs], dk[from*ks:to*ks], dv[from*ks:to*ks], do[from*qs:to*qs],
			in.out[from*qs:to*qs], in.lse[from*a.Heads:to*a.Heads], in.q[from*qs:to*qs], in.k[from*ks:to*ks], in.v[from*ks:to*ks], to-from)
	})
	if a.rotate != nil {
		r := a.rotate.of(batch.Pos)
		r.Grad(dq, a.Heads, batch.Pos)
		r.Grad(dk, a.KVHeads, batch.Pos)
	}
	if a.qNorm != nil {
		raw := s.zeros(len(dq))
		a.qNorm.grad(raw, dq, in.rawQ, n*a.Heads)
		dq = raw
	}
	if a.kNorm != nil {
		raw := s.zeros(len(dk))
		a.kNorm.grad(raw, dk, in.rawK, n*a.KVHeads)
		dk = raw
	}
	if a.qkv != nil {
		all := s.take(n * a.qkv.out)
		join(all, n, dq, dk, dv)
		return a.qkv.backward(s, dh, all, h, n, d)
	}
	for _, p := range []struct {
		l  *linear
		dy []float32
	}{{a.q, dq}, {a.k, dk}, {a.v, dv}} {
		if err := p.l.backward(s, dh, p.dy, h, n, d); err != nil {
			return err
		}
	}
	return nil
}

// split deals the columns of the n rows of x out to parts, from left to right.
func split(x []float32, n int, parts ...[]float32) {
	width, at := len(x)/n, 0
	for _, p := range parts {
		w := len(p) / n
		for i := range n {
			copy(p[i*w:(i+1)*w], x[i*width+at:])
		}
		at += w
	}
}

// join undoes split.
func join(x []float32, n int, parts ...[]float32) {
	width, at := len(x)/n, 0
	for _, p := range parts {
		w := len(p) / n
		for i := range n {
			copy(x[i*width+at:], p[i*w:(i+1)*w])
		}
		at += w
	}
}
