package model

import "github.com/seed18967229/nibble/arch"

// Block is one leased block: attention and an MLP, each behind a norm and
// around a residual (transformers' LlamaDecoderLayer), with norms of their
// results where the family has them (Gemma2DecoderLayer).
type Block struct {
	m                 *Model
	layer             int
	attnNorm, mlpNorm *norm
	postAttn, postMLP *norm // nil in most families
	attn              attention
	mlp               mlp
}

// Block binds block number layer to its weights, which must stay valid while
// it is used.
func (m *Model) Block(layer int, w Leased) (*Block, error) {
	b, bind := &Block{m: m, layer: layer}, binding{m, w}
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

// inner is the inside of a block as far as the way back needs it and could not have it
// without a large product. What else it needs, norms and activations, it makes again.
type inner struct {
	mid  []float32 // between attention and MLP; or attention's result, before a norm of it
	attn attnInner
	mlp  mlpInner
	y    []float32 // the MLP's result before a norm of it, if it has one
}

// attend takes queries and keys and fills the rest of what they come from.
type attend func(in *attnInner, q, k []float32)

// inside computes the block for the rows of x at the given positions up to the MLP's
// last projection. It takes what is to be kept from r, in the order of cut. That may be
// s: then nothing is, and only what finish needs is left there. It returns what comes
// out of attention, with x added, and the MLP's input.
func (b *Block) inside(s, r *arena, in *inner, x []float32, pos []int32, d dropout, attend attend) (x1, h2 []float32, err error) {
	n := len(pos)
	in.mid = r.take(len(x))
	mark := s.mark()
	in.attn = b.attn.cut(r, n)
	after := s.mark()
	h1 := s.take(len(x))
	b.attnNorm.Forward(h1, x, n)
	if err := b.attn.project(s, &in.attn, h1, n, d); err != nil {
		return nil, nil, err
	}
	s.release(after)
	q, k := b.attn.turned(s, &in.attn, pos, false)
	attend(&in.attn, q, k)
	if err := b.attn.o.forward(s, in.mid, in.attn.out, n, d); err != nil {
		return nil, nil, err
	}
	s.release(mark)

	x1 = b.between(s, in, x, n, false)
	b.mlp.cut(r, &in.mlp, n)
	if r == s && in.mlp.up != nil {
		in.mlp.act = in.mlp.up
	}
	h2 = s.take(len(x))
	b.mlpNorm.Forward(h2, x1, n)
	return x1, h2, b.mlp.inside(s, &in.mlp, h2, n, d)
}

// between returns what comes out of attention, with x added. before says that this was
// computed before.
func (b *Block) between(s *arena, in *inner, x []float32, n int, before bool) []float32 {
	x1 := in.mid
	if b.postAttn != nil {
		x1 = s.take(len(x))
		b.postAttn.Forward(x1, in.mid, n)
	} else if before {
		return x1
	}
	add(x1, x)
	return x1
}

// run replaces x by the block's result.
func (b *Block) run(x []float32, pos []int32, d dropout, kept []float32, attend attend) error {
	s, n := &b.m.scr, len(pos)
	s.reset()
	r := s
	if kept != nil {
		r = &arena{buf: kept}
	}
	var in inner
	x1, h2, err := b.inside(s, r, &in, x, pos, d, attend)
	if err != nil {
		return err
	}
	y := x
	if b.postMLP != nil {
		in.y = r.take(len(x))
		y = in.y
	}
	if err := b.mlp.output(s, y, &in.mlp, h2, n, d); err != nil {
		return err
	}
	if b.postMLP != nil {
		b.postMLP.Forward(x, y, n)
	}
	add(x, x1)
	return nil
}

// Forward replaces the hidden states x, one row for each token, by the block's
// result. key chooses the dropout; nil means none, as in evaluation. kept, which may be
// nil, has Model.KeptFloats floats for Backward.
func (b *Block) Forward(x []float32, batch *Batch, key *uint64, kept []float32) error {
	return b.run(x, batch.Pos, drops(key), kept, b.batch(batch))
}

// MostExtended is how many tokens Extend takes at most.
const MostExtended = slack

// Extend replaces the hidden states x of the next tokens of a sequence, at the
// given positions, one after another, by the block's result, which sees the tokens in
// the cache before them and leaves theirs there.
func (b *Block) Extend(x []float32, pos []int32, c *Cache) error {
	b.attn.reach = c.reach
	defer func() { b.attn.reach = 0 }()
	return b.run(x, pos, dropout{}, nil, func(in *attnInner, q, k []float32) {
		b.attn.extend(in, q, k, int(pos[0]), len(pos), c, b.layer)
	})
}

func (b *Block) batch(batch *Batch) attend {
	return func(in *attnInner, q, k []float32) { b.attn.attend(in, q, k, batch) }
}

// cut finds in r what inside left there.
func (b *Block) cut(r *arena, in *inner, n int) {
	h := b.m.Hidden()
	in.mid = r.take(n * h)
	in.attn = b.attn.cut(r, n)
	b.mlp.cut(r, &in.mlp, n)
	if b.postMLP != nil {
		in.y = r.take(n * h)
	}
}

// Backward replaces dx, the gradient with respect to the block's result, by
// that with respect to its input x, which is as Forward got it, and adds the
// gradients of what is trained to theirs. key is Forward's. kept is what Forward
// filled, and is spoiled; if it is nil, Backward computes it again.
func (b *Block) Backward(dx, x []float32, batch *Batch, key *uint64, kept []float32) error {
	n := len(batch.Tokens)
	s := &b.m.scr
	s.reset()
	d := drops(key)
	var in inner
	if kept == nil {
		kept = s.take(b.m.KeptFloats(b.layer, n))
		mark := s.mark()
		r := &arena{buf: kept}
		_, h2, err := b.inside(s, r, &in, x, batch.Pos, d, b.batch(batch))
		if err == nil && b.postMLP != nil {
			err = b.mlp.output(s, r.take(len(x)), &in.mlp, h2, n, d)
		}
		if err != nil {
			return err
		}
		in = inner{}
		s.release(mark)
	}
	b.cut(&arena{buf: kept}, &in, n)
	dh := s.take(len(x))

	// The MLP: dx is the gradient of x1 + its result.
	mark := s.mark()
	x1 := b.between(s, &in, x, n, true)
	h2 := s.take(len(x))
	b.mlpNorm.Forward(h2, x1, n)
	dy := dx
	if b.postMLP != nil {
		dy = s.zeros(len(x))
		b.postMLP.grad(dy, dx, in.y, n)
	}
	if err := b.mlp.backward(s, dh, dy, &in.mlp, h2, n, d); err != nil {
		return err
	}
	b.mlpNorm.grad(dx, dh, x1, n)
	s.release(mark)

	// Attention: dx is the gradient of x + its result.
	h1 := s.take(len(x))
	b.attnNorm.Forward(h1, x, n)
	da := dx
	if b.postAttn != nil {
		da = s.zeros(len(x))
		b.postAttn.grad(da, dx, in.mid, n)
	}
	if err := b.attn.backward(s, dh, da, &in.attn, h1, batch, d); err != nil {
		return err
	}
	b.attnNorm.grad(dx, dh, x, n)
	return nil
}

func drops(key *uint64) dropout {
	if key == nil {
		return dropout{}
	}
	return dropout{on: true, key: *key}
}
