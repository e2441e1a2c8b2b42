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
	reach        int     // of a sequence that comes in parts: its length by the last of them
	o            *linear
}

// attnInner is what the backward pass needs from inside.
type attnInner struct {
	// q and k are rotated, or as they come from the projections where heads have norms.
	q, k, v []float32
	out     []float32 // before the output projection
	lse     []float32 // of the scores of each token and head; nil without a backward pass
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

// project computes queries, keys and values from h.
func (a *attention) project(s *arena, in *attnInner, h []float32, n int, d dropout) error {
	if a.qkv != nil {
		mark := s.mark()
		all := s.take(n * a.qkv.out)
		if err := a.qkv.forward(s, all, h, n, d); err != nil {
			return err
		}
		split(all, n, in.q, in.k, in.v)
		s.release(mark)
		return nil
	}
	for _, p := range []struct {
		l *linear
		y []float32
	}{{a.q, in.q}, {a.k, in.k}, {a.v, in.v}} {
		if err := p.l.forward(s, p.y, h, n, d); err != nil {
			return err
		}
	}
	return nil
}

// cut takes the memory of the inside from r for n tokens.
func (a *attention) cut(r *arena, n int) attnInner {
	q, kv := n*a.qDim(), n*a.kvDim()
	return attnInner{q: r.take(q), k: r.take(kv), v: r.take(kv), out: r.take(q), lse: r.take(n * a.Heads)}
}

// turned returns queries and keys as attention takes them. What comes from the
// projections is rotated where it is, unless that was done before; where heads have
// norms it is left, and others are made.
func (a *attention) turned(s *arena, in *attnInner, pos []int32, before bool) (q, k []float32) {
	turn := func(x []float32, norm *norm, heads int) []float32 {
		if norm != nil {
			y := s.take(len(x))
			norm.Forward(y, x, len(pos)*heads)
			x = y
		} else if before {
			return x
		}
		if a.rotate != nil {
			a.rotate.of(pos, a.reach).Apply(x, heads, pos)
		}
		return x
	}
	return turn(in.q, a.qNorm, a.Heads), turn(in.k, a.kNorm, a.KVHeads)
}

// attend computes attention for the sequences of a batch.
func (a *attention) attend(in *attnInner, q, k []float32, batch *Batch) {
	qs, ks := a.qDim(), a.kvDim()
	batch.sequences(func(from, to int) {
		a.Forward(in.out[from*qs:to*qs], in.lse[from*a.Heads:to*a.Heads], q[from*qs:to*qs], k[from*ks:to*ks], in.v[from*ks:to*ks], to-from, to-from)
	})
}

// extend computes it for the next n tokens, from position at on, of a sequence in the
// cache.
func (a *attention) extend(in *attnInner, q, k []float32, at, n int, c *Cache, layer int) {
	allK, allV := c.extend(layer, at, k, in.v)
	a.Forward(in.out, nil, q, allK, allV, n, len(allK)/a.kvDim())
}

// backward puts the gradient with respect to h into dh, given that of the output
// projection's result.
func (a *attention) backward(s *arena, dh, dy []float32, in *attnInner, h []float32, batch *Batch, d dropout) error {
	n := len(batch.Tokens)
	q, k := a.turned(s, in, batch.Pos, true)
	do := s.take(len(in.out))
	if err := a.o.backward(s, do, dy, in.out, n, d, false); err != nil {
		return err
	}
	dq, dk, dv := s.take(len(q)), s.take(len(k)), s.take(len(k))
	qs, ks := a.qDim(), a.kvDim()
	batch.sequences(func(from, to int) {
		a.Grad(dq[from*qs:to*qs], dk[from*ks:to*ks], dv[from*ks:to*ks], do[from*qs:to*qs],
			in.out[from*qs:to*qs], in.lse[from*a.Heads:to*a.Heads], q[from*qs:to*qs], k[from*ks:to*ks], in.v[from*ks:to*ks], to-from)
	})
	if a.rotate != nil {
		r := a.rotate.of(batch.Pos, 0)
		r.Grad(dq, a.Heads, batch.Pos)
		r.Grad(dk, a.KVHeads, batch.Pos)
	}
	// The memory of what norms made is free by now.
	if a.qNorm != nil {
		clear(q)
		a.qNorm.grad(q, dq, in.q, n*a.Heads)
		dq = q
	}
	if a.kNorm != nil {
		clear(k)
		a.kNorm.grad(k, dk, in.k, n*a.KVHeads)
		dk = k
	}
	if a.qkv != nil {
		all := s.take(n * a.qkv.out)
		join(all, n, dq, dk, dv)
		return a.qkv.backward(s, dh, all, h, n, d, false)
	}
	for i, p := range []struct {
		l  *linear
		dy []float32
	}{{a.q, dq}, {a.k, dk}, {a.v, dv}} {
		if err := p.l.backward(s, dh, p.dy, h, n, d, i > 0); err != nil {
			return err
		}
	}
	return nil
}

// split deals the columns of the n rows of x out to parts, from left to right.
func split(x []float32, n int, parts ...[]float32) {
	eachPart(x, n, parts, func(part, row []float32) { copy(part, row) })
}

// join undoes split.
func join(x []float32, n int, parts ...[]float32) {
	eachPart(x, n, parts, func(part, row []float32) { copy(row, part) })
}

// eachPart calls f with each row of each part and its place in x.
func eachPart(x []float32, n int, parts [][]float32, f func(part, row []float32)) {
	width := len(x) / n
	kernel.Parallel(n, int64(len(x)), func(i int) {
		row := x[i*width : (i+1)*width]
		for _, p := range parts {
			w := len(p) / n
			f(p[i*w:(i+1)*w], row[:w])
			row = row[w:]
		}
	})
}
