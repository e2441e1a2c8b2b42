package model

import (
	"math/rand/v2"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
)

// NewEmbeddingAdapter returns a fresh adapter of the token embeddings t: A zero and B
// normal, as PEFT has it for embeddings, whose inputs are never dropped.
func NewEmbeddingAdapter(t arch.Tensor, rank int, scale float32, seed uint64) *Adapter {
	module := t.Module()
	tokens, width := int(t.Dims[0]), int(t.Dims[1])
	return &Adapter{
		A:     matrix(module+".lora_embedding_A", rank, tokens, t.Layer, zero),
		B:     matrix(module+".lora_embedding_B", width, rank, t.Layer, random(module, seed, (*rand.Rand).NormFloat64)),
		Scale: scale,
	}
}

// embeddingAdapter returns the adapter of the token embeddings, nil if there is none.
func (m *Model) embeddingAdapter() *Adapter {
	t, _ := m.arch.Find(arch.Embedding, "weight", -1)
	return m.train.Adapters[t.Module()]
}

// adaptEmbeddings adds to the embeddings x of the tokens what their adapter does.
func (m *Model) adaptEmbeddings(x []float32, tokens []int32) {
	a := m.embeddingAdapter()
	if a == nil {
		return
	}
	_ = kernel.MulT(x, m.columns(a, tokens), len(tokens), a.b(), true) // in memory, so it cannot fail
}

// columns returns, a row for each token, the tokens' columns of A times what the adapter
// is multiplied by.
func (m *Model) columns(a *Adapter, tokens []int32) []float32 {
	m.scr.reset()
	r, vocab := a.rank(), a.a().Cols
	u := m.scr.take(len(tokens) * r)
	scale := a.Scale * m.embedScale()
	for i, t := range tokens {
		for k := range r {
			u[i*r+k] = scale * a.A.Data[k*vocab+int(t)]
		}
	}
	return u
}

// adaptEmbeddingsGrad adds to the gradients of the adapter what follows from the
// gradient dx of the embeddings.
func (m *Model) adaptEmbeddingsGrad(dx []float32, tokens []int32) {
	a := m.embeddingAdapter()
	if a == nil {
		return
	}
	n, r, vocab := len(tokens), a.rank(), a.a().Cols
	kernel.AddOuter(a.B.Grad, dx, m.columns(a, tokens), n, a.b().Rows, r)
	t := m.scr.take(n * r)
	_ = kernel.Mul(t, dx, n, a.b(), false)
	scale := a.Scale * m.embedScale()
	for i, token := range tokens {
		for k := range r {
			a.A.Grad[k*vocab+int(token)] += scale * t[i*r+k]
		}
	}
}
