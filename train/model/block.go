package model

import "github.com/seed18967229/nibble/arch"

// Block is one leased block: attention and an MLP, each behind a norm and
// around a residual (transformers' LlamaDecoderLayer), with norms of their
// results where the family has them (Gemma2DecoderLayer).
type Block struct {
	m                 *Model
	attnNorm, mlpNorm *norm
	postAttn, postMLP *norm // nil in most families
	attn              attention
	mlp               mlp
}

// Block binds block number layer to its weights, which must stay valid while
// it is used.
func (m *Model) Block(layer int, w Leased) (*Block, error) {
	b, bind := &Block{m: m}, binding{m, w}
	var err error
	if b.attnNorm, err = bind.norm(arch.AttnNorm, layer); err != nil {
		return nil, err
	}
	if b.mlpNorm, err = bind.norm(arch.MLPNorm, layer); err != nil {
		return nil, err
	}
	if b.postAttn, err = bind.maybeNorm(arch.PostAttnNorm, layer); err != nil {
		return nil, err
	}
	if b.postMLP, err = bind.maybeNorm(arch.PostMLPNorm, layer); err != nil {
		return nil, err
	}
	if err := b.attn.bind(bind, layer); err != nil {
		return nil, err
	}
	b.mlp, err = bind.mlp(layer, w)
	return b, err
}

// inner is what the backward pass needs from inside a block.
type inner struct {
	h1   []float32 // attention's input: norm of x
	attn attnInner
	a    []float32 // attention's result, before a norm of it
	x1   []float32 // between attention and MLP
	h2   []float32 // the MLP's input: norm of x1
	mlp  mlpInner
}

// before fills what comes before the attention itself from the block's input x.
func (b *Block) before(in *inner, x []float32, pos []int32, d dropout) error {
	s, n := &b.m.scr, len(pos)
	in.h1 = s.take(len(x))
	b.attnNorm.Forward(in.h1, x, n)
	return b.attn.project(s, &in.attn, in.h1, pos, d)
}

// after fills what comes after it, up to the MLP's last projection.
func (b *Block) after(in *inner, x []float32, n int, d dropout) error {
	s := &b.m.scr
	in.x1 = s.take(len(x))
	in.a = in.x1
	if b.postAttn != nil {
		in.a = s.take(len(x))
	}
	if err := b.attn.o.forward(s, in.a, in.attn.out, n, d); err != nil {
		return err
	}
	if b.postAttn != nil {
		b.postAttn.Forward(in.x1, in.a, n)
	}
	add(in.x1, x)
	in.h2 = s.take(len(x))
	b.mlpNorm.Forward(in.h2, in.x1, n)
	return b.mlp.inside(s, &in.mlp, in.h2, n, d)
}

// fill computes the inside of the block for a batch.
func (b *Block) fill(in *inner, x []float32, batch *Batch, d dropout) error {
	if err := b.before(in, x, batch.Pos, d); err != nil {
		return err
	}
	b.attn.attend(&b.m.scr, &in.attn, batch)
	return b.after(in, x, len(batch.Tokens), d)
}

// finish replaces x by the block's result.
func (b *Block) finish(in *inner, x []float32, n int, d dropout) error {
	s := &b.m.scr
	y := x
	if b.postMLP != nil {
		y = s.take(len(x))
	}
	if err := b.mlp.output(s, y, &in.mlp, in.h2, n, d); err != nil {
		return err
	}
	if b.postMLP != nil {
		b.postMLP.Forward(x, y, n)
	}
	add(x, in.x1)
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
	n := len(batch.Tokens)
	s := &b.m.scr
	s.reset()
	var in inner
	d := drops(key)
	if err := b.fill(&in, x, batch, d); err != nil {
		return err
	}

	// The MLP: dx is the gradient of x1 + its result.
	dy := dx
	if b.postMLP != nil {
		y := s.take(len(x))
		if err := b.mlp.output(s, y, &in.mlp, in.h2, n, d); err != nil {
			return err
		}
		dy = s.zeros(len(x))
		b.postMLP.grad(dy, dx, y, n)
	}
	dh := s.zeros(len(x))
	if err := b.mlp.backward(s, dh, dy, &in.mlp, in.h2, n, d); err != nil {
		return err
	}
	b.mlpNorm.grad(dx, dh, in.x1, n)

	// Attention: dx is the gradient of x + its result.
	da := dx
	if b.postAttn != nil {
		da = s.zeros(len(x))
		b.postAttn.grad(da, dx, in.a, n)
	}
	clear(dh)
	if err := b.attn.backward(s, dh, da, &in.attn, in.h1, batch, d); err != nil {
		return err
	}
	b.attnNorm.grad(dx, dh, x, n)
	return nil
}

// Extend replaces the hidden states x of the next tokens of a sequence, at the
// given positions, by the result of block number layer, which sees the tokens
// in the cache before them and leaves theirs there.
func (b *Block) Extend(x []float32, pos []int32, c *Cache, layer int) error {
	b.m.scr.reset()
	var in inner
	if err := b.before(&in, x, pos, dropout{}); err != nil {
		return err
	}
	b.attn.extend(&in.attn, len(pos), c, layer)
	if err := b.after(&in, x, len(pos), dropout{}); err != nil {
		return err
	}
	return b.finish(&in, x, len(pos), dropout{})
}

// InnerFloats returns how many floats a block of the model takes for each token
// that passes it forward and back, without what adapters take.
func InnerFloats(a *arch.Model) int64 {
	h, q, kv, mlp := a.HiddenSize, a.NumAttentionHeads*a.HeadDim, a.NumKeyValueHeads*a.HeadDim, a.IntermediateSize
	n := 4*h + 3*q + 2*kv + 3*mlp // forward: h1 x1 h2 dh, q o do, k v, gate up act
	n += q + 2*kv + mlp           // backward: dq, dk dv, dact
	n += 2 * a.NumAttentionHeads  // of each head: lse, do·o
	for _, extra := range []struct {
		role   arch.Role
		floats int64
	}{
		{arch.QKV, 2 * (q + 2*kv)}, {arch.GateUp, 4 * mlp}, // together, both ways
		{arch.QueryNorm, 2 * q}, {arch.KeyNorm, 2 * kv}, // before the norm, both ways
		{arch.PostAttnNorm, 2 * h}, {arch.PostMLPNorm, 2 * h},
	} {
		if _, ok := a.Find(extra.role, "weight", 0); ok {
			n += extra.floats
		}
	}
	return n
}

func drops(key *uint64) dropout {
	if key == nil {
		return dropout{}
	}
	return dropout{on: true, key: *key}
}
