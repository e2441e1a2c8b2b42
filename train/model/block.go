package model

import (
	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
)

// Block is one leased block: attention and a gated MLP, each behind an RMSNorm
// and around a residual (transformers' LlamaDecoderLayer).
type Block struct {
	m                 *Model
	attnNorm, mlpNorm norm
	q, k, v, o        *linear
	gate, up, down    *linear
}

// Block binds block number layer to its weights, which must stay valid while
// it is used.
func (m *Model) Block(layer int, w Weights) (*Block, error) {
	b, bind := &Block{m: m}, binding{m, w}
	var err error
	for _, n := range []struct {
		to   *norm
		role arch.Role
	}{{&b.attnNorm, arch.AttnNorm}, {&b.mlpNorm, arch.MLPNorm}} {
		if *n.to, err = bind.norm(n.role, layer); err != nil {
			return nil, err
		}
	}
	for _, l := range []struct {
		to   **linear
		role arch.Role
	}{
		{&b.q, arch.Query}, {&b.k, arch.Key}, {&b.v, arch.Value}, {&b.o, arch.AttnOut},
		{&b.gate, arch.Gate}, {&b.up, arch.Up}, {&b.down, arch.Down},
	} {
		if *l.to, err = bind.linear(l.role, layer); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// inner is what the backward pass needs from inside a block.
type inner struct {
	h1      []float32 // attention's input: norm of x
	q, k, v []float32 // rotated
	o       []float32 // attention's output, before its projection
	x1      []float32 // between attention and MLP
	h2      []float32 // the MLP's input: norm of x1
	gate    []float32
	up      []float32
	act     []float32 // silu(gate) * up
}

// attention fills what comes before x1 from the block's input x.
func (b *Block) attention(in *inner, x []float32, pos []int32, d dropout) error {
	m, n := b.m, len(pos)
	s := &m.scr
	in.h1 = s.take(len(x))
	kernel.RMSNorm(in.h1, x, b.attnNorm.w, n, m.arch.RMSNormEps)
	in.q, in.k, in.v = s.take(n*b.q.out), s.take(n*b.k.out), s.take(n*b.v.out)
	for _, p := range []struct {
		l *linear
		y []float32
	}{{b.q, in.q}, {b.k, in.k}, {b.v, in.v}} {
		if err := p.l.forward(s, p.y, in.h1, n, d); err != nil {
			return err
		}
	}
	m.rotate.Apply(in.q, m.attend.Heads, pos)
	m.rotate.Apply(in.k, m.attend.KVHeads, pos)
	in.o = s.take(n * b.q.out)
	return nil
}

// mlp fills the rest from in.o and returns nothing but in.act: the block's
// result is x1 + down(act).
func (b *Block) mlp(in *inner, x []float32, n int, d dropout) error {
	s := &b.m.scr
	in.x1 = s.take(len(x))
	if err := b.o.forward(s, in.x1, in.o, n, d); err != nil {
		return err
	}
	kernel.Add(in.x1, x)
	in.h2 = s.take(len(x))
	kernel.RMSNorm(in.h2, in.x1, b.mlpNorm.w, n, b.m.arch.RMSNormEps)
	in.gate, in.up, in.act = s.take(n*b.gate.out), s.take(n*b.gate.out), s.take(n*b.gate.out)
	if err := b.gate.forward(s, in.gate, in.h2, n, d); err != nil {
		return err
	}
	if err := b.up.forward(s, in.up, in.h2, n, d); err != nil {
		return err
	}
	kernel.SwiGLU(in.act, in.gate, in.up)
	return nil
}

// fill computes the inside of the block for a batch.
func (b *Block) fill(in *inner, x []float32, batch *Batch, d dropout) error {
	if err := b.attention(in, x, batch.Pos, d); err != nil {
		return err
	}
	qs, ks := b.q.out, b.k.out
	batch.sequences(func(from, to int) {
		b.m.attend.Forward(in.o[from*qs:to*qs], in.q[from*qs:to*qs], in.k[from*ks:to*ks], in.v[from*ks:to*ks], to-from, to-from)
	})
	return b.mlp(in, x, len(batch.Tokens), d)
}

// finish replaces x by the block's result.
func (b *Block) finish(in *inner, x []float32, n int, d dropout) error {
	if err := b.down.forward(&b.m.scr, x, in.act, n, d); err != nil {
		return err
	}
	kernel.Add(x, in.x1)
	return nil
}

// Forward replaces the hidden states x, one row for each token, by the block's
// result. key chooses the dropout; nil means none, as in evaluation.
func (b *Block) Forward(x []float32, batch *Batch, key *uint64) error {
	b.m.scr.reset()
	var in inner
	d := drops(key)
	if err := b.fill(&in, x, batch, d); err != nil {
		return err
	}
	return b.finish(&in, x, len(batch.Tokens), d)
}

// Backward replaces dx, the gradient with respect to the block's result, by
// that with respect to its input x, which is as Forward got it, and adds the
// gradients of what is trained to theirs. key is Forward's.
func (b *Block) Backward(dx, x []float32, batch *Batch, key *uint64) error {
	m, n := b.m, len(batch.Tokens)
	s := &m.scr
	s.reset()
	var in inner
	d := drops(key)
	if err := b.fill(&in, x, batch, d); err != nil {
		return err
	}

	// The MLP: dx is the gradient of x1 + down(act).
	dact := zeroed(s.take(len(in.act)))
	if err := b.down.backward(s, dact, dx, in.act, n, d); err != nil {
		return err
	}
	dgate, dup := in.act, dact
	kernel.SwiGLUGrad(dgate, dup, dact, in.gate, in.up)
	dh := zeroed(s.take(len(x)))
	if err := b.up.backward(s, dh, dup, in.h2, n, d); err != nil {
		return err
	}
	if err := b.gate.backward(s, dh, dgate, in.h2, n, d); err != nil {
		return err
	}
	kernel.RMSNormGrad(dx, b.mlpNorm.dw, dh, in.x1, b.mlpNorm.w, n, m.arch.RMSNormEps)

	// Attention: dx is the gradient of x + o_proj(o).
	do := zeroed(s.take(len(in.o)))
	if err := b.o.backward(s, do, dx, in.o, n, d); err != nil {
		return err
	}
	dq, dk, dv := s.take(len(in.q)), s.take(len(in.k)), s.take(len(in.v))
	qs, ks := b.q.out, b.k.out
	batch.sequences(func(from, to int) {
		m.attend.Grad(dq[from*qs:to*qs], dk[from*ks:to*ks], dv[from*ks:to*ks], do[from*qs:to*qs],
			in.q[from*qs:to*qs], in.k[from*ks:to*ks], in.v[from*ks:to*ks], to-from)
	})
	m.rotate.Grad(dq, m.attend.Heads, batch.Pos)
	m.rotate.Grad(dk, m.attend.KVHeads, batch.Pos)
	clear(dh)
	for _, p := range []struct {
		l  *linear
		dy []float32
	}{{b.q, dq}, {b.k, dk}, {b.v, dv}} {
		if err := p.l.backward(s, dh, p.dy, in.h1, n, d); err != nil {
			return err
		}
	}
	kernel.RMSNormGrad(dx, b.attnNorm.dw, dh, x, b.attnNorm.w, n, m.arch.RMSNormEps)
	return nil
}

func zeroed(x []float32) []float32 {
	clear(x)
	return x
}

func drops(key *uint64) dropout {
	if key == nil {
		return dropout{}
	}
	return dropout{on: true, key: *key}
}
